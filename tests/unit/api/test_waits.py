"""Long waits, and what ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message

from taskyard.api.waits import ClientGone, Waits
from taskyard.errors import Unavailable


class Client:
    """What the server hears of a client: nothing, until it is ``gone`` or ``fails``."""

    def __init__(self) -> None:
        self._heard: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    async def receive(self) -> Message:
        return await self._heard

    def gone(self) -> None:
        self._heard.set_result({"type": "http.disconnect"})

    def fails(self) -> None:
        self._heard.set_exception(HTTPException(408))

    @property
    def given_up(self) -> bool:
        return self._heard.cancelled()


class Work:
    """Something that is waited for."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.started = asyncio.Event()

    async def run(self) -> str:
        self.started.set()
        return await self.answer


async def test_what_is_waited_for_comes_first() -> None:
    client, work = Client(), Work()
    waiting = asyncio.create_task(Waits().while_connected(client.receive, work.run()))
    await work.started.wait()
    work.answer.set_result("done")
    assert await waiting == "done"
    await asyncio.sleep(0)  # the watcher is told in the turn after
    assert client.given_up


@pytest.mark.parametrize(("end", "error"), [(Client.gone, ClientGone), (Client.fails, HTTPException)])
async def test_a_client_that_goes_away_or_fails_ends_the_wait(
    end: Callable[[Client], None], error: type[Exception]
) -> None:
    client, work = Client(), Work()
    waiting = asyncio.create_task(Waits().while_connected(client.receive, work.run()))
    await work.started.wait()
    end(client)
    with pytest.raises(error):
        await waiting
    assert work.answer.cancelled()


async def test_a_connection_that_fails_in_the_same_turn_does_no_harm() -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    client, work = Client(), Work()
    waiting = asyncio.create_task(Waits().while_connected(client.receive, work.run()))
    await work.started.wait()
    client.fails()
    work.answer.set_result("done")
    assert await waiting == "done"
    await asyncio.sleep(0)
    assert told == []


@pytest.mark.parametrize("connected", [True, False])
async def test_the_end_of_the_server_ends_the_wait(connected: bool) -> None:
    waits, work = Waits(), Work()
    call = work.run()
    coroutine = waits.while_connected(Client().receive, call) if connected else waits.while_serving(call)
    waiting = asyncio.create_task(coroutine)
    await work.started.wait()
    waits.end()
    with pytest.raises(Unavailable, match="being ended"):
        await waiting
    assert work.answer.cancelled()


async def test_a_wait_after_the_end_is_over_at_once() -> None:
    waits = Waits()
    waits.end()
    with pytest.raises(Unavailable, match="being ended"):
        await waits.while_serving(Work().run())
    with pytest.raises(Unavailable, match="being ended"):
        await waits.while_connected(Client().receive, Work().run())


async def test_a_timeout_of_what_is_waited_for_is_its_own() -> None:
    work = Work()
    work.answer.set_exception(TimeoutError("its own"))
    with pytest.raises(TimeoutError, match="its own"):
        await Waits().while_serving(work.run())


async def test_whoever_cancels_the_wait_ends_it() -> None:
    client, work = Client(), Work()
    waiting = asyncio.create_task(Waits().while_connected(client.receive, work.run()))
    await work.started.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert work.answer.cancelled()
    await asyncio.sleep(0)
    assert client.given_up
