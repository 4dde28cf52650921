"""What the executor and its keeper say to each other, and the socket over which they say it. Standard library only.

The end of the stream is a message too: to the keeper, that the executor has died; to the executor, that the keeper has.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections import deque
from typing import Any, NamedTuple, get_args

MAX_DESCRIPTORS = 8
_CLOSE_ON_EXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
#: Why a zygote has ended that is well: another has to begin in its place.
STALE = "packages were installed or removed"


# --- the executor's orders ------------------------------------------------------------------------------------------------


class Take(NamedTuple):
    """The starter of that number gets a job now. ``user`` is the user id that the job will have, ``mark`` what its
    environment says and no other's."""

    number: int
    user: int | None
    mark: str


class Terminate(NamedTuple):
    """SIGTERM to all processes of the cell; the leader has had its own where ``leader`` is false."""

    number: int
    leader: bool


class Kill(NamedTuple):
    """SIGKILL to all processes of the cell."""

    number: int


class Hold(NamedTuple):
    """Kill every job at that time, unless told a later one before."""

    deadline: float


class Ping(NamedTuple):
    """Say that you are there."""


class Open(NamedTuple):
    """Start the zygote of that number: ``program`` is its interpreter, ``preload`` what it imports ahead. Texts are bytes of
    the system as Latin-1."""

    zygote: int
    program: str
    environment: list[tuple[str, str]]
    preload: list[str]


class Bear(NamedTuple):
    """Have a zygote fork a spare, with that user id where each slot has one."""

    zygote: int
    user: int | None


class StartSpare(NamedTuple):
    """Start a spare that no zygote forks, under a ``zygote`` number of its own: ``program`` is its interpreter, executed as
    ``user`` with the file ``standby``. ``mark`` is what its environment says and no other's. Texts are bytes of the system as
    Latin-1."""

    zygote: int
    user: int | None
    program: str
    standby: str
    environment: list[tuple[str, str]]
    preload: list[str]
    mark: str


# --- the keeper's reports -------------------------------------------------------------------------------------------------


class Ready(NamedTuple):
    """There is a starter, or a spare of that ``zygote`` with its ``user``. The socket for its job comes with it, and after
    that, with ``pidfd``, the pidfd of its process. ``loaded`` is what a spare that no zygote has forked has imported ahead, as
    :class:`Warm` says it."""

    number: int
    leader: int
    pidfd: bool
    zygote: int = 0
    user: int | None = None
    loaded: list[str] = []  # noqa: RUF012


class Killing(NamedTuple):
    """Answer to ``Kill``: all that was there has had its signal, and what is left gets it again and again."""

    number: int


class Pong(NamedTuple):
    """Answer to ``Ping``."""


class Exited(NamedTuple):
    """The leader of the cell has ended, and other processes of the cell have not yet."""

    number: int


class Gone(NamedTuple):
    """No process of the cell is left. ``status`` is what ``wait`` gives, memory is in bytes, CPU time in seconds.
    ``measured`` where the figures are those of the whole cell, else they are ``wait4``'s."""

    number: int
    status: int
    peak_memory: int
    cpu_time: float
    measured: bool
    out_of_memory: bool
    killed: bool


class Warm(NamedTuple):
    """A zygote is ready. ``warnings`` say what it does not import ahead, and why; ``loaded`` are the top names of the modules
    that it has and a bare interpreter has not."""

    zygote: int
    warnings: list[str]
    loaded: list[str]


class Cold(NamedTuple):
    """A zygote has died, or could not be started. Its spares live on."""

    zygote: int
    reason: str


class Barren(NamedTuple):
    """Answer to a ``Bear`` or a ``StartSpare`` that came to nothing; nothing is left of the latter."""

    zygote: int
    user: int | None
    reason: str


class Trouble(NamedTuple):
    """Something that the executor's log should say."""

    text: str


Order = Take | Terminate | Kill | Hold | Ping | Open | Bear | StartSpare
Report = Ready | Killing | Pong | Exited | Gone | Warm | Cold | Barren | Trouble
_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (*get_args(Order), *get_args(Report))}


class Lifeline:
    """One end. Never blocks: what the other side does not read yet is kept, which what there is to say bounds."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.socket = end
        self.descriptors: deque[int] = deque()
        self._received = b""
        self._unsent: deque[tuple[bytes, tuple[int, ...]]] = deque()

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def send(self, message: Order | Report, descriptors: tuple[int, ...] = ()) -> None:
        """Send, now or as soon as :meth:`flush` can. The descriptors are closed here once they have been sent."""
        line = json.dumps([type(message).__name__, *message]).encode() + b"\n"
        self._unsent.append((line, descriptors))
        self.flush()

    def flush(self) -> None:
        """Send what could not be sent before. Without effect where nobody is at the other end any more."""
        while self._unsent:
            line, descriptors = self._unsent[0]
            try:
                if descriptors:
                    sent = socket.send_fds(self.socket, [line], list(descriptors))
                else:
                    sent = self.socket.send(line)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                sent = len(line)
            for descriptor in descriptors:
                os.close(descriptor)
            self._unsent.popleft()
            if sent < len(line):
                self._unsent.appendleft((line[sent:], ()))

    def receive(self) -> list[Any] | None:
        """The messages that have come, in their order; what came with them is in ``descriptors``. None at the end."""
        messages: list[Any] = []
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self.socket, 65536, MAX_DESCRIPTORS, _CLOSE_ON_EXEC)
            except (BlockingIOError, InterruptedError):
                return messages
            except ConnectionError:
                data, descriptors = b"", []
            self.descriptors.extend(descriptors)
            if not data:
                return messages or None
            *lines, self._received = (self._received + data).split(b"\n")
            messages += [_message(line) for line in lines]

    def close(self) -> None:
        for descriptor in [*self.descriptors, *(one for _, descriptors in self._unsent for one in descriptors)]:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self.descriptors.clear()
        self._unsent.clear()
        self.socket.close()


def _message(line: bytes) -> Any:
    name, *fields = json.loads(line)
    return _KINDS[name](*fields)
