"""The executor as a whole, against a manager made of the real link."""

from __future__ import annotations

from taskyard.protocol.messages import Started
from taskyard.task.model import Stream

from .conftest import Manager, run


async def test_runs_a_script(manager: Manager, executor: object) -> None:
    manager.send(
        run("import sys; print('hello', sys.argv[1]); print('oh', file=sys.stderr)", arguments=("script.py", "6"))
    )
    finished = await manager.finished()
    assert (finished.outcome.exit_code, finished.outcome.reason) == (0, None)
    assert manager.printed() == b"hello 6\n"
    assert manager.printed(Stream.STDERR) == b"oh\n"
    assert isinstance(manager.heard[0], Started)
