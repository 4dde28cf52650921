"""Answers of the API link: the caller knows an answer's type by its request.

answer = answer_to(call.number, submitted)                # at the manager
submitted = read_answer(Submit(...), answer)              # at the API Server: a Submitted
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar, get_args

import msgspec

from taskyard.errors import BatchInvalid, MalformedFrame, TaskyardError, from_code
from taskyard.protocol.messages import NEWEST_VERSION
from taskyard.protocol.requests import Answer, Failure, Request
from taskyard.protocol.versions import readable

A = TypeVar("A")

_encoder = msgspec.msgpack.Encoder()


def answer_type(kind: type[Request[A]]) -> type[A]:
    """What a kind of request is answered with: the ``A`` of its base ``Request[A]``."""
    (answer,) = (get_args(base)[0] for base in kind.__orig_bases__)  # type: ignore[attr-defined]  # set by Generic
    return answer  # type: ignore[no-any-return]  # a class, by the definition of every request


def answer_to(number: int, body: object, version: int = NEWEST_VERSION) -> Answer:
    """The answer to call ``number``, in a session of that version."""
    return Answer(number=number, body=msgspec.Raw(_encoder.encode(readable(body, version))))


def read_answer(request: Request[A], answer: Answer) -> A:
    """The body of the answer to ``request``. ``MalformedFrame`` where it is no such answer."""
    decoder: msgspec.msgpack.Decoder[A] = _decoder(type(request))
    try:
        return decoder.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedFrame(f"not an answer to {type(request).__name__}: {error}") from error


def failure_of(number: int, error: TaskyardError) -> Failure:
    """Tells the caller of call ``number`` of an error."""
    items = error.items if isinstance(error, BatchInvalid) else ()
    return Failure(number=number, code=error.code, message=error.message, items=items)


def error_of(failure: Failure) -> TaskyardError:
    """The error to raise at the caller's."""
    return from_code(failure.code, failure.message, failure.items)


@functools.cache
def _decoder(kind: type[Any]) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(answer_type(kind))
