"""Full disks that SQLite calls I/O errors, and that are none: the index of the log cannot grow, or a quota is used up.

strace has the kernel say so, to the very write that would extend the file.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from taskyard.store.sqlite import SqliteStore
from taskyard.store.sqlite.database import Database

# A commit of so many pages that the index has to grow; then what is said of it, of the next one, and of a last one.
PROGRAM = """\
import asyncio, json, sys
from pathlib import Path
from taskyard.store.sqlite import SqliteStore
from tests.conformance.lives import NOW, submission, submit

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    await submit(store, "before")
    many = [submission(f"many{number}", env={"A": "x" * 3000}) for number in range(6000)]
    told = []
    for items in (many, [submission("after")], many):
        try:
            await store.submit(items, [], None, NOW)
            told.append("stored")
        except Exception as error:
            told.append(type(error).__name__)
    print(json.dumps({"told": told, "failed": store.failed.is_set(), "tasks": len(await store.names())}))
    await store.close()

asyncio.run(main())
"""


def traced(path: Path, beside: str, inject: str) -> dict[str, Any]:
    expressions = ["-e", "trace=pwrite64,fdatasync", "-e", inject]
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", f"{path}{beside}", *expressions]
    done = subprocess.run(
        [*command, sys.executable, "-c", PROGRAM, str(path)],
        capture_output=True,
        check=False,
        cwd=Path(__file__).parents[2],
        timeout=100,
    )
    if done.returncode and b"ptrace" in done.stderr.lower():
        pytest.skip(f"strace may not trace here: {done.stderr.decode()}")
    assert done.returncode == 0, done.stderr.decode()
    return dict(json.loads(done.stdout))


needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="needs strace (scripts/system-packages strace)"
)


@needs_strace
async def test_an_index_that_cannot_grow_is_a_full_disk_and_passes(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await (await SqliteStore.open(path)).close()
    # With another connection open, the first part of the index is there already: the next write is the one that extends it.
    reader = Database.to_read(path)
    reader.one("generation")
    found = traced(path, "-shm", "inject=pwrite64:error=ENOSPC:when=1")
    reader.close()
    assert found == {"told": ["StorageFull", "stored", "stored"], "failed": False, "tasks": 6002}


@needs_strace
@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT"])
async def test_a_log_that_cannot_grow_is_a_full_disk_and_passes(tmp_path: Path, error: str) -> None:
    path = tmp_path / "store.db"
    await (await SqliteStore.open(path)).close()
    # Some dozen writes are those of the first task; the large commit has thousands.
    found = traced(path, "-wal", f"inject=pwrite64:error={error}:when=500")
    assert found == {"told": ["StorageFull", "stored", "stored"], "failed": False, "tasks": 6002}


@needs_strace
async def test_a_log_that_cannot_be_synced_is_the_end_even_where_a_quota_is_why(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await (await SqliteStore.open(path)).close()
    found = traced(path, "-wal", "inject=fdatasync:error=EDQUOT:when=3")
    assert found["told"][0] == "StoreError"
    assert found["failed"]
