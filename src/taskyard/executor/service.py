"""The Executor Node: builds the parts and runs them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import structlog

from taskyard.executor import identity, interpreters, measure, pip, uv
from taskyard.executor.announcing import Announcer
from taskyard.executor.artifacts import ArtifactUploader
from taskyard.executor.building import Builder, Tool
from taskyard.executor.confinement import Confinement, decide, earlier_folders
from taskyard.executor.delivery import Deliveries
from taskyard.executor.downloader import Downloader
from taskyard.executor.environments import Environments, shelf_of
from taskyard.executor.execution import Tools
from taskyard.executor.identity import Identity
from taskyard.executor.interpreters import Interpreter
from taskyard.executor.leftovers import bury
from taskyard.executor.performer import Performer, Session
from taskyard.executor.pip import Pip
from taskyard.executor.removal import remove_tree
from taskyard.executor.repository import Repositories
from taskyard.executor.runner import Runner
from taskyard.executor.spool import Spool
from taskyard.executor.tending import kill_all
from taskyard.executor.uv import Uv
from taskyard.executor.warm import Warmth, open_runner
from taskyard.executor.workspace import OUTPUT_VARIABLE, inherited
from taskyard.link.base import Link
from taskyard.link.dial import keep_dialling
from taskyard.protocol.codec import executor_codec
from taskyard.protocol.messages import ExecutorMessage, Hello, Welcome
from taskyard.settings import MIB, ExecutorSettings

#: Largest frame that the manager may send, in bytes: a ``Run`` with the files that travel inside it.
MAX_FRAME = 64 * MIB

#: Folders of ended attempts that are removed at the same time.
REMOVALS_AT_ONCE = 2
#: Seconds in which what escaped from attempts must have died when the executor ends.
CLEAR_TIMEOUT = 10.0

#: The home of interpreters that bear attempts of several users: with packages of none of them.
NO_HOME = "/nonexistent"
log = structlog.get_logger()


async def run(settings: ExecutorSettings, token: str, stop: asyncio.Event) -> None:
    """Run an executor until ``stop`` is set; then end every attempt in order. ``Conflict`` where another executor has its
    name, ``InvalidInput`` where its settings cannot be."""
    python = interpreters.interpreter_of(settings)
    with identity.take(settings.data_dir, settings.name) as me, decide(settings, python, me) as confinement:
        await clear(confinement, earlier_folders(settings, me))
        # Before there is a keeper: it kills what the slots' users run.
        found = await interpreters.find(python, confinement.users[0].id if confinement.users else None)
        repositories = Repositories(token, settings.download_timeout, settings.manager.host)
        removals = ThreadPoolExecutor(REMOVALS_AT_ONCE, "removal")
        try:
            environment = inherited(os.environ, own_user=bool(confinement.users))
            if confinement.users:
                environment["HOME"] = NO_HOME
            warmth = Warmth(settings.most_spares, settings.preloaded, environment)
            async with open_runner(python, confinement, settings.slots, warmth) as runner:
                environments = await open_environments(settings, confinement, runner, found)
                tools = Tools(
                    environments=environments,
                    runner=runner,
                    downloader=Downloader(me.folder / "cache", settings.max_cache, repositories),
                    uploader=ArtifactUploader(repositories, settings.max_artifacts, settings.max_artifact_bytes),
                    removals=removals,
                )
                await _serve(settings, token, me, confinement.attempts, tools, stop)
        finally:
            removals.shutdown(wait=False, cancel_futures=True)
            await clear_last(confinement)
            await repositories.close()


async def open_environments(
    settings: ExecutorSettings, confinement: Confinement, runner: Runner, found: tuple[Interpreter, ...]
) -> Environments:
    """Those of the data directory."""
    shelf = shelf_of(settings, confinement)
    tool: Tool
    if (program := await asyncio.to_thread(uv.find)) is not None:
        tool = Uv(program)
    else:
        tool = Pip()
        found = await pip.able(found)
        log.warning("uv_does_not_run", instead="pip" if found else "nothing")
    builder = Builder(runner, tool, confinement.attempts, shelf.folder, settings.build_timeout) if found else None
    environments = Environments(shelf, builder, found)
    await environments.tidy()
    log.info("interpreters", versions=environments.versions)
    return environments


async def clear_last(confinement: Confinement) -> None:
    """Clear at the end: a process that the kernel cannot end holds nothing up."""
    try:
        async with asyncio.timeout(CLEAR_TIMEOUT):
            await clear(confinement, [confinement.attempts])
    except TimeoutError:
        log.error("processes_left", timeout=CLEAR_TIMEOUT)


async def clear(confinement: Confinement, folders: Sequence[Path]) -> None:
    """Prove that no process of any attempt is left, and remove their files."""
    await kill_all(confinement.cells())
    for attempts in folders:
        await bury(OUTPUT_VARIABLE, attempts)
        for attempt in list(attempts.iterdir()) if attempts.exists() else ():
            await asyncio.to_thread(remove_tree, attempt)


async def _serve(
    settings: ExecutorSettings, token: str, me: Identity, attempts: Path, tools: Tools, stop: asyncio.Event
) -> None:
    capacity = measure.capacity(settings)
    software = f"taskyard {version('taskyard')}, Python {platform.python_version()}, {platform.system()}"

    announcer = Announcer(tools.environments)
    await announcer.look()

    def hello() -> Hello:
        return Hello(
            token=token,
            executor_id=me.executor_id,
            boot_id=me.boot_id,
            name=me.name,
            software=software,
            labels=settings.labels,
            capacity=capacity,
            confinement=tools.runner.confinement,
            enforces={**tools.runner.enforces, "disk": "watched"},
            holds=performer.holds,
            finished=performer.finished,
            pythons=tools.environments.versions,
            environments=announcer.introduce(),
        )

    def opened(link: Link[ExecutorMessage], welcome: Welcome) -> Session:
        log.info(
            "connected",
            manager=str(settings.manager),
            executor_id=me.executor_id,
            name=me.name,
            slots=settings.slots,
        )
        announcer.opened(link, welcome.version)
        return performer.open(link, welcome)

    with contextlib.closing(Deliveries()) as deliveries:
        async with asyncio.TaskGroup() as tasks:
            performer = Performer(settings, capacity, attempts, Spool(me.folder), deliveries, tools, tasks)
            dialling = keep_dialling(
                settings.manager,
                executor_codec(MAX_FRAME),
                hello,
                opened,
                measure.usage,
                longest_pause=settings.reconnect_longest,
            )
            background = [tasks.create_task(work) for work in (dialling, performer.watch(), announcer.run())]
            await stop.wait()
            log.info("draining", attempts=len(performer.holds))
            await performer.end()
            for one in background:
                one.cancel()
