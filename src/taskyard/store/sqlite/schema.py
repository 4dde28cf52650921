"""The file's schema: what is checked when it is opened, and how an older one becomes today's.

``migrations/`` holds numbered scripts. ``PRAGMA user_version`` is the number of the last one that was applied; those that
follow are applied in one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import apsw
import msgspec

from taskyard.errors import SchemaTooNew, StoreDamaged

APPLICATION_ID = 0x7461_736B  # "task", in the file's header


class Migration(msgspec.Struct, frozen=True):
    number: int
    script: str


def _shipped() -> tuple[Migration, ...]:
    scripts = [entry for entry in files(__package__).joinpath("migrations").iterdir() if entry.name.endswith(".sql")]
    return tuple(
        Migration(int(script.name.partition("_")[0]), script.read_text())
        for script in sorted(scripts, key=lambda entry: entry.name)
    )


MIGRATIONS = _shipped()


def known_version(connection: apsw.Connection, path: Path, newest: int = MIGRATIONS[-1].number) -> int:
    """The number of the file's schema, 0 where the file is new. ``StoreDamaged`` where it is the file of another program,
    ``SchemaTooNew``."""
    version = _pragma(connection, "user_version")
    is_new = version == 0 and _pragma(connection, "schema_version") == 0
    if not is_new and _pragma(connection, "application_id") != APPLICATION_ID:
        raise StoreDamaged(f"{path} is a database of another program: give Taskyard another data directory")
    if version > newest:
        raise SchemaTooNew(
            f"{path} was written by a newer Taskyard (schema {version}, this one knows {newest}): install that one"
        )
    return version


def migrate(connection: apsw.Connection, path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the file's schema up to date. ``StoreDamaged`` where it is the file of another program, ``SchemaTooNew``."""
    newest = migrations[-1].number
    version = known_version(connection, path, newest)
    pending = [migration for migration in migrations if migration.number > version]
    if not pending:
        return
    with connection:  # one transaction: all of them or none
        for migration in pending:
            connection.execute(migration.script)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {newest}")


def _pragma(connection: apsw.Connection, name: str) -> int:
    value = connection.pragma(name)
    assert isinstance(value, int)
    return value
