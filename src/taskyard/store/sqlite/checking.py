"""Looks at a store's file without changing it: beside a running manager, or at a backup."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import apsw
import msgspec

from taskyard.errors import NotFound, StoreDamaged, StoreError
from taskyard.store.sqlite import rows
from taskyard.store.sqlite.database import Database
from taskyard.store.sqlite.queries import QUERIES, load
from taskyard.store.sqlite.schema import known_version

#: Breaches of one kind that are told; where a file is broken there may be one for each row.
MOST = 20

_QUERIES = load(files(__package__).joinpath("checks.sql").read_text())
_COUNTS, _SPECS, _OUTCOMES = "count_tasks", "spec_bodies", "outcome_bodies"
_BREACHES = tuple(name for name in _QUERIES if name not in (_COUNTS, _SPECS, _OUTCOMES))


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What was found: ``problems`` are sentences, and there are none where the file is sound. ``open_tasks`` are those that
    are scheduled or running."""

    path: str
    schema: int
    generation: str = ""
    tasks: int = 0
    open_tasks: int = 0
    problems: tuple[str, ...] = ()


def check(path: Path) -> Checked:
    """Read all of the file, as it is at one moment. May take long: it blocks.

    ``NotFound``, ``SchemaTooNew``, ``StoreDamaged`` where it is no store at all, ``StoreError`` where it cannot be read."""
    if not path.is_file():
        raise NotFound(f"there is no file {path}")
    try:
        database = Database.to_check(path)
    except apsw.NotADBError as error:
        raise StoreDamaged(f"{path} is no store of Taskyard") from error
    except apsw.CorruptError as error:
        raise StoreDamaged(f"{path} is damaged: not even its schema can be read ({error})") from error
    except apsw.Error as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    try:
        return _check(database, path)
    finally:
        database.close()


def _check(database: Database, path: Path) -> Checked:
    connection = database.connection
    found = Checked(path=str(path), schema=0)
    problems: list[str] = []
    try:
        with connection:  # one moment: what is committed meanwhile is not seen
            found = msgspec.structs.replace(found, schema=known_version(connection, path))
            if found.schema == 0:
                raise StoreDamaged(f"{path} is empty: no manager has worked on it")
            problems += _file_problems(connection)
            found = _counted(connection, found)
            problems += _row_problems(connection)
    except (apsw.NotADBError, apsw.CorruptError, UnicodeDecodeError) as error:
        if found.schema == 0:
            raise StoreDamaged(f"{path} is damaged: not even its schema can be read ({error})") from error
        problems.append(f"a part of the file cannot be read: {error}")
    except apsw.Error as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    return msgspec.structs.replace(found, problems=tuple(problems))


def _file_problems(connection: apsw.Connection) -> Iterator[str]:
    for (line,) in connection.execute(f"PRAGMA integrity_check({MOST})"):
        if line != "ok":
            yield str(line)
    for table, _, parent, _ in itertools.islice(connection.execute("PRAGMA foreign_key_check"), MOST):
        yield f"a row of {table} belongs to a row of {parent} that is not there"


def _counted(connection: apsw.Connection, found: Checked) -> Checked:
    ((tasks, opened),) = connection.execute(_QUERIES[_COUNTS]).fetchall()
    generation = connection.execute(QUERIES["generation"]).fetchall()
    return msgspec.structs.replace(
        found, tasks=tasks, open_tasks=opened, generation=str(generation[0][0]) if generation else ""
    )


def _row_problems(connection: apsw.Connection) -> Iterator[str]:
    for name in _BREACHES:
        for (sentence,) in itertools.islice(connection.execute(_QUERIES[name]), MOST):
            yield str(sentence)
    yield from itertools.islice(_undecodable_specs(connection), MOST)
    yield from itertools.islice(_wrong_outcomes(connection), MOST)


def _undecodable_specs(connection: apsw.Connection) -> Iterator[str]:
    for task_id, revision, body in connection.execute(_QUERIES[_SPECS]):
        try:
            rows.spec_from(body)
        except StoreDamaged as error:
            yield f"revision {revision} of task {task_id} cannot be read: {error.__cause__}"


def _wrong_outcomes(connection: apsw.Connection) -> Iterator[str]:
    for task_id, number, body, stored in connection.execute(_QUERIES[_OUTCOMES]):
        try:
            outcome = rows.outcome_from(body)
        except StoreDamaged as error:
            yield f"the outcome of attempt {number} of task {task_id} cannot be read: {error.__cause__}"
            continue
        if stored < outcome.last_sequence:
            yield (
                f"attempt {number} of task {task_id} has ended with chunk {outcome.last_sequence} of its output, "
                f"and only {stored} are kept"
            )
