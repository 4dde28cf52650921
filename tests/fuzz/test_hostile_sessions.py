"""Whatever a hostile executor or API Server says, the manager goes on, and no other executor's attempt changes."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import Any, get_args

import msgspec
import structlog.testing
from hypothesis import given
from hypothesis import strategies as st

from taskyard.errors import InvalidInput, ProtocolError, Unavailable
from taskyard.manager.apis import Write
from taskyard.protocol.messages import ExecutorReport, Finished, Hello, Output, Rejected, Started, Stopped
from taskyard.protocol.requests import AnyRequest, ApiHello, Call, Cancel, Submit
from taskyard.protocol.session import offered
from taskyard.task.model import Fence
from tests.fuzz.message_strategies import structs, values
from tests.unit.manager.yard import LONG, RecordingLink, Yard, finished, opened, output

ABOUT_ATTEMPTS = (Started, Output, Finished, Rejected, Stopped)
DOCUMENTED = (ProtocolError, Unavailable)
MOST = 25
"""Messages of one example."""

REPORTS = st.one_of([structs(kind) for kind in (*ABOUT_ATTEMPTS, *get_args(ExecutorReport))])
WHOSE = st.sampled_from(["own", "own", "other", "before", "after", "elsewhere", "as it is"])


def aimed(message: Any, whose: str, own: Fence, other: Fence) -> Any:
    """The message, about an attempt that there is."""
    if not isinstance(message, ABOUT_ATTEMPTS) or whose == "as it is":
        return message
    fence = {
        "own": own,
        "other": other,
        "before": msgspec.structs.replace(other, attempt=other.attempt - 1),
        "after": msgspec.structs.replace(other, attempt=other.attempt + 1),
        "elsewhere": msgspec.structs.replace(other, generation="another"),
    }[whose]
    return msgspec.structs.replace(message, fence=fence)


class Attacked:
    """A manager with an honest executor, whose attempt runs, and a hostile one."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard

    async def begin(self) -> None:
        self.honest = await self.yard.connect("honest")
        self.fence = await self.yard.running(self.honest, "honest")
        await self.honest.says(output(self.fence, 1))
        self.hostile = await self.yard.connect("hostile")
        self.own = await self.yard.running(self.hostile, "hostile", max_losses=1000, retries=1000)
        self.before = await self.yard.task("honest")
        self.told = len(self.honest.link.sent)

    async def hears(self, message: ExecutorReport) -> None:
        """An error of ours may end the hostile session, nothing else."""
        try:
            await self.hostile.says(message)
        except DOCUMENTED as error:
            self.hostile.link.close(error.code)
        await self.check()

    async def comes_again(self, hello: Hello) -> None:
        if self.hostile.link.closed is None:
            return
        self.hostile.leaves()
        about = msgspec.structs.asdict(msgspec.structs.replace(hello, token=""))
        del about["executor_id"]
        with contextlib.suppress(InvalidInput):  # it says of itself what cannot be
            self.hostile = await self.yard.connect("hostile", **about)
        await self.check()

    async def check(self) -> None:
        assert await self.yard.task("honest") == self.before
        assert len(self.honest.link.sent) == self.told, self.honest.link.sent[self.told :]
        self.yard.check_room()

    async def end(self) -> None:
        """The honest executor has lost nothing."""
        await self.honest.says(output(self.fence, 2), finished(self.fence, last_sequence=2))
        assert (await self.yard.task("honest")).state_name == "finished"
        await self.yard.check_against_store()


def asked(request: AnyRequest) -> AnyRequest:
    """The request, about a task that there is; what changes tasks, about one that is nobody else's."""
    if not hasattr(request, "task"):
        return request
    return msgspec.structs.replace(request, task="hostile" if isinstance(request, Write) else "honest")


def lived_through(*, steps: list[tuple[Any, str]], hellos: list[Hello]) -> None:
    async def live() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with asyncio.timeout(LONG), opened(Path(folder)) as yard:
                attacked = Attacked(yard)
                await attacked.begin()
                for number, (message, whose) in enumerate(steps):
                    await attacked.hears(aimed(message, whose, attacked.own, attacked.fence))
                    await attacked.comes_again(hellos[number % len(hellos)])
                await attacked.end()

    with structlog.testing.capture_logs() as logs:
        asyncio.run(live())
    mistakes = [line for line in logs if line.get("exc_info") or line["event"] in ("report_failed", "call_failed")]
    assert [line for line in mistakes if line.get("code", "internal") == "internal"] == []


@given(
    steps=st.lists(st.tuples(REPORTS, WHOSE), min_size=1, max_size=MOST),
    hellos=st.lists(structs(Hello), min_size=1, max_size=3),
)
def test_no_report_of_a_hostile_executor_changes_what_another_runs(
    steps: list[tuple[Any, str]], hellos: list[Hello]
) -> None:
    lived_through(steps=steps, hellos=hellos)


@given(requests=st.lists(st.tuples(values(AnyRequest), st.integers(0, 3), st.booleans()), min_size=1, max_size=MOST))
def test_no_request_of_a_hostile_api_server_is_a_mistake_of_the_managers(
    requests: list[tuple[Any, int, bool]],
) -> None:
    async def live() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with asyncio.timeout(LONG), opened(Path(folder), max_wait=0.01) as yard:
                attacked = Attacked(yard)
                await attacked.begin()
                link = RecordingLink(0.0)
                _, session = await yard.parts.apis.admit(offered(ApiHello(api_id="hostile")), link)
                for request, number, cancelled in requests:
                    try:
                        await session.received(Call(number=number, request=asked(request)))
                        if cancelled:
                            await session.received(Cancel(number=number))
                    except ProtocolError:
                        continue
                    if isinstance(request, Submit):
                        await yard.settled()
                await yard.settled()
                session.closed()
                assert [answer for answer in link.sent if getattr(answer, "code", "") == "internal"] == []
                await attacked.end()

    with structlog.testing.capture_logs() as logs:
        asyncio.run(live())
    assert [line for line in logs if line["event"] == "call_failed"] == []
