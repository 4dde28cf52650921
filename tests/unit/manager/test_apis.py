"""The sessions of API Servers: many calls at once, each answered by its number."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from taskyard import tokens
from taskyard.errors import ProtocolError, Unauthorized
from taskyard.protocol.calls import read_answer
from taskyard.protocol.messages import NEWEST_VERSION, Heartbeat, RepositoryAddress, Run
from taskyard.protocol.requests import (
    Answer,
    AnyRequest,
    ApiHello,
    ApiWelcome,
    Call,
    Cancel,
    Failure,
    ListNames,
    Ping,
    Pong,
    ReadOutput,
    StopTask,
    Submit,
    TaskNames,
    UpdateTask,
    WaitTask,
)
from taskyard.protocol.session import offered
from taskyard.task.model import SpecChange
from tests.unit.manager.yard import LONG, SCRIPT, RecordingLink, Yard, opened, output, submission


class Api:
    """An API Server's session as the manager has it."""

    def __init__(self, yard: Yard, link: RecordingLink, session: Any) -> None:
        self.yard = yard
        self.link = link
        self.session = session
        self.number = 0

    async def calls(self, request: AnyRequest) -> Any:
        """Begin a call; its number."""
        self.number += 1
        await self.session.received(Call(number=self.number, request=request))
        return self.number

    def answer(self, number: int) -> Answer | Failure:
        (found,) = [one for one in self.link.sent if one.number == number]
        assert isinstance(found, Answer | Failure)
        return found


async def connect(yard: Yard, host: str = "127.0.0.1", **hello: Any) -> Api:
    link = RecordingLink(0.0, host)
    welcome, session = await yard.parts.apis.admit(offered(ApiHello(**{"api_id": "a"} | hello)), link)
    assert welcome == ApiWelcome(version=NEWEST_VERSION, generation=yard.store.generation)
    return Api(yard, link, session)


# --- who is let in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"host": "0.0.0.0"}, {"require_token": True}], ids=str)
async def test_a_token_is_needed(tmp_path: Path, settings: dict[str, object]) -> None:
    made = tokens.load_or_make(tmp_path)
    async with opened(tmp_path, **settings) as yard:
        for token in ("", "wrong", made.executor[0].value):
            with pytest.raises(Unauthorized, match="users' token"):
                await connect(yard, token=token)
        await connect(yard, token=made.user[0].value)


async def test_on_loopback_none_is_needed_but_a_wrong_one_is_refused(yard: Yard) -> None:
    await connect(yard)
    with pytest.raises(Unauthorized):
        await connect(yard, token="wrong")


@pytest.mark.parametrize(
    ("said", "host", "told"),
    [(None, "127.0.0.1", None), (None, "10.0.0.7", "10.0.0.7"), ("files.example", "10.0.0.7", "files.example")],
)
async def test_executors_are_told_where_the_files_are(
    yard: Yard, said: str | None, host: str, told: str | None
) -> None:
    await connect(yard, host, repository=RepositoryAddress(repository_id="r", port=5001, host=said))
    peer = await yard.connect()
    await yard.submit()
    assert [address.host for address in peer.told(Run)[0].repositories] == [told]


# --- calls ------------------------------------------------------------------------------------------------------------


async def test_a_call_is_answered_by_its_number(yard: Yard) -> None:
    api = await connect(yard)
    first, second = await api.calls(Ping()), await api.calls(ListNames())
    await yard.settled()
    answer = api.answer(first)
    assert isinstance(answer, Answer)
    assert read_answer(Ping(), answer) == Pong(generation=yard.store.generation)
    answer = api.answer(second)
    assert isinstance(answer, Answer)
    assert read_answer(ListNames(), answer) == TaskNames(names=())


async def test_a_call_that_fails_says_why(yard: Yard) -> None:
    api = await connect(yard)
    number = await api.calls(StopTask(task="none"))
    await yard.settled()
    assert api.answer(number) == Failure(number=number, code="not_found", message="there is no task 'none'")


