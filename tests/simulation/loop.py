"""One event loop for a whole world: virtual time, seeded order, and processes that can be frozen and killed.

Every callback belongs to the process that scheduled it. Within a process the order is asyncio's own, first in, first out,
since asyncio's users rely on it; between processes it is drawn. Time passes only when no process has anything to do.
"""

from __future__ import annotations

import asyncio
import heapq
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context, copy_context
from random import Random
from typing import Any

#: Callbacks of one run, at most: a world that never comes to rest is a bug too.
MOST_STEPS = 2_000_000


class Violation(AssertionError):
    """Something happened that must never happen."""


class Handle:
    """What ``call_soon`` and ``call_at`` give."""

    __slots__ = ("_args", "_callback", "_context", "_when", "process")

    def __init__(
        self, when: float, callback: Callable[..., Any], args: tuple[Any, ...], context: Context, process: Process
    ) -> None:
        self._when = when
        self._callback: Callable[..., Any] | None = callback
        self._args = args
        self._context = context
        self.process = process

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        self._callback, self._args = None, ()

    def cancelled(self) -> bool:
        return self._callback is None

    def run(self) -> None:
        if self._callback is not None:
            self._context.run(self._callback, *self._args)


class Process:
    """What is killed and frozen as one. ``deaths`` are called when it dies, by the world and not by the process."""

    def __init__(self, loop: VirtualLoop, name: str, host: str) -> None:
        self.name = name
        self.host = host
        self.alive = True
        self.frozen = False
        self.ready: deque[Handle] = deque()
        self.tasks: weakref.WeakSet[Any] = weakref.WeakSet()
        self.left: list[Any] = []
        self.deaths: list[Callable[[], object]] = []
        self.doomed_in: int | None = None  # callbacks until it is killed
        self._loop = loop

    def start(self, main: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        with self._loop.acting_as(self):
            return self._loop.create_task(main)

    def kill(self) -> None:
        """Nothing of it runs any more, no ``finally`` either: what is suspended is kept as it is until the world ends."""
        if not self.alive:
            return
        self.alive = False
        self.frozen = False
        self.left = [task for task in self.tasks if not task.done()]
        self.ready.clear()
        self._loop.runnable.pop(self, None)
        for told in self.deaths:
            told()

    def freeze(self) -> None:
        self.frozen = True
        self._loop.runnable.pop(self, None)

    def thaw(self) -> None:
        self.frozen = False
        if self.alive and self.ready:
            self._loop.runnable[self] = None


# Typing it as a loop would ask for all the methods that a loop without sockets has no use for.
_Base: Any = asyncio.AbstractEventLoop


class _Future(asyncio.Future[Any]):
    """Hashes by its number, so that sets of futures have the same order in every run."""

    def __init__(self, number: int, loop: VirtualLoop) -> None:
        super().__init__(loop=loop)
        self.number = number

    def __hash__(self) -> int:
        return self.number


class _Task(asyncio.Task[Any]):
    def __init__(self, number: int, coroutine: Coroutine[Any, Any, Any], loop: VirtualLoop, **kwargs: Any) -> None:
        self.number = number
        super().__init__(coroutine, loop=loop, **kwargs)

    def __hash__(self) -> int:
        return self.number


class _Acting:
    def __init__(self, loop: VirtualLoop, process: Process) -> None:
        self._loop = loop
        self._process = process

    def __enter__(self) -> None:
        self._before, self._loop.current = self._loop.current, self._process

    def __exit__(self, *_: object) -> None:
        self._loop.current = self._before


class VirtualLoop(_Base):  # type: ignore[misc]  # as much of a loop as is used here
    """``failed`` is told of what asyncio would only log. ``after`` is called after each callback of a process."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._now = 1000.0
        self._heap: list[tuple[float, int, Handle]] = []
        self._numbers = 0
        self.steps = 0
        self.runnable: dict[Process, None] = {}
        self.root = Process(self, "world", "world")
        self.current = self.root
        self.readers: dict[int, Handle] = {}
        self.readable: Callable[[int], bool] = lambda descriptor: False
        self.failed: Callable[[dict[str, Any]], None] = lambda context: None
        self.after: Callable[[Process], None] = lambda process: None
        self.closed = False

    def acting_as(self, process: Process) -> _Acting:
        """What is scheduled in this block belongs to that process."""
        return _Acting(self, process)

    # --- running ----------------------------------------------------------------------------------------------------------

    def run_while(self, condition: Callable[[], bool], until: float) -> None:
        """Run until a condition fails, nothing is left, or that time has come."""
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            while condition() and self._step(until):
                pass
        finally:
            asyncio._set_running_loop(before)

    def _step(self, until: float) -> bool:
        if not self.runnable and not self._pass_time(until):
            return False
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise Violation(f"no rest after {MOST_STEPS} callbacks")
        if len(self.runnable) == 1:
            process = next(iter(self.runnable))
        else:
            process = self._rng.choice(list(self.runnable))
        handle = process.ready.popleft()
        if not process.ready:
            del self.runnable[process]
        self.current = process
        handle.run()
        self.current = self.root
        if process.doomed_in is not None:
            process.doomed_in -= 1
            if process.doomed_in <= 0:
                process.kill()
        self.after(process)
        return True

    def _pass_time(self, until: float) -> bool:
        while self._heap:
            when, _, handle = self._heap[0]
            if when > until:
                break
            heapq.heappop(self._heap)
            if handle.cancelled() or not handle.process.alive:
                continue
            self._now = max(self._now, when)
            self._make_ready(handle)
            while self._heap and self._heap[0][0] <= self._now:
                self._make_ready(heapq.heappop(self._heap)[2])
            if self.runnable:
                return True
        self._now = max(self._now, until)
        return False

    def _make_ready(self, handle: Handle) -> None:
        process = handle.process
        if process.alive and not self.closed:
            process.ready.append(handle)
            if not process.frozen:
                self.runnable[process] = None

    def close(self) -> None:
        """Let go of every coroutine that is suspended, without a word of it."""
        self.closed = True

    # --- what asyncio asks of a loop --------------------------------------------------------------------------------------

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:
        handle = Handle(self._now, callback, args, context or copy_context(), self.current)
        self._make_ready(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        handle = Handle(when, callback, args, context or copy_context(), self.current)
        heapq.heappush(self._heap, (when, self._number(), handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return _Future(self._number(), self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        if self.closed:
            never: asyncio.Task[Any] = self._never(coro)
            return never
        task = _Task(self._number(), coro, self, name=name or "task", context=context)
        self.current.tasks.add(task)
        return task

    def _never(self, coro: Any) -> Any:
        """The world is over: what a ``finally`` begins there is not done."""
        coro.close()
        future = self.create_future()
        future.cancel()
        return future

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Threads are not there: the work is done at one moment, and its result comes at a later one."""
        future = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                settle, value = future.set_result, func(*args)
            except Exception as error:
                settle, value = future.set_exception, error
            self.call_later(self._rng.uniform(0, 0.002), lambda: future.done() or settle(value))

        self.call_later(self._rng.uniform(0, 0.002), work)
        return future

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        self.readers[fd] = Handle(0.0, callback, args, copy_context(), self.current)
        self.wake_reader(fd)

    def remove_reader(self, fd: Any) -> bool:
        return self.readers.pop(fd, None) is not None

    def wake_reader(self, descriptor: int) -> None:
        """There may be something to read."""
        reader = self.readers.get(descriptor)
        if reader is not None and self.readable(descriptor):
            with self.acting_as(reader.process):
                self.call_soon(self._read, descriptor, reader)

    def _read(self, descriptor: int, reader: Handle) -> None:
        if self.readers.get(descriptor) is reader and self.readable(descriptor):
            reader.run()
            self.wake_reader(descriptor)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self.closed

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.closed:
            self.failed(context)

    def _timer_handle_cancelled(self, handle: Any) -> None:
        pass

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers


def let_go(processes: Iterable[Process]) -> None:
    """Close what processes have left suspended, now that nothing it does can matter: what was begun last goes first."""
    with warnings.catch_warnings(action="ignore"):  # coroutines that are never awaited
        _let_go(processes)


def _let_go(processes: Iterable[Process]) -> None:
    tasks = {task.number: task for process in processes for task in (*process.left, *process.tasks) if not task.done()}
    for _, task in sorted(tasks.items(), reverse=True):
        task._log_destroy_pending = False  # or asyncio would complain of each
        for _ in range(20):  # some await in their `finally`, and have to be closed again
            try:
                task.get_coro().close()
                break
            except RuntimeError:
                continue
            except BaseException:  # what a group makes of its end
                break
