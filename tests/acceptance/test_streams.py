"""Large files and much output: memory stays flat in every process."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.acceptance.processes import Component, Yard

MIB = 1 << 20
LONG = os.environ.get("TASKYARD_TEST_LONG") == "1"
FILE_SIZE = (1024 if LONG else 256) * MIB
PRINTED = (2048 if LONG else 256) * MIB
MOST_GROWTH = 64 * MIB
"""What a process may take beyond what it had at rest, whatever the size of the file."""

COPIES = """\
import os, shutil
shutil.copyfile("big.bin", os.path.join(os.environ["TASKYARD_OUTPUT"], "copy.bin"))
"""

PRINTS = """\
import sys
line = b"x" * 1023 + b"\\n"
for _ in range(int(sys.argv[1]) // len(line)):
    sys.stdout.buffer.write(line)
print("last words", file=sys.stderr)
"""
ENDLESS_LINE = """\
import os, sys
piece, left = b"x" * (1 << 20), int(sys.argv[1])
while left:
    left -= os.write(1, piece[:left])
print("last words", file=sys.stderr)
"""


def peak_memory(component: Component) -> int:
    """The most bytes of memory that the process has had resident."""
    status = Path(f"/proc/{component.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.timeout(600)
def test_a_large_file_goes_up_to_the_executor_and_back_with_flat_memory(yard: Yard, tmp_path: Path) -> None:
    big, back = tmp_path / "big.bin", tmp_path / "back.bin"
    block = os.urandom(MIB)
    with big.open("wb") as file:
        for number in range(FILE_SIZE // MIB):
            file.write(number.to_bytes(8, "big") + block[8:])
    (tmp_path / "copy.py").write_text(COPIES)
    at_rest = {component.name: peak_memory(component) for component in yard.components}
    status, task = yard.curl_json(
        "/api/v2/tasks?wait=60",
        *("-F", f"file=@{tmp_path / 'copy.py'}", "-F", f"file=@{big}", "-F", "command=copy.py"),
        *("--max-time", "300"),
    )
    assert status == 201, task
    assert yard.wait_ended(task["id"])["state"] == "finished"
    status, _ = yard.curl(f"/api/v2/tasks/{task['id']}/artifacts/copy.bin", "-o", str(back), "--max-time", "300")
    assert status == 200
    assert digest_of(back) == digest_of(big)
    for component in yard.components:
        assert peak_memory(component) - at_rest[component.name] < MOST_GROWTH, component.name


@pytest.mark.timeout(600)
@pytest.mark.parametrize("script", [PRINTS, ENDLESS_LINE], ids=["lines", "one endless line"])
def test_a_flood_of_output_is_capped_with_a_count_and_flat_memory(yard: Yard, script: str) -> None:
    at_rest = {component.name: peak_memory(component) for component in yard.components}
    body = {"command": f"flood.py {PRINTED}", "script": script}
    status, task = yard.curl_json(
        "/api/v2/tasks?wait=60", "-H", "Content-Type: application/json", "-d", json.dumps(body)
    )
    assert status == 201, task
    assert yard.wait_ended(task["id"])["state"] == "finished"
    status, events = yard.curl(
        f"/api/v2/tasks/{task['id']}/log?stream=stdout", "-H", "Accept: text/event-stream", "--max-time", "60"
    )
    assert status == 200
    chunks = [json.loads(line[6:]) for line in events.decode().splitlines() if line.startswith('data: {"attempt"')]
    kept = sum(len(chunk.get("text") or "") for chunk in chunks)
    dropped = sum(chunk.get("dropped", 0) for chunk in chunks)
    assert (kept + dropped, dropped > 0) == (PRINTED, True)
    assert kept <= 16 * MIB
    assert yard.curl(f"/api/v2/tasks/{task['id']}/log?stream=stderr")[1] == b"last words\n"
    for component in yard.components:
        assert peak_memory(component) - at_rest[component.name] < MOST_GROWTH, component.name
