"""The loader, and what the shipped queries must keep: each is used, compiles, and finds its rows by an index."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import apsw
import pytest

import taskyard.store.sqlite
from taskyard.store.sqlite.database import Database
from taskyard.store.sqlite.queries import QUERIES, load
from taskyard.store.sqlite.schema import migrate

PARTS = {"task_columns", "attempt_columns", "keep_course", "ordinal_of_task", "matches"}
STATEMENTS = sorted(set(QUERIES) - PARTS)

#: These read or change all that there is, or page through it in the order of the table.
READS_ALL = {"names", "newest_tasks", "executors", "shift_keys"}
#: There are few open tasks, however many have ended; the others give all that there is.
SORTS = {"open_tasks", "names", "executors"}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[apsw.Connection]:
    database = Database.to_write(tmp_path / "store.db")
    migrate(database.connection, tmp_path / "store.db")
    yield database.connection
    database.close()


def test_statements_are_loaded_by_name() -> None:
    loaded = load("-- about the file\n\n-- name: one\n-- why\nSELECT 1\nFROM t;\n\n-- name: two\nSELECT ({one});\n")
    assert loaded == {"one": "SELECT 1\nFROM t;", "two": "SELECT (SELECT 1\nFROM t;);"}


def test_a_name_stands_once() -> None:
    with pytest.raises(ValueError, match="'one'"):
        load("-- name: one\nSELECT 1;\n-- name: one\nSELECT 2;\n")


def test_a_part_stands_before_its_use() -> None:
    with pytest.raises(KeyError):
        load("-- name: one\nSELECT {two};\n-- name: two\n1\n")


def test_every_query_is_used() -> None:
    folder = files(taskyard.store.sqlite)
    sources = [entry.read_text() for entry in folder.iterdir() if entry.name.endswith(".py")]
    used = {name for source in sources for name in re.findall(r'"(\w+)"', source)}
    assert set(STATEMENTS) <= used
    parts = set(re.findall(r"\{(\w+)\}", folder.joinpath("queries.sql").read_text()))
    assert parts - {"name"} == PARTS


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_million_ended_tasks_slow_no_query(connection: apsw.Connection, name: str) -> None:
    names = set(re.findall(r":(\w+)", QUERIES[name]))
    plan = connection.execute(f"EXPLAIN QUERY PLAN {QUERIES[name]}", dict.fromkeys(names)).fetchall()
    steps = [str(step[3]) for step in plan]
    scans = [step for step in steps if step.startswith("SCAN") and "VIRTUAL TABLE" not in step]
    sorts = [step for step in steps if step.startswith("USE TEMP B-TREE")]
    if name not in READS_ALL:
        assert not scans, steps
    if name not in SORTS:
        assert not sorts, steps
