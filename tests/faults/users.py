"""Users who submit, wait, stop and delete while the faults happen, and write down what they were told."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from taskyard import AsyncClient, NotFound, TaskyardError, Unavailable, WaitTimeout
from taskyard.client.logs import Patience, persist
from taskyard.client.records import Task
from taskyard.errors import StorageFull, StoreError
from taskyard.settings import ClientSettings
from tests.faults.ledger import RETRIES, Entry, Final, Job, Ledger
from tests.faults.stage import LEASE, LONG, Stage
from tests.faults.traces import BEAT, SCRIPT

T = TypeVar("T")

SETTLE = 300.0 if LONG else 60.0
"""Seconds within which every task has ended once the faults are over: pauses before the next try are among them."""

#: What tells a user that nothing was acknowledged, and that it is worth another try.
REFUSALS = (Unavailable, StorageFull, StoreError)

#: Kinds of scripts by how often they come.
KINDS = {"plain": 12, "family": 2, "daemon": 2, "deaf": 2, "failing": 1}

#: Seconds that scripts run, shortest and longest, by how often that comes: the last ones outlive a lease.
LENGTHS = {(0.05, 1.5): 7, (LEASE + 2.0, LEASE + 6.0): 1}


class Users:
    """A thread in which ``count`` users work, each on one task at a time."""

    def __init__(self, stage: Stage, traces: Path, *, seed: int, mark: str, count: int) -> None:
        self.ledger = Ledger()
        self._url, self._token, self._enter = stage.url, stage.token, stage.enter
        self._traces, self._seed, self._mark, self._count = traces, seed, mark, count
        self._finals: dict[str, Final] = {}
        self._failure: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="users")
        self._thread.start()

    def end(self) -> None:
        """Let nobody submit any more."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)

    def settle(self) -> dict[str, Final]:
        """How every task stands, by name, once all have ended. Raises as :meth:`check` does."""
        self.end()
        self._thread.join(2 * SETTLE)
        assert not self._thread.is_alive(), "the users did not come to an end"
        self.check()
        return self._finals

    def check(self) -> None:
        """Raises what went wrong in the users' thread."""
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        """End the thread, however far it is."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._main.cancel)
            self._thread.join()

    def _run(self) -> None:
        try:
            self._enter()
            self._main = self._loop.create_task(self._work())
            self._loop.run_until_complete(self._main)
        except (Exception, asyncio.CancelledError) as error:
            self._failure = error
            self.ledger.close()
        finally:
            self._loop.close()

    async def _work(self) -> None:
        settings = ClientSettings(timeout=10.0)
        async with AsyncClient(self._url, token=self._token, settings=settings, patience=10.0) as client:
            self._client = client
            async with asyncio.TaskGroup() as users:
                for number in range(self._count):
                    users.create_task(self._user(number))
            await self._look()

    async def _user(self, number: int) -> None:
        chance = random.Random(f"{self._seed}/{number}")
        turn = 0
        while not self._over.is_set():
            turn += 1
            entry = self.ledger.open(Entry(f"user-{number}-{turn}", pick(chance)))
            await self._submit(entry, chance)
            if not entry.task_id:
                continue
            if entry.job.intent != "keep":
                await self._pause(entry.job.patience)
                await self._put_an_end(entry, chance)
            else:
                await self._see_the_end(entry)

    async def _submit(self, entry: Entry, chance: random.Random) -> None:
        job = entry.job

        async def submit() -> Task:
            self.ledger.attempted += 1
            return await self._client.submit(
                f"job.py {job.kind} {job.seconds} {job.lines}",
                script=SCRIPT,
                name=entry.name,
                idempotency_key=entry.name,
                env={"TRACES": str(self._traces), "BEAT": str(BEAT), "FAULTS_MARK": self._mark},
                grace=0.5,
                retries=RETRIES,
                max_losses=1000,
            )

        # Some give up at the first failure and never learn whether it was stored; the others insist, under the same key.
        insists = chance.random() < 0.7
        task = await (self._insist(submit, chance) if insists else self._once(submit))
        if task is not None:
            entry.task_id = task.id
        else:
            await self._pause(0.2)

    async def _put_an_end(self, entry: Entry, chance: random.Random) -> None:
        if entry.job.intent == "stop":
            entry.stop_asked = True
            with contextlib.suppress(NotFound):  # it is lost: that is seen in the end
                entry.stopped_at = (await self._insist(lambda: self._client.stop(entry.task_id), chance)).attempt
            await self._see_the_end(entry)
            return

        async def delete() -> bool:
            try:
                await self._client.delete(entry.task_id)
            except NotFound:
                # An earlier try was done, though not answered; without one, the task is lost: that is seen in the end.
                return entry.delete_asked
            except TaskyardError:
                entry.delete_asked = True
                raise
            entry.delete_asked = True
            return True

        entry.deleted = await self._insist(delete, chance)

    async def _see_the_end(self, entry: Entry) -> None:
        try:
            task = await self._client.wait(entry.task_id, timeout=8.0)
        except (WaitTimeout, Unavailable, NotFound):
            return  # it waits, or is lost: others go on; how it stands is looked at in the end
        if task.state == "finished":
            self.ledger.saw_finish(task.executor.name if task.executor else "")

    async def _insist(self, call: Callable[[], Awaitable[T]], chance: random.Random) -> T:
        """Until it is answered."""
        async with asyncio.timeout(SETTLE):
            while True:
                try:
                    return await call()
                except REFUSALS as error:
                    self.ledger.refusals[error.code] += 1
                    await asyncio.sleep(chance.uniform(0.05, 0.2))  # how soon a user tries again

    async def _once(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """None where it was refused, or not answered."""
        try:
            return await call()
        except REFUSALS as error:
            self.ledger.refusals[error.code] += 1
            return None

    async def _pause(self, seconds: float) -> None:
        """A user thinks, for so long or until all is over."""
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            return

    async def _look(self) -> None:
        """Find out how every task stands, waiting for its end."""
        few = asyncio.Semaphore(8)
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        async with httpx2.AsyncClient(base_url=f"{self._url}/api/v2/", headers=headers, timeout=30.0) as http:

            async def look(entry: Entry) -> None:
                async with few:
                    self._finals[entry.name] = await self._final(entry, http)

            async with asyncio.timeout(SETTLE + len(self.ledger.entries)), asyncio.TaskGroup() as looks:
                for entry in self.ledger.entries:
                    looks.create_task(look(entry))

    async def _final(self, entry: Entry, http: httpx2.AsyncClient) -> Final:
        """Persistently: on a busy machine a link may break long after the last fault."""
        try:
            task = await self._client.wait(entry.task_id or entry.name, timeout=SETTLE)
        except NotFound:
            return Final(None)
        except WaitTimeout:
            task = await persist(lambda: self._client.get(entry.task_id or entry.name), Patience(SETTLE))

        async def told(what: str) -> tuple[dict[str, Any], ...]:
            answer = await http.get(f"tasks/{task.id}/{what}")
            if answer.status_code == 503:
                raise Unavailable(answer.text)
            answer.raise_for_status()
            return tuple(answer.json()[what])

        attempts, events = [await persist(partial(told, what), Patience(SETTLE)) for what in ("attempts", "events")]
        output = b""
        if task.state == "finished":
            output = await persist(lambda: self._client.output(task.id), Patience(SETTLE))
        return Final(task, attempts, events, output.decode())


def pick(chance: random.Random) -> Job:
    """A job, and what its user does with it."""
    kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
    intent = chance.choices(("keep", "stop", "delete"), (10, 1, 1))[0]
    seconds = chance.uniform(*chance.choices(list(LENGTHS), list(LENGTHS.values()))[0])
    return Job(kind, round(seconds, 2), chance.randrange(40), intent, round(chance.uniform(0.0, 1.5), 2))
