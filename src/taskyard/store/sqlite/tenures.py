"""Which manager has the store: what it leaves for the one that comes after it."""

from __future__ import annotations

import msgspec

from taskyard.store.base import Tenure
from taskyard.store.sqlite.database import Database

#: Seconds by which the wall clock may differ from what it would say, had nobody set it: it is kept in step all the time.
STEP = 1.0


def take_over(database: Database, tenure: Tenure) -> Tenure | None:
    """See :meth:`taskyard.store.base.Store.take_over`."""
    row = database.one("tenure")
    before = None if row is None else msgspec.json.decode(row[0], type=Tenure)
    if before is not None and before.boot_id and before.boot_id == tenure.boot_id:
        step = tenure.clock_offset - before.clock_offset
        if abs(step) > STEP:
            database.run("shift_times", step=step)
            database.run("shift_keys", step=step)
            database.forget_all()
    database.run("note_tenure", value=msgspec.json.encode(tenure).decode())
    return before