async def test_a_mistake_of_ours_fails_the_call_only(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    api = await connect(yard)

    async def broken(_request: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(yard.handler, "answer", broken)
        number = await api.calls(Ping())
        await yard.settled()
    failure = api.answer(number)
    assert isinstance(failure, Failure)
    assert failure.code == "internal"
    assert api.link.closed is None


async def test_an_answer_that_no_frame_takes_fails_the_call_only(yard: Yard) -> None:
    api = await connect(yard)
    api.link.refuses = Answer
    number = await api.calls(ListNames())
    await yard.settled()
    failure = api.answer(number)
    assert isinstance(failure, Failure)
    assert failure.code == "too_large"


async def test_a_call_that_waits_holds_up_no_other(yard: Yard) -> None:
    await yard.submit()
    api = await connect(yard)
    waiting = await api.calls(WaitTask(task="hello", timeout=LONG))
    number = await api.calls(Ping())
    await asyncio.wait_for(api.link.used.wait(), 5)
    assert [message.number for message in api.link.sent] == [number]
    await api.calls(StopTask(task="hello"))
    await yard.settled()
    assert isinstance(api.answer(waiting), Answer)


async def test_a_call_that_is_cancelled_is_not_answered(yard: Yard) -> None:
    await yard.submit()
    api = await connect(yard)
    number = await api.calls(WaitTask(task="hello", timeout=LONG))
    await api.session.received(Cancel(number=number))
    await api.session.received(Cancel(number=99))
    await api.session.received(Heartbeat(number=1))
    async with asyncio.timeout(5):
        await yard.settled()
    assert api.link.sent == []


async def test_a_number_is_used_once_at_a_time(yard: Yard) -> None:
    await yard.submit()
    api = await connect(yard)
    number = await api.calls(WaitTask(task="hello", timeout=LONG))
    with pytest.raises(ProtocolError, match="under way"):
        await api.session.received(Call(number=number, request=Ping()))
    await api.session.received(Cancel(number=number))
    await yard.settled()
    await api.session.received(Call(number=number, request=Ping()))
    await yard.settled()
    assert isinstance(api.answer(number), Answer)


async def test_there_may_be_too_many_calls(tmp_path: Path) -> None:
    async with opened(tmp_path, max_api_calls=1) as yard:
        await yard.submit()
        api = await connect(yard)
        await api.calls(WaitTask(task="hello", timeout=LONG))
        number = await api.calls(Ping())
        failure = api.answer(number)
        assert isinstance(failure, Failure)
        assert failure.code == "unavailable"
        api.session.closed()
        await yard.settled()


async def test_when_a_session_ends_its_calls_end_but_what_was_written_is_followed(yard: Yard) -> None:
    await yard.submit("hello")
    api = await connect(yard)
    await api.calls(WaitTask(task="hello", timeout=LONG))
    with yard.commits_held():
        await api.calls(Submit(items=(submission("late"),)))
        await asyncio.sleep(0.01)
        api.session.closed()
    async with asyncio.timeout(5):
        await yard.settled()
    await yard.check_against_store()
    assert await yard.store.names() == ("hello", "late")


# --- a peer that does not read ----------------------------------------------------------------------------------------


async def test_what_was_read_is_not_kept_for_a_peer_that_does_not_read(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read again, one call after the other, when the peer reads."""
    executor = await yard.connect()
    fence = await yard.running(executor)
    await executor.says(output(fence, 1))
    api = await connect(yard)
    asked: asyncio.Queue[AnyRequest] = asyncio.Queue()
    answer = yard.handler.answer

    async def recorded(request: AnyRequest) -> Any:
        asked.put_nowait(request)
        return await answer(request)

    monkeypatch.setattr(yard.handler, "answer", recorded)
    api.link.low.clear()
    reads: list[AnyRequest] = [ReadOutput(task="hello", wait=LONG), ListNames(), WaitTask(task="hello", timeout=0.0)]
    numbers = [await api.calls(request) for request in reads]
    reached = await api.calls(Ping())
    assert {type(await asked.get()) for _ in range(4)} == {*map(type, reads), Ping}
    assert api.link.sent == []
    api.link.low.set()
    await yard.settled()
    assert {one.number for one in api.link.sent} == {*numbers, reached}
    again = [asked.get_nowait() for _ in range(asked.qsize())]
    assert ReadOutput(task="hello", wait=0.0) in again, "it does not wait with all others behind it"


async def test_a_write_is_answered_once_even_to_a_peer_that_does_not_read(yard: Yard) -> None:
    api = await connect(yard)
    api.link.low.clear()
    number = await api.calls(Submit(items=(submission(),)))
    await yard.settled()
    assert isinstance(api.answer(number), Answer)
    assert len(await yard.store.names()) == 1


async def test_no_more_is_read_of_a_peer_while_its_writes_hold_too_much(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.manager.apis.MOST_WRITE_BYTES", 2 * len(SCRIPT.content or b""))
    api = await connect(yard)
    with yard.commits_held():
        await api.calls(Submit(items=(submission("a"),)))
        await api.calls(Submit(items=(submission("b"),)))
        await api.calls(Ping())
        third = yard.start(api.calls(UpdateTask(task="a", change=SpecChange(files=(SCRIPT,)))))
        await asyncio.wait_for(api.link.used.wait(), LONG)
        assert not third.done()
    await third
    await yard.settled()
    assert len(api.link.sent) == 4


async def test_a_write_that_was_cancelled_keeps_its_place_until_it_is_done(tmp_path: Path) -> None:
    """Else a peer could queue writes without a bound."""
    async with opened(tmp_path, max_api_calls=2) as yard:
        api = await connect(yard)
        with yard.commits_held():
            numbers = [await api.calls(Submit(items=(submission(name),))) for name in ("a", "b")]
            for number in numbers:
                await api.session.received(Cancel(number=number))
            refused = api.answer(await api.calls(Submit(items=(submission("c"),))))
            assert isinstance(refused, Failure)
            assert refused.code == "unavailable"
        await yard.settled()
        assert sorted(await yard.store.names()) == ["a", "b"]
