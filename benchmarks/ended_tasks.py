"""A store with very many tasks that have ended: written by SQL of its own, since by the manager it would take minutes."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.raw import SCRIPT
from taskyard.store.sqlite.database import Database
from taskyard.store.sqlite.rows import outcome_body, requirement_text, spec_body
from taskyard.store.sqlite.schema import migrate
from taskyard.task.model import FileRef, Outcome, ReturnType, Spec, requirement_of

_SQL = Path(__file__).with_name("ended_tasks.sql")


def fill(store: Path, count: int) -> None:
    """Make such a store where none is."""
    script = SCRIPT.read_bytes()
    file = FileRef(path=SCRIPT.name, size=len(script), sha256="0" * 64, content=script)
    spec = Spec(arguments=(SCRIPT.name, "1"), files=(file,), return_type=ReturnType.TEXT)
    store.parent.mkdir(parents=True)
    database = Database.to_write(store)
    try:
        database.connection.execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
        migrate(database.connection, store)
        values = {
            "count": count,
            "now": time.time(),
            "requirement": requirement_text(requirement_of(spec)),
            "body": spec_body(spec),
            "outcome": outcome_body(Outcome(exit_code=0, started_by="spare", last_sequence=1)),
        }
        database.connection.execute(_SQL.read_text(), values)
    finally:
        database.close()
