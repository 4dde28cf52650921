"""Runs a component until a signal ends it."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from taskyard import tokens
from taskyard.cli.say import say
from taskyard.errors import TaskyardError
from taskyard.settings import Settings

log = structlog.get_logger()

PR_SET_PDEATHSIG = 1

#: What a server makes lives until it was committed or sent, which is longer than 700 objects take to be made, and little of it
#: is in circles: Python's own thresholds have the collector look at the same living objects again and again.
COLLECT_AFTER = (20_000, 20, 20)


def serve_until_signal(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run ``main``, whose event is set by the first SIGTERM or SIGINT; a second one ends the process at once. An error of
    ours that ``main`` ends in is raised without the groups around it."""

    async def body() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_signal(number: int) -> None:
            if stop.is_set():
                os._exit(128 + number)
            log.info("stopping", signal=signal.Signals(number).name)
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
        await main(stop)

    gc.set_threshold(*COLLECT_AFTER)
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        try:
            runner.run(body())
        except BaseExceptionGroup as group:
            raise _first(group) from group


def _new_loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of ours in a group, else the first of all."""
    ours = group.subgroup(TaskyardError)
    first: BaseException = ours or group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


def make_tokens(settings: Settings, host: str) -> None:
    """Make the tokens of the data directory at the first start, and tell people where they are where they will need them."""
    if tokens.load(settings.data_dir) is not None:
        return
    tokens.load_or_make(settings.data_dir)
    path = settings.data_dir / tokens.FILE_NAME
    log.info("tokens_made", path=str(path))
    if settings.needs_token(host):
        say(f"new tokens are in {path}; 'taskyard token show --reveal' prints them")


def executor_token(data_dir: Path) -> str:
    """The token that an executor shows to the manager; empty where there is none."""
    found = tokens.load(data_dir)
    return found.executor[0].value if found and found.executor else ""


def user_token(data_dir: Path) -> str:
    """The token that an API Server shows to the manager; empty where there is none."""
    found = tokens.load(data_dir)
    return found.user[0].value if found and found.user else ""


def die_with(parent: int) -> None:
    """Get SIGTERM when the parent process ends, however it ends (prctl(2), Linux only). A parent that ended before we could
    ask for it shows in our parent's id."""
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        raise SystemExit(0)
