"""The keeper's side of its zygotes: starts them, asks them for spares, hears their end. Standard library only."""

from __future__ import annotations

import contextlib
import marshal
import os
import selectors
import signal
import socket
from collections.abc import Callable
from typing import Any, NoReturn

from taskyard.executor import linux, starter
from taskyard.executor.lifeline import STALE, Cold, Open, StartSpare, Warm
from taskyard.executor.places import Place

PROGRAM = os.path.join(os.path.dirname(__file__), "zygote.py")
LENGTH_BYTES = 8
#: What a spare says, with its process, when it waits for its job; and before it closes the socket, when it is the script.
READY, BEGUN = b"ready ", b"\0"
#: A variable whose place in memory gets an attempt's own, so that they are found by those who look: the mark first of all.
ROOM, ROOM_BYTES = b"TASKYARD_ROOM", 16384
#: Bytes of what an interpreter says when it cannot even start.
MAX_LAST_WORDS = 4096
#: Bytes of what a spare without a zygote says when it is ready, at most.
MAX_FIRST_WORDS = 65536


class Zygote:
    """One process, as the keeper knows it. ``opened`` says how it was asked for, without what it cannot import ahead."""

    def __init__(self, opened: Open, warnings: tuple[str, ...] = ()) -> None:
        self.opened = opened
        self.warnings = warnings
        self.control, theirs = socket.socketpair()
        self._said, writing = os.pipe()
        try:
            self.pid = os.fork()
            if not self.pid:
                _become(opened, theirs.fileno(), writing)
        except OSError:
            self.control.close()
            os.close(self._said)
            raise
        finally:
            theirs.close()
            os.close(writing)
        os.set_blocking(self._said, False)
        self._received = b""
        _send(self.control, {"preload": list(opened.preload)})

    def hear(self) -> dict[str, Any] | None:
        """What it says when it is ready; an empty dictionary where that has not come whole; None at its end."""
        try:
            piece = self.control.recv(65536)
        except ConnectionError:
            piece = b""
        if not piece:
            return None
        self._received += piece
        length = int.from_bytes(self._received[:LENGTH_BYTES], "little")
        body = self._received[LENGTH_BYTES:]
        if len(self._received) < LENGTH_BYTES or len(body) < length:
            return {}
        self._received = b""
        message: dict[str, Any] = marshal.loads(body)  # noqa: S302
        return message

    def ask(self, cells: list[str], user: int | None, end: socket.socket) -> None:
        """Ask for a spare in these cells, with that end of the socket for its job. ``OSError``."""
        request = {"cells": cells, "user": user, "keeper": os.getpid()}
        _send(self.control, request, (end.fileno(),))

    def close(self) -> str:
        """End it. What it had said, where it was never ready."""
        self.control.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        said = b""
        with contextlib.suppress(BlockingIOError):
            said = os.read(self._said, MAX_LAST_WORDS)
        os.close(self._said)
        return said.decode(errors="replace").strip()


