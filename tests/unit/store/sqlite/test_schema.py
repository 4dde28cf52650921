"""Migrations, and the files that are no store of ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from taskyard.errors import SchemaTooNew, StoreDamaged
from taskyard.store.sqlite.schema import APPLICATION_ID, MIGRATIONS, Migration, migrate

NEXT = Migration(MIGRATIONS[-1].number + 1, "CREATE TABLE later (a INTEGER) STRICT;")
BROKEN = Migration(NEXT.number + 1, "CREATE TABLE broken (a INTEGER) STRICT; CREATE TABLE later (a INTEGER) STRICT;")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def connection(path: Path) -> Iterator[apsw.Connection]:
    opened = apsw.Connection(str(path))
    yield opened
    opened.close()


def tables(connection: apsw.Connection) -> set[str]:
    return {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def test_migrations_are_numbered_from_one_without_a_gap() -> None:
    assert [migration.number for migration in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


def test_a_new_file_gets_all_of_them(connection: apsw.Connection, path: Path) -> None:
    migrate(connection, path)
    assert "tasks" in tables(connection)
    assert connection.pragma("user_version") == MIGRATIONS[-1].number
    assert connection.pragma("application_id") == APPLICATION_ID


def test_an_up_to_date_file_stays_as_it_is(connection: apsw.Connection, path: Path) -> None:
    migrate(connection, path)
    changes = connection.total_changes()
    migrate(connection, path)
    assert connection.total_changes() == changes


def test_an_older_file_gets_what_it_lacks_and_keeps_what_it_has(connection: apsw.Connection, path: Path) -> None:
    migrate(connection, path)
    generation = connection.execute("SELECT value FROM meta").fetchall()
    migrate(connection, path, (*MIGRATIONS, NEXT))
    assert "later" in tables(connection)
    assert connection.pragma("user_version") == NEXT.number
    assert connection.execute("SELECT value FROM meta").fetchall() == generation


def test_migrations_are_applied_all_or_none(connection: apsw.Connection, path: Path) -> None:
    migrate(connection, path)
    before = tables(connection)
    with pytest.raises(apsw.SQLError):
        migrate(connection, path, (*MIGRATIONS, NEXT, BROKEN))
    assert tables(connection) == before
    assert connection.pragma("user_version") == MIGRATIONS[-1].number


def test_a_newer_file_is_refused(connection: apsw.Connection, path: Path) -> None:
    migrate(connection, path, (*MIGRATIONS, NEXT))
    with pytest.raises(SchemaTooNew, match=f"schema {NEXT.number}, this one knows {MIGRATIONS[-1].number}"):
        migrate(connection, path)


def test_the_database_of_another_program_is_refused(connection: apsw.Connection, path: Path) -> None:
    connection.execute("CREATE TABLE theirs (a)")
    with pytest.raises(StoreDamaged, match="another program"):
        migrate(connection, path)
    assert tables(connection) == {"theirs"}
