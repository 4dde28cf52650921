"""A process that waits, with its session and its cell, to become a script's interpreter. Standard library only.

The keeper forks it ahead of time. The job comes over a socket: its length in eight bytes, JSON, and two descriptors for
the output. Where nothing could be started the answer is a sentence, or says with which error the system would not execute
the program; the end of the stream says that it did.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
from typing import Any, NamedTuple, NoReturn

from taskyard.executor import linux
from taskyard.executor.cells import Cell
from taskyard.executor.places import Place

LENGTH = struct.Struct("<Q")
READY = b"ready"
#: Begins the answer where it was the program's execution that failed: the number of the error follows.
NOT_EXECUTED = "not executed: "
OOM_SCORE = 500
#: Until there is a job they are ignored, as by the keeper: whoever sends them to all means the executor.
LATE_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
RLIMITS = {
    "open_files": resource.RLIMIT_NOFILE,
    "file_size": resource.RLIMIT_FSIZE,
    "memory": resource.RLIMIT_DATA,
    "processes": getattr(resource, "RLIMIT_NPROC", resource.RLIMIT_NOFILE),
}


class Job(NamedTuple):
    """``program``, ``arguments`` and ``environment`` (``NAME=value``) are bytes of the system as Latin-1; a program without a
    slash in its name is looked for on the environment's ``PATH``. ``limits`` are set in the cell, ``rlimits`` for each process.
    ``folder`` becomes ``user``'s, where there is one."""

    program: str
    arguments: list[str]
    environment: list[tuple[str, str]]
    directory: str
    limits: dict[str, int]
    rlimits: dict[str, int]
    user: int | None
    folder: str

    def encode(self) -> bytes:
        body = json.dumps(self).encode()
        return LENGTH.pack(len(body)) + body


def run(end: socket.socket, places: tuple[Place, ...], name: str, keeper: int) -> NoReturn:
    """Be a starter: the child's side of the fork. ``end`` is its end of the socket for the job."""
    try:
        try:
            os.setsid()
            linux.die_with_parent(signal.SIGKILL)
            for place in places:
                if not place.is_late:
                    place.make(name)
            _rehearse()
            end.sendall(READY)
            received = _receive(end)
            if received is not None:
                job, outputs = received
                _become(job, outputs, Cell(places, name, os.getpid(), keeper), keeper)
        except (OSError, ValueError) as error:
            end.sendall(str(error).encode() or b"unknown error")
    finally:
        os._exit(1)


def _receive(end: socket.socket) -> tuple[Job, list[int]] | None:
    """None where the executor has no need of this starter any more, or has died."""
    begun, descriptors, _, _ = socket.recv_fds(end, LENGTH.size, 2)
    head = _filled(end, begun, LENGTH.size)
    if head is None:
        return None
    (length,) = LENGTH.unpack(head)
    body = _filled(end, b"", length)
    return None if body is None else (_job(body), descriptors)


def _filled(end: socket.socket, begun: bytes, length: int) -> bytearray | None:
    """So many bytes of the stream, ``begun`` among them; None where it ends before."""
    data = bytearray(begun)
    while len(data) < length:
        piece = end.recv(length - len(data))
        if not piece:
            return None
        data += piece
    return data


def _job(body: bytes | bytearray) -> Job:
    fields: list[Any] = json.loads(body)
    return Job(*fields)


def _become(job: Job, outputs: list[int], cell: Cell, keeper: int) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((nothing, *outputs)):
        os.dup2(descriptor, number)
    for descriptor in (nothing, *outputs):
        if descriptor > 2:
            os.close(descriptor)
    if "cpus" in job.limits:
        for place in cell.places:
            if place.is_late:
                place.make(cell.name)
    for name, amount in job.limits.items():
        cell.limit(name, amount)
    for name, amount in job.rlimits.items():
        _limit(RLIMITS[name], amount)
    if job.user is not None:
        give(job.folder, job.user)
    become(job.user, keeper)
    os.chdir(os.fsencode(job.directory))
    for number in LATE_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    cell.forget_peak()
    try:
        os.execvpe(  # noqa: S606
            _bytes(job.program),
            [_bytes(one) for one in job.arguments],
            {_bytes(name): _bytes(value) for name, value in job.environment},
        )
    except OSError as error:
        raise OSError(f"{NOT_EXECUTED}{error.errno}") from error


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")


def become(user: int | None, keeper: int) -> None:
    """Be a slot's user, where slots have them, and die with the keeper. ``OSError``."""
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        linux.gain_no_privileges()
    linux.die_with_parent(signal.SIGKILL)
    if os.getppid() != keeper:
        raise OSError("the keeper has died")


def _limit(number: int, amount: int) -> None:
    _, hard = resource.getrlimit(number)
    amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
    resource.setrlimit(number, (amount, amount))


def give(folder: str, user: int) -> None:
    """Make a folder and all that is in it a user's. Nothing runs in it yet, so that nothing changes under our hands."""
    os.lchown(folder, user, user)
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):  # links to folders are among the folders
            os.lchown(f"{parent}/{name}", user, user)


def _rehearse() -> None:
    """Do ahead of time what does not need the job; and what does, once, so that its memory is this process's own already."""
    for number in signal.valid_signals() - LATE_SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    job = Job("/", ["-"], [("A", "b")], "/", {}, {}, None, "/")
    again = _job(job.encode()[LENGTH.size :])
    _bytes(again.program)
    linux.be_killed_first(OOM_SCORE)