class Zygotes:
    """All of them. ``report`` tells the executor."""

    def __init__(self, selector: selectors.BaseSelector, report: Callable[[Warm | Cold], None]) -> None:
        self._selector = selector
        self._report = report
        self._living: dict[int, Zygote] = {}

    @property
    def pids(self) -> set[int]:
        return {one.pid for one in self._living.values()}

    def is_bearing(self, pid: int) -> bool:
        """Whether it is a spare so young that it is in no cell yet: it is in its zygote's session, which nobody can enter."""
        try:
            return os.getsid(pid) in self.pids
        except ProcessLookupError:
            return False

    def open(self, opened: Open, warnings: tuple[str, ...] = ()) -> None:
        """Start one, in the place of any other of that number."""
        self._close(opened.zygote)
        try:
            zygote = Zygote(opened, warnings)
        except OSError as error:
            self._report(Cold(opened.zygote, f"no process could be made: {error}"))
            return
        self._living[opened.zygote] = zygote
        self._selector.register(zygote.control, selectors.EVENT_READ, lambda: self._on_control(zygote))

    def ask(self, number: int, cells: list[str], user: int | None, end: socket.socket) -> None:
        """Ask one for a spare. ``OSError`` where there is none of that number, or it does not read."""
        zygote = self._living.get(number)
        if zygote is None:
            raise OSError("the zygote has died")
        zygote.ask(cells, user, end)

    def close(self) -> None:
        """End all."""
        for number in list(self._living):
            self._close(number)

    def _close(self, number: int) -> str:
        zygote = self._living.pop(number, None)
        if zygote is None:
            return ""
        self._selector.unregister(zygote.control)
        return zygote.close()

    def _on_control(self, zygote: Zygote) -> None:
        if self._living.get(zygote.opened.zygote) is not zygote:
            return  # it was closed by what was heard just before
        message = zygote.hear()
        if message is None:
            number = zygote.opened.zygote
            self._report(Cold(number, self._close(number) or "it died"))
        elif (name := message.get("unsafe")) is not None:
            preload = [one for one in zygote.opened.preload if one != name]
            warning = f"{name} is not imported ahead: it leaves {message['leaves']}"
            self.open(zygote.opened._replace(preload=preload), (*zygote.warnings, warning))
        elif "stale" in message:
            self._close(zygote.opened.zygote)
            self._report(Cold(zygote.opened.zygote, STALE))
        elif message:
            warnings = [*zygote.warnings, *message["warnings"]]
            self._report(Warm(zygote.opened.zygote, warnings, message["loaded"]))


def encoded(message: Any) -> bytes:
    """A message as zygotes and spares read it: the length, then the object in the form that every version of Python reads."""
    body = marshal.dumps(message, 2)
    return len(body).to_bytes(LENGTH_BYTES, "little") + body


def _send(control: socket.socket, message: Any, descriptors: tuple[int, ...] = ()) -> None:
    data = encoded(message)
    # Not waiting: a zygote that is stopped must not stop the keeper.
    sent = socket.send_fds(control, [data], list(descriptors), socket.MSG_DONTWAIT)
    if sent < len(data):
        raise BlockingIOError("the zygote does not read")


def _become(opened: Open, control: int, said: int) -> None:
    """The child's side of the fork: become the interpreter. Does not return."""
    try:
        _begin_anew(control, said)
        linux.die_with_parent(signal.SIGKILL)
        _execute(opened, os.fsencode(PROGRAM).decode("latin-1"), str(control))
    except OSError as error:
        os.write(2, str(error).encode())
    finally:
        os._exit(1)


def become_spare(order: StartSpare, end: socket.socket, places: tuple[Place, ...], name: str, keeper: int) -> NoReturn:
    """The child's side of the fork: become a spare without a zygote, in the cell of that name. What its interpreter says
    before it is one goes to that end of the socket, too."""
    try:
        _begin_anew(end.fileno(), end.fileno())
        for place in places:
            if not place.is_late:
                place.make(name)
        starter.become(order.user, keeper)
        os.chdir("/")
        _execute(order, order.standby, str(end.fileno()), ",".join(order.preload))
    except OSError as error:
        os.write(2, str(error).encode())
    finally:
        os._exit(1)


def _begin_anew(kept: int, said: int) -> None:
    """A session of its own, signals as they are by default, no descriptor but that one and the output."""
    signal.set_wakeup_fd(-1)
    os.setsid()
    linux.be_killed_first(starter.OOM_SCORE)
    for one in signal.valid_signals() - starter.LATE_SIGNALS:  # those are ignored until there is a job
        if signal.getsignal(one) is signal.SIG_IGN:
            signal.signal(one, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((nothing, said, said)):
        os.dup2(descriptor, number)
    os.set_inheritable(kept, True)
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


def _execute(asked: Open | StartSpare, *words: str) -> None:
    arguments = [asked.program.encode("latin-1"), *(word.encode("latin-1") for word in words)]
    environment = {ROOM: b"-" * ROOM_BYTES}
    environment |= {name.encode("latin-1"): value.encode("latin-1") for name, value in asked.environment}
    os.execve(arguments[0], arguments, environment)  # noqa: S606
