"""One `taskyard run`: from the submit to the exit code."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from taskyard.cli import exits
from taskyard.cli.logs import printer
from taskyard.cli.progress import upload_progress
from taskyard.cli.say import say
from taskyard.client.asynchronous import AsyncClient
from taskyard.client.records import Task
from taskyard.client.uploads import TaskOptions
from taskyard.task.model import StateName

#: Seconds without output after which we tell what a waiting task waits for.
EXPLAIN_AFTER = 2.0


class Interrupts:
    """SIGINT and SIGTERM while a task runs. The first is remembered; the second cancels the session."""

    def __init__(self) -> None:
        self.happened = asyncio.Event()
        self.number = 0

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Catch them inside this context."""
        loop, session = asyncio.get_running_loop(), asyncio.current_task()
        assert session is not None

        def on_signal(number: int) -> None:
            if self.happened.is_set():
                session.cancel()
            self.number = number
            self.happened.set()

        signals = (signal.SIGINT, signal.SIGTERM)
        for one in signals:
            loop.add_signal_handler(one, on_signal, one)
        try:
            yield
        finally:
            for one in signals:
                loop.remove_signal_handler(one)


class Session:
    """``json`` prints one line of JSON for each piece of output, and the task last."""

    def __init__(self, client: AsyncClient, *, json: bool) -> None:
        self._client = client
        self._json = json
        self._show = printer(json=json)
        self._interrupts = Interrupts()
        self._uploaded = True

    async def run(self, command: str | Sequence[str], files: Sequence[Path], options: TaskOptions) -> int:
        """The exit code."""
        with self._interrupts.caught():
            interrupted = asyncio.create_task(self._interrupts.happened.wait())
            try:
                return await self._run(command, files, options, interrupted)
            except asyncio.CancelledError:
                return 128 + self._interrupts.number
            finally:
                interrupted.cancel()

    async def _run(
        self,
        command: str | Sequence[str],
        files: Sequence[Path],
        options: TaskOptions,
        interrupted: asyncio.Task[bool],
    ) -> int:
        task = await self._submit(command, files, options, interrupted)
        printing = asyncio.create_task(self._print(task))
        try:
            await self._watch(task, printing, interrupted)
            await printing
        except BrokenPipeError:
            await self._client.stop(task.id)
            raise
        finally:
            printing.cancel()
        ended = await self._client.wait(task.id)
        if self._json:
            from taskyard.cli import show

            show.json_line({"task": ended})
        if interrupted.done():
            return 128 + self._interrupts.number
        if epitaph := exits.epitaph(ended):
            say(epitaph)
        return exits.of_task(ended)

    async def _submit(
        self,
        command: Sequence[str],
        files: Sequence[Path],
        options: TaskOptions,
        interrupted: asyncio.Task[bool],
    ) -> Task:
        with upload_progress() as show:

            def progress(sent: int, total: int) -> None:
                self._uploaded = sent >= total
                show(sent, total)

            submitting = asyncio.create_task(self._client.submit(command, files=files, progress=progress, **options))
            try:
                await asyncio.wait({submitting, interrupted}, return_when=asyncio.FIRST_COMPLETED)
                if interrupted.done() and not self._uploaded:
                    raise asyncio.CancelledError  # nothing was submitted: half a body is refused
                return await submitting  # once all is sent we must know whether there is a task to stop
            finally:
                submitting.cancel()

    async def _watch(self, task: Task, printing: asyncio.Task[None], interrupted: asyncio.Task[bool]) -> None:
        """Return when the output has ended; stop the task where we were interrupted."""
        both = {printing, interrupted}
        done, _ = await asyncio.wait(both, timeout=EXPLAIN_AFTER, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            await self._explain(task)
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not printing.done():
            say(f"stopping {task.name!r}: once more leaves at once")
            await self._client.stop(task.id)

    async def _explain(self, task: Task) -> None:
        """Tell people what a task waits for."""
        if sys.stderr.isatty() and (await self._client.get(task.id)).state is StateName.CREATED:
            say(f"{task.name!r} waits: {(await self._client.why(task.id)).summary}")

    async def _print(self, task: Task) -> None:
        async with contextlib.aclosing(self._client.logs(task.id)) as chunks:
            async for chunk in chunks:
                self._show(chunk)
