from __future__ import annotations

import asyncio
import json
from pathlib import Path

import apsw
import pytest

from taskyard.cli.exits import Exit
from taskyard.store.sqlite import SqliteStore
from tests.conformance.lives import running, submit
from tests.unit.cli.conftest import Cli


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "manager" / "store.db"


def add(path: Path, *names: str) -> None:
    async def main() -> None:
        store = await SqliteStore.open(path)
        for name in names:
            await submit(store, name)
        await running(store, f"{names[0]}-runs")
        await store.close()

    asyncio.run(main())


def test_a_sound_store(cli: Cli, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(path, "one", "two")
    assert cli("store", "check") == Exit.OK
    assert f"{path} is sound: 3 tasks, 1 of them open" in capsys.readouterr().out
    assert cli("store", "check", "--json") == Exit.OK
    found = json.loads(capsys.readouterr().out)
    assert (found["tasks"], found["open_tasks"], found["problems"]) == (3, 1, [])


def test_a_damaged_store(cli: Cli, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(path, "one")
    connection = apsw.Connection(str(path))
    connection.execute("DELETE FROM events WHERE version = 1")
    connection.close()
    assert cli("store", "check") == Exit.STORE
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 2
    assert "taskyard store restore FILE" in shown.err
    assert cli("store", "check", "--json") == Exit.STORE
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 2
    assert cli("store", "check", str(path)) == Exit.STORE
    assert "taskyard store restore FILE" in capsys.readouterr().err, "it is the store, by its name"


def test_a_damaged_backup_is_not_to_be_restored(
    cli: Cli, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(path, "one")
    copy = tmp_path / "copy.db"
    assert cli("store", "backup", str(copy)) == Exit.OK
    connection = apsw.Connection(str(copy))
    connection.execute("DELETE FROM events WHERE version = 1")
    connection.close()
    capsys.readouterr()
    assert cli("store", "check", str(copy)) == Exit.STORE
    told = capsys.readouterr().err
    assert "take another backup" in told
    assert "puts a backup in its place" not in told


def test_there_may_be_none(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("store", "check") == Exit.NOT_FOUND
    assert "there is no file" in capsys.readouterr().err


def test_backup_and_restore(cli: Cli, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(path, "one")
    copy = tmp_path / "copy.db"
    assert cli("store", "backup", str(copy)) == Exit.OK
    assert f"{copy} holds 2 tasks, 1 of them open" in capsys.readouterr().out
    assert cli("store", "backup", str(copy)) == Exit.CONFLICT
    assert "--force" in capsys.readouterr().err
    add(path, "two")
    assert cli("store", "backup", str(copy), "--force", "--json") == Exit.OK
    made = json.loads(capsys.readouterr().out)
    assert (made["path"], made["tasks"]) == (str(copy), 4)
    assert cli("store", "check", str(copy)) == Exit.OK
    capsys.readouterr()

    assert cli("store", "restore", str(copy)) == Exit.OK
    told = capsys.readouterr().out
    assert "holds 4 tasks" in told
    assert ".before-restore: remove it" in told
    assert cli("store", "restore", str(copy), "--json") == Exit.OK
    done = json.loads(capsys.readouterr().out)
    assert done["store"]["generation"] != made["generation"]
    assert Path(done["set_aside"]).is_file()


def test_a_restore_into_an_empty_data_directory(
    cli: Cli, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(path, "one")
    copy = tmp_path / "copy.db"
    assert cli("store", "backup", str(copy)) == Exit.OK
    capsys.readouterr()
    assert cli("store", "restore", str(copy), "--data-dir", str(tmp_path / "other")) == Exit.OK
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert cli("store", "check", "--data-dir", str(tmp_path / "other")) == Exit.OK
