"""Return values, as they are found in the store."""

from __future__ import annotations

import msgspec
import pytest

from taskyard.api.results import as_json, read_all
from taskyard.api.streams import accepts, wants_stream
from taskyard.errors import TaskyardError
from taskyard.protocol.requests import TaskDetail
from taskyard.task.model import Spec, Stream, Task
from tests.unit.api.scripted import ScriptedManager


@pytest.mark.parametrize(
    ("printed", "value"), [(b' {"a": 1.50} \n', b'{"a": 1.50}'), (b"1e999", b"1e999"), (b'"\\ud800x"', b'"?x"')]
)
def test_json_stays_as_it_is(printed: bytes, value: bytes) -> None:
    assert msgspec.json.encode(as_json(printed)).strip() == value


@pytest.mark.parametrize("printed", [b"", b"{", b"NaN", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_an_error_of_ours(printed: bytes) -> None:
    with pytest.raises(TaskyardError, match="executor found"):
        as_json(printed)


async def test_a_task_without_attempt_has_printed_nothing(manager: ScriptedManager) -> None:
    detail = TaskDetail(task=Task(id="t", name="t"), spec=Spec(arguments=("-V",)))
    assert await read_all(manager, detail, Stream.STDOUT) == b""


def test_without_accept_everything_is_taken() -> None:
    assert accepts(None, "text/plain")
    assert not wants_stream(None)
