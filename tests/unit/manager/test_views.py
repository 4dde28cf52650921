"""Answers that only read: nothing is skipped, nothing waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskyard.errors import InvalidInput, NotFound
from taskyard.manager import views
from taskyard.protocol.messages import Draining, Output, Started
from taskyard.protocol.requests import (
    DeleteTask,
    DrainExecutor,
    GetFile,
    GetTask,
    ListAttempts,
    ListEvents,
    ListExecutors,
    ListTasks,
    OutputPage,
    ReadOutput,
    StopTask,
    WaitTask,
    Why,
    WhyTask,
)
from taskyard.task.model import Chunk, Fence, Limits, Reason, StateName, Stream
from tests.unit.manager.yard import LONG, NOW, Peer, Yard, finished, opened, output

OUT, ERR = Stream.STDOUT, Stream.STDERR


@contextmanager
def quick() -> Iterator[None]:
    """What stands within returns long before any wait is over."""
    loop = asyncio.get_running_loop()
    before = loop.time()
    yield
    assert loop.time() - before < LONG / 2


async def read(yard: Yard, **request: Any) -> OutputPage:
    return await yard.handler.call(ReadOutput(task="hello", **request))


def sequences(page: OutputPage) -> list[int]:
    return [chunk.sequence for chunk in page.chunks]


# --- output: pages ----------------------------------------------------------------------------------------------------


async def follow(yard: Yard, limit: int, stream: Stream | None) -> list[Chunk]:
    """All that there is now, page by page."""
    seen: list[Chunk] = []
    while (page := await read(yard, after=seen[-1].sequence if seen else 0, limit=limit, stream=stream)).chunks:
        assert len(page.chunks) == 1 or sum(len(chunk.data) for chunk in page.chunks) <= limit
        seen += page.chunks
    return seen


@pytest.mark.parametrize("limit", [1, 10, 12, 25, 1000])
@pytest.mark.parametrize("stream", [None, OUT, ERR])
async def test_pages_of_what_is_stored_and_what_is_not(yard: Yard, limit: int, stream: Stream | None) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    chunks = [
        Chunk(sequence=number, stream=ERR if number % 3 == 0 else OUT, data=b"x" * (number % 5 * 3))
        for number in range(1, 31)
    ]
    await peer.says(Output(fence=fence, chunks=tuple(chunks[:17])))
    expected = [chunk for chunk in chunks if stream in (None, chunk.stream)]
    with yard.commits_held():
        await peer.session.received(Output(fence=fence, chunks=tuple(chunks[17:])))
        assert await follow(yard, limit, stream) == expected
    await yard.settled()
    assert await follow(yard, limit, stream) == expected


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    script=st.lists(
        st.tuples(st.sampled_from(["say", "commit", "read"]), st.integers(1, 4), st.sampled_from([OUT, ERR])),
        max_size=25,
    ),
    limit=st.integers(1, 40),
    stream=st.sampled_from([None, OUT, ERR]),
)
def test_who_reads_while_output_comes_misses_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    script: list[tuple[str, int, Stream]],
    limit: int,
    stream: Stream | None,
) -> None:
    async def run(folder: Path) -> None:
        async with opened(folder) as yard:
            peer = await yard.connect()
            fence = await yard.running(peer)
            said: list[Chunk] = []
            seen: list[Chunk] = []
            unanswered: list[Output] = []
            for action, count, of_stream in script:
                if action == "say":  # shown, and stored a little later
                    first = len(said) + 1
                    chunks = [
                        Chunk(sequence=number, stream=of_stream, data=b"x" * (number % 4 * 5))
                        for number in range(first, first + count)
                    ]
                    said += chunks
                    yard.parts.live.publish(fence, chunks)
                    unanswered.append(Output(fence=fence, chunks=tuple(chunks)))
                elif (
                    action == "commit" and unanswered
                ):  # stored; what is live learns of it with the next commit but one
                    message = unanswered.pop(0)
                    stored = await yard.store.append_output(fence, message.chunks)
                    assert isinstance(stored, int)
                    if count > 2:
                        yard.parts.live.committed(fence, stored)
                else:
                    after = seen[-1].sequence if seen else 0
                    seen += (await read(yard, after=after, limit=limit, stream=stream)).chunks
            while page := (await read(yard, after=seen[-1].sequence if seen else 0, limit=limit, stream=stream)).chunks:
                seen += page
            assert seen == [chunk for chunk in said if stream in (None, chunk.stream)]

    asyncio.run(run(tmp_path_factory.mktemp("yard")))


async def test_a_page_of_short_chunks_is_bounded_too(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MOST_CHUNKS", 3)
    peer = await yard.connect()
    fence = await yard.running(peer)
    with yard.commits_held():
        await peer.session.received(output(fence, *range(1, 9), data=b""))
        assert sequences(await read(yard)) == [1, 2, 3]
        assert sequences(await read(yard, after=6)) == [7, 8]


async def test_a_limit_out_of_range_is_brought_into_it(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    await peer.says(output(fence, 1, 2))
    assert sequences(await read(yard, limit=-5)) == [1]
    assert sequences(await read(yard, limit=1 << 60)) == [1, 2]


@pytest.mark.parametrize("request_", [{"attempt": -1}, {"after": -1}], ids=str)
async def test_what_is_counted_from_0_is_not_negative(yard: Yard, request_: dict[str, int]) -> None:
    await yard.submit()
    with pytest.raises(InvalidInput):
        await read(yard, **request_)


async def test_an_attempt_that_never_was(yard: Yard) -> None:
    await yard.submit()
    with pytest.raises(NotFound, match="has had 0 attempts"):
        await read(yard, attempt=1)


async def two_attempts(yard: Yard) -> tuple[Peer, Fence]:
    peer = await yard.connect()
    first = await yard.running(peer, retries=1)
    await peer.says(output(first, 1, data=b"first"), finished(first, exit_code=1, reason=Reason.EXIT, last_sequence=1))
    yard.now += 60
    yard.parts.dispatcher.dispatch()
    await yard.settled()
    second = peer.runs()[-1]
    await peer.says(Started(fence=second, at=1.0), output(second, 1, data=b"second"))
    return peer, second


async def test_each_attempt_has_its_own_output(yard: Yard) -> None:
    await two_attempts(yard)
    page = await read(yard)
    assert (page.attempt, [chunk.data for chunk in page.chunks]) == (2, [b"second"])
    page = await read(yard, attempt=1)
    assert (page.attempt, [chunk.data for chunk in page.chunks]) == (1, [b"first"])
    with quick():
        assert (await read(yard, attempt=1, after=1, wait=LONG)).complete


# --- output: the end, and waiting -------------------------------------------------------------------------------------


async def test_complete_is_said_when_nothing_follows(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    await peer.says(output(fence, 1))
    assert not (await read(yard, after=1)).complete
    await peer.says(finished(fence, last_sequence=1))
    page = await read(yard)
    assert (sequences(page), page.complete) == ([1], False)
    page = await read(yard, after=1)
    assert (sequences(page), page.complete) == ([], True)
    assert (await read(yard, after=99)).complete
    assert (await read(yard, stream=ERR)).complete


async def test_a_task_that_ended_without_an_attempt_has_no_output(yard: Yard) -> None:
    await yard.submit()
    assert await read(yard) == OutputPage(attempt=0, chunks=())
    await yard.handler.call(StopTask(task="hello"))
    with quick():
        assert await read(yard, wait=LONG) == OutputPage(attempt=0, chunks=(), complete=True)


async def test_an_attempt_that_was_given_up_is_complete(yard: Yard) -> None:
    peer = await yard.connect()
    await yard.running(peer)
    peer.leaves()
    await yard.connect()
    assert (await read(yard, attempt=1)).complete


async def test_whoever_waits_is_woken_by_output_before_it_is_stored(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    waiting = yard.start(read(yard, wait=LONG))
    await asyncio.sleep(0.01)
    with yard.commits_held(), quick():
        await peer.session.received(output(fence, 1))
        assert sequences(await waiting) == [1]
    await yard.settled()


async def test_whoever_waits_for_one_stream_goes_on_waiting_while_the_other_comes(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    waiting = yard.start(read(yard, wait=LONG, stream=ERR))
    await asyncio.sleep(0.01)
    await peer.says(output(fence, 1))
    assert not waiting.done()
    with quick():
        await peer.says(output(fence, 2, stream=ERR))
        assert sequences(await waiting) == [2]


async def test_whoever_waits_is_woken_by_the_end(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    waiting = yard.start(read(yard, wait=LONG))
    await asyncio.sleep(0.01)
    with quick():
        await peer.says(finished(fence))
        assert (await waiting).complete


async def test_whoever_waits_for_a_task_that_has_not_begun_sees_its_first_output(yard: Yard) -> None:
    await yard.submit()
    waiting = yard.start(read(yard, wait=LONG))
    await asyncio.sleep(0.01)
    with quick():
        peer = await yard.connect()
        fence = peer.runs()[0]
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await peer.says(Started(fence=fence, at=1.0), output(fence, 1))
        page = await waiting
    assert (page.attempt, sequences(page)) == (1, [1])


async def test_whoever_waits_for_a_task_that_is_deleted_is_told(yard: Yard) -> None:
    await yard.submit()
    waiting = yard.start(read(yard, wait=LONG))
    await asyncio.sleep(0.01)
    await yard.handler.call(DeleteTask(task="hello"))
    with quick(), pytest.raises(NotFound):
        await waiting


async def test_no_wait_is_longer_than_is_allowed(tmp_path: Path) -> None:
    async with opened(tmp_path, max_wait=0.02) as yard:
        await yard.submit()
        with quick():
            assert await read(yard, wait=LONG) == OutputPage(attempt=0, chunks=())
            assert not (await yard.handler.call(WaitTask(task="hello", timeout=LONG))).task.has_ended
            events = await yard.handler.call(ListEvents(task="hello", after_version=1, wait=LONG))
            assert events.events == ()
            peer = await yard.connect()
            await yard.running(peer, "other")
            assert (await yard.handler.call(ReadOutput(task="other", wait=LONG))).chunks == ()


async def test_a_wait_that_is_given_up_leaves_nothing_behind(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    for _ in range(3):
        waiting = yard.start(read(yard, wait=LONG))
        await asyncio.sleep(0.01)
        waiting.cancel()
    await asyncio.sleep(0)
    assert yard.parts.live._attempts[(fence.task_id, 1)].waiters == set()
    await read(yard, wait=0.001)
    assert yard.parts.live._attempts[(fence.task_id, 1)].waiters == set()


# --- tasks ------------------------------------------------------------------------------------------------------------


async def test_a_task_is_shown_without_its_secrets_and_contents(yard: Yard) -> None:
    await yard.submit(secrets={"PASSWORD": "12345"})
    detail = await yard.handler.call(GetTask(task="hello"))
    assert detail.spec.secrets == {"PASSWORD": ""}
    assert detail.spec.files[0].content is None
    assert detail.attempt is None
    await yard.connect()
    detail = await yard.handler.call(GetTask(task=detail.task.id))
    assert detail.attempt is not None
    assert (detail.attempt.number, detail.attempt.executor_name) == (1, "name of e1")


async def test_waiting_for_the_end(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    waiting = yard.start(yard.handler.call(WaitTask(task="hello", timeout=LONG)))
    await asyncio.sleep(0.01)
    with quick():
        await peer.says(finished(fence))
        assert (await waiting).task.state_name is StateName.FINISHED
        assert (await yard.handler.call(WaitTask(task="hello", timeout=LONG))).task.has_ended


async def test_waiting_for_a_change(yard: Yard) -> None:
    task = await yard.submit()
    with quick():
        wait = WaitTask(task="hello", timeout=LONG, until_ended=False, after_version=task.version - 1)
        assert (await yard.handler.call(wait)).task == task
    wait = WaitTask(task="hello", timeout=LONG, until_ended=False, after_version=task.version)
    waiting = yard.start(yard.handler.call(wait))
    await asyncio.sleep(0.01)
    with quick():
        await yard.connect()
        assert (await waiting).task.version > task.version


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan")])
async def test_a_wait_of_no_time_answers_at_once(yard: Yard, timeout: float) -> None:
    await yard.submit()
    with quick():
        assert (await yard.handler.call(WaitTask(task="hello", timeout=timeout))).task.name == "hello"


async def test_history(yard: Yard) -> None:
    await yard.submit()
    waiting = yard.start(yard.handler.call(ListEvents(task="hello", after_version=1, wait=LONG)))
    await asyncio.sleep(0.01)
    with quick():
        await yard.handler.call(StopTask(task="hello"))
        answer = await waiting
    assert [event.event for event in answer.events] == ["stop_requested"]
    assert answer.ended
    answer = await yard.handler.call(ListEvents(task="hello"))
    assert [event.version for event in answer.events] == [1, 2]
    with quick():
        answer = await yard.handler.call(ListEvents(task="hello", after_version=2, wait=LONG))
    assert (answer.events, answer.ended) == ((), True)


async def test_history_of_what_goes_on_has_no_end(yard: Yard) -> None:
    await yard.submit()
    assert not (await yard.handler.call(ListEvents(task="hello"))).ended


async def test_pages_of_tasks_are_bounded(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MOST_TASKS", 2)
    for name in "abc":
        await yard.submit(name)
    for limit, names in ((-1, ["c"]), (1, ["c"]), (50, ["c", "b"])):
        page = await yard.handler.call(ListTasks(limit=limit))
        assert [task.name for task in page.tasks] == names
    page = await yard.handler.call(ListTasks(cursor=page.next_cursor))
    assert [task.name for task in page.tasks] == ["a"]


async def test_an_inline_file_and_the_attempts(yard: Yard) -> None:
    await two_attempts(yard)
    file = await yard.handler.call(GetFile(task="hello"))
    assert (file.path, file.content) == ("hello.py", b"print(1)")
    with pytest.raises(NotFound):
        await yard.handler.call(GetFile(task="hello", path="none.py"))
    attempts = (await yard.handler.call(ListAttempts(task="hello"))).attempts
    assert [attempt.number for attempt in attempts] == [1, 2]


# --- why --------------------------------------------------------------------------------------------------------------


async def why(yard: Yard) -> Why:
    return await yard.handler.call(WhyTask(task="hello"))


async def test_why_where_there_is_no_executor(yard: Yard) -> None:
    await yard.submit("other", priority=1)
    await yard.submit()
    answer = await why(yard)
    assert answer.summary == "no executor is connected: start one with 'taskyard executor -a HOST -p PORT'"
    assert (answer.position, answer.waiting, answer.not_before, answer.executors) == (2, 2, None, ())


async def test_why_where_none_has_what_it_asks_for(yard: Yard) -> None:
    await yard.connect()
    await yard.submit(labels={"gpu": "yes"})
    answer = await why(yard)
    assert answer.summary == "no executor that is connected has what it asks for: see what each lacks"
    assert [one.lacking for one in answer.executors] == [("gpu=yes",)]


async def test_why_where_nobody_can_enforce_a_limit(yard: Yard) -> None:
    await yard.connect("e1", enforces={"memory": "cgroup"})
    await yard.connect("e2", enforces={"disk": "watch"})
    await yard.submit(limits=Limits(memory=1 << 20, cpus=500, processes=10))
    answer = await why(yard)
    assert answer.summary == "no executor that is connected can enforce the limit cpus or processes that it asks for"
    await yard.submit("other", limits=Limits(memory=1 << 20))
    assert (await yard.task("other")).state_name is StateName.SCHEDULED
    views_ = (await yard.handler.call(ListExecutors())).executors
    assert [view.enforces for view in views_] == [{"memory": "cgroup"}, {"disk": "watch"}]


async def test_why_where_all_are_busy_or_draining(yard: Yard) -> None:
    await yard.connect("e1")
    await yard.connect("e2", slots=5)
    await yard.handler.call(DrainExecutor(executor="e2"))
    await yard.submit("other")
    await yard.submit()
    answer = await why(yard)
    assert answer.summary == "every executor that could run it is busy or draining: it runs when one has room"
    assert len(answer.executors) == 2


@pytest.mark.parametrize(
    ("how", "summary"),
    [
        (
            "drained",
            (
                "every executor that could run it is draining: it runs when 'taskyard undrain' lets one take tasks again, "
                "or another connects"
            ),
        ),
        ("leaving", "every executor that could run it is shutting down: it runs when another connects"),
        (
            "cordoned",
            "every executor that could run it is cordoned: it runs when one starts attempts again, or another connects",
        ),
    ],
)
async def test_why_where_none_gets_tasks(yard: Yard, how: str, summary: str) -> None:
    for name in ("e1", "e2"):
        peer = await yard.connect(name)
        match how:
            case "drained":
                await yard.handler.call(DrainExecutor(executor=name))
            case "leaving":
                await peer.says(Draining())
            case _:
                for number in range(3):
                    yard.parts.cordons.failed(peer.executor, f"t{number}", "no python")
    await yard.submit()
    assert (await why(yard)).summary == summary


async def test_why_after_a_restart_of_the_manager(tmp_path: Path) -> None:
    """What those that are away can enforce is not known then."""
    async with opened(tmp_path) as yard:
        for name in ("e1", "e2"):
            (await yard.connect(name, enforces={"memory": "cgroup"})).leaves()
        await yard.submit(limits=Limits(memory=1 << 20))
    async with opened(tmp_path) as yard:
        answer = await why(yard)
        assert answer.summary == (
            "none of the 2 executors that are known is connected: start one, or see why it cannot reach the manager"
        )
        assert {one.explanation for one in answer.executors} == {
            "is not connected: start it, or see why it cannot reach the manager"
        }
        assert [one.lacking for one in answer.executors] == [(), ()]


async def test_why_where_it_waits_for_its_backoff(yard: Yard) -> None:
    peer = await yard.connect()
    await peer.says(finished(await yard.running(peer, retries=1), exit_code=1, reason=Reason.EXIT))
    await yard.submit("next", labels={"gpu": "yes"})
    answer = await why(yard)
    assert answer.summary == "it waits 1 s more before its next attempt"
    assert answer.not_before is not None
    assert answer.not_before > NOW
    assert (answer.position, answer.waiting) == (None, 2), "it is not in line"
    assert (await yard.handler.call(WhyTask(task="next"))).position == 1
    peer.leaves()
    assert (await why(yard)).summary == (
        "it waits 1 s more before its next attempt, and the one executor that is known is not connected: "
        "start one, or see why it cannot reach the manager"
    )
    yard.now += 1000
    answer = await why(yard)
    assert "before its next attempt" not in answer.summary
    assert (answer.not_before, answer.position) == (None, 1)


async def test_why_where_it_is_about_to_run(yard: Yard) -> None:
    await yard.submit()
    with yard.commits_held():
        await yard.admit(slots=2)
        answer = await why(yard)
    assert answer.summary == "it is about to be sent to an executor"
    assert answer.position is None
    await yard.settled()


async def test_why_where_it_does_not_wait(yard: Yard) -> None:
    peer = await yard.connect()
    await yard.submit()
    assert (await why(yard)).summary == ("it has been sent to run on executor 'name of e1' and has not reported yet")
    await peer.says(Started(fence=peer.runs()[0], at=1.0))
    assert (await why(yard)).summary == "it is running on executor 'name of e1'"
    peer.leaves()
    assert (await why(yard)).summary == (
        "it is running on executor 'name of e1', which is not connected: "
        "it goes back to the queue when the lease is over"
    )
    again = await yard.connect(holds=peer.runs())
    await again.says(finished(peer.runs()[0]))
    assert (await why(yard)).summary == "it does not run because it is finished: start it to run it again"


async def test_whoever_asks_is_told_of_a_start_that_waits_for_a_commit(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.store.sqlite.store.PATIENCE", 3600.0)
    peer = await yard.connect()

    async def started(name: str) -> None:
        await yard.submit(name)
        await peer.session.received(Started(fence=peer.runs()[-1], at=NOW))

    await started("got")
    assert (await yard.handler.call(GetTask(task="got"))).task.state_name is StateName.RUNNING
    await peer.says(finished(peer.runs()[-1]))
    await started("awaited")
    assert (await yard.handler.call(WaitTask(task="awaited", timeout=0.0))).task.state_name is StateName.RUNNING
    await peer.says(finished(peer.runs()[-1]))
    await started("told")
    events = (await yard.handler.call(ListEvents(task="told"))).events
    assert [event.state for event in events] == ["created", "scheduled", "running"]
    await peer.says(finished(peer.runs()[-1]))
    await started("listed")
    assert (await yard.handler.call(ListTasks())).tasks[0].state_name is StateName.RUNNING
    await peer.says(finished(peer.runs()[-1]))
    await started("attempted")
    (attempt,) = (await yard.handler.call(ListAttempts(task="attempted"))).attempts
    assert attempt.started_at is not None
    await peer.says(finished(peer.runs()[-1]))
    await started("hello")
    assert (await why(yard)).summary == "it is running on executor 'name of e1'"
    await peer.says(finished(peer.runs()[-1]))


async def test_why_says_how_the_last_attempt_failed(yard: Yard) -> None:
    peer = await yard.connect()
    await yard.submit()
    await peer.says(finished(peer.runs()[0], exit_code=3, reason=Reason.EXIT, message="it ended with exit code 3"))
    assert (await why(yard)).summary == (
        "it does not run because it is failed: it ended with exit code 3; start it to run it again"
    )


async def test_executors_are_listed_with_what_they_run(yard: Yard) -> None:
    peer = await yard.connect("e1", slots=2, name="zulu")
    await yard.connect("e2", name="alpha")
    fence = await yard.running(peer)
    views_ = (await yard.handler.call(ListExecutors())).executors
    assert [view.name for view in views_] == ["alpha", "zulu"]
    (view,) = [view for view in views_ if view.running]
    assert [(holding.fence, holding.name) for holding in view.running] == [(fence, "hello")]
