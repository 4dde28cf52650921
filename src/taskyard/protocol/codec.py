"""Frames: a msgpack array of tagged messages, several in a frame, none over the limit.

    codec = executor_codec(max_frame=8 << 20)          # at the executor; manager_executor_codec() at the manager
    frame = codec.encode([Started(fence=fence, at=now)])
    messages = codec.decode(frame_of_the_manager)      # MalformedFrame, FrameTooLarge

A codec holds no state: one serves all sessions. Unknown fields are ignored; an unknown message is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

from taskyard.errors import FrameTooLarge, InvalidInput, MalformedFrame, TooLarge
from taskyard.protocol.messages import (
    ExecutorMessage,
    ExecutorReport,
    Heartbeat,
    HeartbeatEcho,
    Hello,
    ManagerMessage,
    ManagerOrder,
    Refuse,
    Welcome,
)
from taskyard.protocol.requests import ApiCall, ApiHello, ApiMessage, ApiWelcome, ManagerAnswer, ManagerApiMessage

Opening = TypeVar("Opening")
In = TypeVar("In")
Out = TypeVar("Out")

HEADER_BYTES = 5
"""The longest header of a msgpack array."""

# What sessions send by themselves, on either link.
Control = Heartbeat | HeartbeatEcho | Refuse


class Codec(Generic[Opening, In, Out]):
    """One end of one link: the peer opens with an ``Opening`` and goes on with ``In``; we send ``Out``."""

    def __init__(self, link: str, opening: type[Opening], incoming: Any, max_frame: int) -> None:
        """``link`` is its name in logs, ``incoming`` the union of what the peer may send, ``max_frame`` in bytes."""
        self.link = link
        self.opening = opening
        self.max_frame = max_frame
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[tuple[Any, ...]] = msgspec.msgpack.Decoder(tuple[incoming, ...])

    def encode(self, messages: Sequence[Out | Control]) -> bytes:
        """One frame with these messages. Errors are those of :meth:`encode_message`."""
        frame = self.pack([self.encode_message(message) for message in messages])
        if len(frame) > self.max_frame:
            raise TooLarge(f"{len(messages)} messages make {len(frame)} bytes; a frame takes {self.max_frame}")
        return frame

    def encode_message(self, message: Out | Control) -> bytes:
        """One message, to be packed into a frame. ``TooLarge`` where no frame could take it; ``InvalidInput`` where it
        holds what msgpack cannot say: a lone surrogate, an integer of more than 64 bits."""
        try:
            encoded = self._encoder.encode(message)
        except (UnicodeEncodeError, OverflowError) as error:
            raise InvalidInput(f"{type(message).__name__} cannot be sent: {error}") from error
        if len(encoded) > self.max_frame - HEADER_BYTES:
            raise TooLarge(f"{type(message).__name__} has {len(encoded)} bytes; a frame takes {self.max_frame}")
        return encoded

    def pack(self, encoded: Sequence[bytes]) -> bytes:
        """A frame of messages that are encoded already."""
        return b"".join((_array_header(len(encoded)), *encoded))

    def decode(self, frame: bytes) -> tuple[Opening | In | Control, ...]:
        """The messages of a frame. ``FrameTooLarge``, or ``MalformedFrame`` where it is no frame of this link."""
        if len(frame) > self.max_frame:
            raise FrameTooLarge(f"a frame of {len(frame)} bytes; at most {self.max_frame} are allowed")
        try:
            messages = self._decoder.decode(frame)
        # RecursionError: a field that we do not know, nested without end. UnicodeDecodeError: a text that is none.
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedFrame(f"not a frame of the {self.link} link: {error}") from error
        if not messages:
            raise MalformedFrame("a frame without a message")
        return messages


def _array_header(length: int) -> bytes:
    if length < 16:
        return bytes((0x90 | length,))
    if length < 1 << 16:
        return b"\xdc" + length.to_bytes(2, "big")
    return b"\xdd" + length.to_bytes(4, "big")


def executor_codec(max_frame: int) -> Codec[Welcome, ManagerOrder, ExecutorMessage]:
    """The executor's end."""
    return Codec("executor", Welcome, ManagerMessage, max_frame)


def manager_executor_codec(max_frame: int) -> Codec[Hello, ExecutorReport, ManagerMessage]:
    """The manager's end of the executors' link."""
    return Codec("executor", Hello, ExecutorMessage, max_frame)


def api_codec(max_frame: int) -> Codec[ApiWelcome, ManagerAnswer, ApiMessage]:
    """The API Server's end."""
    return Codec("api", ApiWelcome, ManagerApiMessage, max_frame)


def manager_api_codec(max_frame: int) -> Codec[ApiHello, ApiCall, ManagerApiMessage]:
    """The manager's end of the API Servers' link."""
    return Codec("api", ApiHello, ApiMessage, max_frame)
