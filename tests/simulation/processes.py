"""The processes of a world, made of the real parts: the manager, the executors, and the API Server with its users."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from taskyard.executor import service
from taskyard.executor.artifacts import ArtifactUploader
from taskyard.executor.downloader import Downloader
from taskyard.executor.environments import Environments
from taskyard.executor.execution import Tools
from taskyard.executor.identity import Identity
from taskyard.executor.removal import remove_tree
from taskyard.executor.shelf import Shelf
from taskyard.link.clock import SteadyWall, now
from taskyard.link.serve import serve
from taskyard.manager.clearing import keep_clear
from taskyard.manager.parts import Parts
from taskyard.protocol.codec import manager_api_codec, manager_executor_codec
from taskyard.settings import MANAGER_API_PORT, MANAGER_EXECUTOR_PORT, ExecutorSettings, ManagerSettings
from taskyard.tokens import TokenGate
from tests.simulation.loop import Process
from tests.simulation.scripts import Keeper, SimulatedRunner
from tests.simulation.store import SimulatedStore

if TYPE_CHECKING:
    from tests.simulation.world import World

MANAGER = ManagerSettings(data_dir=Path("/nowhere"))


async def manage(world: World) -> None:
    """The Service Manager, as :mod:`taskyard.manager.service` puts it together, until it is killed."""
    store = SimulatedStore(world.disk, world.loop)
    async with asyncio.TaskGroup() as keepers, asyncio.TaskGroup() as tasks:
        wall = SteadyWall(world.wall, now)
        settings = MANAGER.model_copy(update={"prefetch": world.prefetch})
        parts = Parts(settings, TokenGate(MANAGER.data_dir), store, tasks, wall=wall, boottime=now, boot_id="boot")
        keepers.create_task(keep_clear(store, parts.fleet, MANAGER, parts.wall))
        await parts.recover()
        limits: dict[str, Any] = {
            "handshake_timeout": MANAGER.handshake_timeout,
            "max_connections": MANAGER.max_executors,
            "intervals": parts.nodes.intervals,
        }
        executors = manager_executor_codec(MANAGER.max_executor_frame)
        apis = manager_api_codec(MANAGER.max_api_frame)
        async with (
            serve(MANAGER.host, MANAGER_EXECUTOR_PORT, executors, parts.nodes.admit, **limits),
            serve(MANAGER.host, MANAGER_API_PORT, apis, parts.apis.admit, **limits),
        ):
            world.parts = parts
            parts.dispatcher.dispatch()
            await asyncio.get_running_loop().create_future()


class Machine:
    """A host with an executor, whose process comes and goes; ``folder`` is its disk."""

    def __init__(self, world: World, number: int, slots: int, folder: Path) -> None:
        self._world = world
        self.name = f"e{number}"
        self.executor_id = f"executor-{number}"
        self.folder = folder
        folder.mkdir()
        self.slots = slots
        self.boots = 0
        self.process: Process | None = None
        self.keeper: Keeper | None = None
        self.stop: asyncio.Event | None = None
        self.performer: Any = None
        self.is_on = True
        self.is_lost = False
        self.settings = ExecutorSettings(
            data_dir=folder,
            manager_port=MANAGER_EXECUTOR_PORT,
            name=self.name,
            slots=slots,
            cpus=float(slots),
            memory=1 << 30,
            python="python",
        )

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.alive

    def boot(self) -> None:
        """Start the executor, unless it is there or the machine is off."""
        if self.is_up or not self.is_on:
            return
        world = self._world
        self.boots += 1
        self.process = world.new_process(self.name, self.name)
        world.machine_of[self.process] = self
        self.performer = None
        self.keeper = Keeper(world.loop, world.rng, world.scripts, self.process)
        with world.loop.acting_as(self.process):
            self.stop = asyncio.Event()
            runner = SimulatedRunner(world.loop, world.rng, world.scripts, self.executor_id, self.keeper)
            world.start(self.process, self._execute(runner, self.stop))

    async def _execute(self, runner: SimulatedRunner, stop: asyncio.Event) -> None:
        """As :func:`taskyard.executor.service.run` does, without its locks."""
        me = Identity(self.folder, self.name, self.executor_id, f"boot-{self.boots}")
        attempts = self.folder / "attempts"
        attempts.mkdir(exist_ok=True)
        await self._clear(runner, attempts)
        tools = Tools(
            runner=runner,
            downloader=cast("Downloader", None),  # every file travels inside its message
            uploader=ArtifactUploader(cast("Any", None), 10, 1 << 20),  # no script leaves any
            environments=Environments(Shelf(self.folder / "environments", 0), None, ()),  # nor needs any
        )
        try:
            await service._serve(self.settings, "", me, attempts, tools, stop)
        finally:
            await self._clear(runner, attempts)

    async def _clear(self, runner: SimulatedRunner, attempts: Path) -> None:
        """Prove that no process of any attempt is left, and remove their files."""
        await runner.bury()
        for attempt in sorted(attempts.iterdir()):
            await asyncio.to_thread(remove_tree, attempt)

    def lose_power(self) -> None:
        """Everything on it is gone at once, and of what was not synced some is lost."""
        world = self._world
        self.is_on = False
        world.network.switch_off(self.name)
        if self.keeper is not None:
            self.keeper.process.kill()
        if self.process is not None:
            self.process.kill()
        world.damaged.update(script for script in world.scripts.all if script.process.host == self.name)
        for saved in [key for key, machine in world.saved.items() if machine is self]:
            del world.saved[saved]
        world.scripts.vanish(self.name)
        spool = self.folder / "spool"
        for attempt in sorted(spool.iterdir()) if spool.exists() else ():
            self._damage(attempt)

    def _damage(self, attempt: Path) -> None:
        rng = self._world.rng
        for path in sorted(attempt.iterdir()):
            match rng.randrange(4):
                case 0:
                    path.unlink()
                case 1:
                    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size + 1)])
        if rng.random() < 0.1:
            shutil.rmtree(attempt)
