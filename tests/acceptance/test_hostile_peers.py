"""A message from a peer can end that peer's session, never the server: garbage of all sorts, while an honest task runs."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator

import msgspec
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from taskyard.protocol.codec import api_codec, executor_codec
from taskyard.protocol.messages import Draining, Finished, Heartbeat, Hello, Output, Rejected, Started, Stopped
from taskyard.protocol.requests import (
    ApiHello,
    ApiWelcome,
    Call,
    Cancel,
    ListNames,
    Ping,
    ReadOutput,
    Submission,
    Submit,
    WaitTask,
)
from taskyard.protocol.session import offered
from taskyard.task.model import Artifact, Chunk, Fence, Outcome, Reason, Spec, Stream
from tests.acceptance.processes import Yard

EXECUTOR, API = executor_codec(8 << 20), api_codec(64 << 20)
SCRIPT = "import time\nfor number in range(120):\n    print(number, flush=True)\n    time.sleep(0.1)\n"
ROUNDS = 8
SEED = 3


def executors_garbage(fence: Fence, rng: random.Random) -> Iterator[bytes]:
    """What no executor should say; about an attempt that is not its own, too."""
    yield from any_garbage(rng)
    hello = Hello(executor_id=f"evil-{rng.random()}", boot_id="b", name="evil", capacity={"slots": 1000})
    yield EXECUTOR.encode([hello])
    yield EXECUTOR.encode([msgspec.structs.replace(hello, oldest_version=7, newest_version=9)])
    yield EXECUTOR.encode([Heartbeat(number=rng.choice([-1, 0, 2, 1 << 63]))])
    stranger = Fence(rng.choice([fence.generation, "?"]), "no task", rng.choice([-1, 0, 1 << 62]))
    for other in (fence, stranger):
        yield EXECUTOR.encode([Started(fence=other, at=-1e300)])
        yield EXECUTOR.encode(
            [
                Output(fence=other, chunks=(Chunk(sequence=number, stream=Stream.STDOUT, data=b"lies"),))
                for number in (-1, 0, 1, 7, 1 << 62)
            ]
        )
        outcome = Outcome(
            exit_code=1 << 40,
            signal=-9,
            reason=Reason.LIMIT,
            artifacts=(Artifact(path="../../x", size=-1, sha256="?"),),
            last_sequence=1 << 60,
        )
        yield EXECUTOR.encode([Finished(fence=other, outcome=outcome)])
        yield EXECUTOR.encode([Finished(fence=other, outcome=Outcome(exit_code=0))])
        yield EXECUTOR.encode([Rejected(fence=other, message="x" * 100_000), Stopped(fence=other)])
    yield EXECUTOR.encode([Draining()] * 1000)


def apis_garbage(fence: Fence, rng: random.Random) -> Iterator[bytes]:
    """What no API Server should say."""
    yield from any_garbage(rng)
    yield API.encode([ApiHello(api_id="evil")])
    spec = Spec(arguments=(), timeout=-1.0, grace=-5.0, retries=-3, resources={"": -1})
    yield API.encode([Call(number=1, request=Submit(items=(Submission(task_id="", name="", spec=spec),)))])
    yield API.encode([Call(number=2, request=Submit(items=()))])
    yield API.encode([Call(number=3, request=WaitTask(task=fence.task_id, timeout=1e300))] * 2)
    yield API.encode([Call(number=number, request=Ping()) for number in range(3000)])
    yield API.encode([Cancel(number=-1), Call(number=-1, request=ListNames()), Cancel(number=-1)])
    yield API.encode(
        [Call(number=5, request=ReadOutput(task=fence.task_id, attempt=-1, after=-(1 << 62), limit=-1, wait=-1.0))]
    )


def any_garbage(rng: random.Random) -> Iterator[bytes]:
    yield rng.randbytes(rng.randrange(1, 2000))
    yield b""
    yield b"\x90"
    yield b"\x91" * 100_000
    yield msgspec.msgpack.encode([{"type": "hello"}])
    yield msgspec.msgpack.encode([{"type": "no such message"}])
    yield msgspec.msgpack.encode({"type": "heartbeat", "number": "1"})
    yield b"\xdd\xff\xff\xff\xff"


class Attacker:
    """Opens session after session on one port, and says in each: some garbage first, or an introduction and then garbage."""

    def __init__(self, port: int, opening: bytes) -> None:
        self._url = f"ws://127.0.0.1:{port}/"
        self._port = port
        self._opening = opening
        self.ended = 0

    def say(self, frame: bytes, *, introduced: bool, text: bool) -> None:
        """The peer may end the session at any moment: that is all that may come of it."""
        with contextlib.suppress(ConnectionClosed, InvalidHandshake, OSError):
            with connect(self._url, proxy=None, compression=None, open_timeout=30, close_timeout=1) as connection:
                if introduced:
                    connection.send(self._opening)
                    connection.recv(30)
                connection.send(frame.decode("latin-1") if text else frame)
                self._listen(connection)
        self.ended += 1

    def strike(self, data: bytes) -> None:
        """Bytes that are no WebSocket at all."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 30) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass

    def _listen(self, connection: ClientConnection) -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                connection.recv(0.01)


def test_an_honest_task_runs_through_whatever_hostile_peers_say(yard: Yard) -> None:
    rng = random.Random(SEED)
    manager = yard.components[0]
    task = yard.submit("honest", SCRIPT)
    fence = Fence(generation(yard), task["id"], 1)
    hello = offered(Hello(executor_id="evil", boot_id="b", name="evil", capacity={}))
    executors = Attacker(yard.executor_port, EXECUTOR.encode([hello]))
    apis = Attacker(yard.api_port, API.encode([offered(ApiHello(api_id="evil"))]))
    for number in range(ROUNDS):
        for attacker, garbage in ((executors, executors_garbage), (apis, apis_garbage)):
            for frame in garbage(fence, rng):
                attacker.say(frame, introduced=bool(number % 2), text=rng.random() < 0.1)
            attacker.strike(rng.randbytes(500))
    assert executors.ended > ROUNDS * 10
    done = yard.wait_ended("honest")
    assert (done["state"], done["attempt"]) == ("finished", 1), done
    status, log = yard.curl("/api/v2/tasks/honest/log")
    assert (status, log) == (200, b"".join(b"%d\n" % number for number in range(120)))
    assert manager.process.poll() is None
    assert "Traceback" not in manager.log, manager.log
    yard.submit("afterwards", "print(6)")
    assert yard.wait_ended("afterwards")["state"] == "finished"


def generation(yard: Yard) -> str:
    """The store's, as the manager tells every API Server."""
    with connect(f"ws://127.0.0.1:{yard.api_port}/", proxy=None, compression=None) as connection:
        connection.send(API.encode([offered(ApiHello(api_id="asks"))]))
        frame = connection.recv(30)
        assert isinstance(frame, bytes)
        (welcome, *_) = API.decode(frame)
        assert isinstance(welcome, ApiWelcome)
        return welcome.generation
