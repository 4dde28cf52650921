"""The asynchronous client: one method for each thing that the API can do. ``docs/client.md`` shows it at work."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, Unpack
from uuid import uuid4

import httpx2
import msgspec

from taskyard.client import logs, uploads
from taskyard.client.credentials import Token, find_token
from taskyard.client.downloads import download, place
from taskyard.client.http import Http, Params, decode, encode, finite, segment
from taskyard.client.logs import OnAway
from taskyard.client.records import Artifact, Attempt, CreatedTask, Executor, LogChunk, Result, Task, TaskSummary, Why
from taskyard.client.uploads import BatchTask, Files, Multipart, Part, Progress, SpecOptions, TaskOptions
from taskyard.errors import NotFound, TaskFailed, TaskStopped, WaitTimeout
from taskyard.settings import ClientSettings
from taskyard.task.model import StateName, Stream

#: Seconds of one long poll; the server's limit is 60 by default.
POLL = 30.0
PAGE = 200


class _Page(msgspec.Struct, frozen=True):
    tasks: tuple[TaskSummary, ...]
    next_cursor: str | int | None = None


class _Created(msgspec.Struct, frozen=True):
    tasks: tuple[CreatedTask, ...]


class _Attempts(msgspec.Struct, frozen=True):
    attempts: tuple[Attempt, ...]


class _Artifacts(msgspec.Struct, frozen=True):
    artifacts: tuple[Artifact, ...]


class _Executors(msgspec.Struct, frozen=True):
    executors: tuple[Executor, ...]


class AsyncClient:
    """Talks to one API Server. Use it as a context manager, or call :meth:`close`.

    ``url`` and ``token`` beat ``settings``, whose defaults are the environment's (``TASKYARD_URL`` and the others of
    ``docs/settings.md``). ``patience`` is for how many seconds :meth:`wait`, :meth:`result` and :meth:`logs` go on
    while the API or its manager is away; ``on_away`` is told of it after a second, once for each absence: the error and the
    seconds for which it goes on. ``transport`` takes the place of the network in tests.

    A task is given as its id or its name. Every method can raise ``Unavailable`` (the API cannot be reached),
    ``Unauthorized`` and ``InvalidInput``; those about a task ``NotFound``.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        settings: ClientSettings | None = None,
        patience: float = 60.0,
        on_away: OnAway | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        settings = settings or ClientSettings()
        url = url or settings.url
        found = (
            find_token(url, settings)
            if token is None
            else Token(token, "the one that was given" if token else "the one that was given is empty")
        )
        self._http = Http(url, found, settings.timeout, transport)
        self._patience = partial(logs.Patience, patience, on_away)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    # --- submit -------------------------------------------------------------------------------------------------------

    async def submit(
        self,
        command: str | Sequence[str] | None = None,
        *,
        files: Files = (),
        script: str | None = None,
        idempotency_key: str | None = None,
        progress: Progress | None = None,
        **options: Unpack[TaskOptions],
    ) -> Task:
        """Submit a task; it is durable when this returns.

        ``command`` as a string is what would follow ``python``: ``"hello.py 6"``; with one file it may be left out. As a list
        it is a program with its arguments, one of the files or on the executor's ``PATH``: ``["bash", "job.sh"]``.
        ``files`` are paths of files and folders, or a mapping that says where each is to lie in the task's working
        directory; they are streamed from disk. ``script`` is a script as text. With the same
        ``idempotency_key`` a second submit gives the task of the first. Raises ``NameTaken``, ``KeyReused``,
        ``TooLarge`` and ``StorageFull`` too.
        """
        spec = uploads.spec_of(command, script, options)
        headers = {"Idempotency-Key": idempotency_key or str(uuid4())}
        return await self._send("POST", "tasks", spec, files, headers, progress)

    async def submit_batch(
        self,
        tasks: Iterable[BatchTask],
        *,
        defaults: SpecOptions | None = None,
        idempotency_key: str | None = None,
    ) -> tuple[CreatedTask, ...]:
        """Submit many tasks in one request: all of them or none (``BatchInvalid``). ``defaults`` hold for each task
        that does not say otherwise. The files travel inside the request: keep them small."""
        body: dict[str, Any] = {"tasks": [uploads.batch_item(task) for task in tasks]}
        if defaults is not None:
            body["defaults"] = defaults
        answer = await self._http.request(
            "POST",
            "tasks/batch",
            content=encode(body),
            headers={"Content-Type": "application/json", "Idempotency-Key": idempotency_key or str(uuid4())},
            repeatable=True,
        )
        return decode(answer, _Created).tasks

    async def update(
        self,
        task: str,
        command: str | Sequence[str] | None = None,
        *,
        files: Files = (),
        script: str | None = None,
        **options: Unpack[SpecOptions],
    ) -> Task:
        """Give a task a new revision: what is not given stays. One that runs is stopped, and runs again after
        :meth:`start`."""
        spec = uploads.spec_of(command, script, options)
        return await self._send("PATCH", f"tasks/{segment(task)}", spec, files, {}, None)

    async def _send(
        self,
        method: str,
        path: str,
        spec: Mapping[str, Any],
        files: Files,
        headers: Mapping[str, str],
        progress: Progress | None,
    ) -> Task:
        repeatable = "Idempotency-Key" in headers
        parts = await asyncio.to_thread(uploads.parts_of, files)
        if not parts:
            answer = await self._http.request(
                method,
                path,
                content=encode(spec),
                headers={**headers, "Content-Type": "application/json"},
                repeatable=repeatable,
            )
            return decode(answer, Task)
        packed = await asyncio.to_thread(uploads.archive, parts) if uploads.needs_archive(parts) else None
        try:
            if packed is None:
                body = Multipart(spec, parts, progress=progress)
            else:
                body = Multipart(spec, (), Part("files.zip", packed, packed.stat().st_size), progress)
            answer = await self._http.request(
                method, path, content=body, headers={**headers, **body.headers}, repeatable=repeatable
            )
        finally:
            if packed is not None:
                packed.unlink()
        return decode(answer, Task)

    # --- tasks --------------------------------------------------------------------------------------------------------

    async def get(self, task: str) -> Task:
        """The task as it stands."""
        return decode(await self._http.request("GET", f"tasks/{segment(task)}"), Task)

    async def list(
        self,
        *,
        states: Iterable[StateName | str] = (),
        name_prefix: str = "",
        labels: Mapping[str, str] | None = None,
        executor: str = "",
        limit: int | None = None,
    ) -> AsyncGenerator[TaskSummary, None]:
        """Tasks, newest first, fetched page by page; ``limit`` at most. Every filter that is given must hold."""
        left = limit
        params: dict[str, Any] = {
            "state": [StateName(state).value for state in states],
            "label": [f"{key}={value}" for key, value in (labels or {}).items()],
        }
        params |= {key: value for key, value in (("name_prefix", name_prefix), ("executor", executor)) if value}
        while left is None or left > 0:
            params["limit"] = PAGE if left is None else min(left, PAGE)
            page = decode(await self._http.request("GET", "tasks", params=params), _Page)
            for task in page.tasks:
                yield task
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor
            left = None if left is None else left - len(page.tasks)

    async def wait(self, task: str, timeout: float | None = None) -> Task:
        """The task when it has ended. ``WaitTimeout`` after ``timeout`` seconds; None waits as long as it takes."""
        finite("timeout", timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = POLL if deadline is None else max(0.0, min(POLL, deadline - time.monotonic()))
            found = await logs.persist(partial(self._poll, task, left), self._patience())
            if found.has_ended:
                return found
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeout(f"task {found.name!r} is still {found.state} after {timeout:g} seconds")
            task = found.id  # from now on it is this task, whatever becomes of its name

    async def _poll(self, task: str, seconds: float) -> Task:
        path = f"tasks/{segment(task)}/wait"
        return decode(await self._http.request("GET", path, params={"timeout": seconds}, waits=seconds), Task)

    async def stop(self, task: str) -> Task:
        """Ask for its end: SIGTERM, the task's grace, then SIGKILL. It is stopped when :meth:`wait` returns."""
        return decode(await self._http.request("POST", f"tasks/{segment(task)}/stop", repeatable=True), Task)

    async def start(self, task: str) -> Task:
        """Run an ended task again. ``WrongState`` where it has not ended."""
        return decode(await self._http.request("POST", f"tasks/{segment(task)}/start"), Task)

    async def delete(self, task: str) -> None:
        """Delete a task; one that runs is stopped first. Its name is free at once."""
        await self._http.request("DELETE", f"tasks/{segment(task)}")

    async def why(self, task: str) -> Why:
        """Why the task does not run."""
        return decode(await self._http.request("GET", f"tasks/{segment(task)}/why"), Why)

    async def attempts(self, task: str) -> tuple[Attempt, ...]:
        """Every run of the task, the first one first."""
        return decode(await self._http.request("GET", f"tasks/{segment(task)}/attempts"), _Attempts).attempts

    # --- what a task leaves -------------------------------------------------------------------------------------------

    async def logs(
        self,
        task: str,
        *,
        follow: bool = True,
        stream: Stream | str | None = None,
        attempt: int | None = None,
        after: str | None = None,
    ) -> AsyncGenerator[LogChunk, None]:
        """The task's output as it is printed, until the task has ended; what there is now with ``follow=False``.

        Goes on by itself after a broken connection, without a gap or a repetition. ``stream`` is one of the two;
        ``attempt`` one run, by default the last and those that follow; ``after`` the id of the chunk to go on from.
        """
        params: dict[str, str | int | float | bool | list[str]] = {"follow": follow}
        if stream is not None:
            params["stream"] = Stream(stream).value
        if attempt is not None:
            params["attempt"] = attempt
        async with contextlib.aclosing(logs.follow(self._http, task, params, after, self._patience())) as chunks:
            async for chunk in chunks:
                yield chunk

    async def output(self, task: str, stream: Stream | str = Stream.STDOUT, attempt: int | None = None) -> bytes:
        """All that the task has printed so far on one stream, as it printed it."""
        params: Params = {"stream": Stream(stream).value} | ({} if attempt is None else {"attempt": attempt})
        return await self._http.request(
            "GET", f"tasks/{segment(task)}/log", params=params, headers={"Accept": "text/plain"}
        )

    async def result(self, task: str, *, timeout: float | None = None, check: bool = True) -> Result:
        """The result when the task has ended; ``WaitTimeout`` after ``timeout`` seconds. With ``check``, a task that
        failed raises ``TaskFailed``, and one that was stopped ``TaskStopped``."""
        ended = await self.wait(task, timeout)
        path = f"tasks/{segment(ended.id)}/result"
        result = decode(await logs.persist(partial(self._http.request, "GET", path), self._patience()), Result)
        if check and result.state is StateName.FAILED:
            raise TaskFailed(
                f"task {result.name!r} failed: {result.message or result.reason}",
                result.reason or "",
                result.stderr or "",
            )
        if check and result.state is StateName.STOPPED:
            raise TaskStopped(f"task {result.name!r} was stopped", result.reason or "", result.stderr or "")
        return result

    async def artifacts(self, task: str) -> tuple[Artifact, ...]:
        """The files that the task wrote into its output folder."""
        return decode(await self._http.request("GET", f"tasks/{segment(task)}/artifacts"), _Artifacts).artifacts

    async def download(self, task: str, path: str, target: str | os.PathLike[str]) -> Path:
        """Write one artifact to the file ``target``, or into it where it is a folder."""
        for artifact in await self.artifacts(task):
            if artifact.path == path:
                file = Path(target)
                file = place(file, artifact) if file.is_dir() else file
                await download(self._http, task, artifact, file)
                return file
        raise NotFound(f"task {task!r} has no artifact {path!r}: 'taskyard artifacts {task}' lists them")

    async def download_all(self, task: str, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write every artifact below ``folder``, which is made if need be."""
        root = Path(folder)
        found = await self.artifacts(task)
        placed = [(artifact, place(root, artifact)) for artifact in found]
        root.mkdir(parents=True, exist_ok=True)
        for artifact, file in placed:
            await download(self._http, task, artifact, file)
        return tuple(file for _, file in placed)

    # --- executors ----------------------------------------------------------------------------------------------------

    async def executors(self) -> tuple[Executor, ...]:
        """Every executor that the manager knows."""
        return decode(await self._http.request("GET", "executors"), _Executors).executors

    async def drain(self, executor: str) -> Executor:
        """Give an executor, by id or name, no new tasks; what it runs goes on."""
        return decode(
            await self._http.request("POST", f"executors/{segment(executor)}/drain", repeatable=True), Executor
        )

    async def undrain(self, executor: str) -> Executor:
        """Give an executor tasks again, also one that is cordoned."""
        return decode(
            await self._http.request("POST", f"executors/{segment(executor)}/undrain", repeatable=True), Executor
        )

    async def forget(self, executor: str) -> None:
        """Forget an executor that is away and runs nothing."""
        await self._http.request("DELETE", f"executors/{segment(executor)}")
