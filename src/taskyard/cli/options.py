"""Options that several commands have, and what is made of them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from cyclopts import Parameter

from taskyard.cli.say import say
from taskyard.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from taskyard.client.asynchronous import AsyncClient
    from taskyard.client.synchronous import Client
    from taskyard.settings import ClientSettings, Settings

    S = TypeVar("S", bound=Settings)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Remote:
    """Which API Server to ask, and how to answer."""

    url: Annotated[str | None, Parameter(help="The API Server; also TASKYARD_URL.")] = None
    data_dir: Annotated[
        Path | None, Parameter(help="Where the users' token of this machine's Taskyard lies; also TASKYARD_DATA_DIR.")
    ] = None
    json: Annotated[bool, Parameter(help="Print JSON.")] = False

    def settings(self) -> ClientSettings:
        """The client's settings: these options, then the environment."""
        from taskyard.settings import ClientSettings

        return configured(ClientSettings, url=self.url, data_dir=self.data_dir)

    def client(self) -> Client:
        """A client for that API Server."""
        from taskyard.client.synchronous import Client

        return Client(settings=self.settings(), on_away=tell_away)

    def async_client(self) -> AsyncClient:
        """The same for a command that is asynchronous."""
        from taskyard.client.asynchronous import AsyncClient

        return AsyncClient(settings=self.settings(), on_away=tell_away)


DEFAULT_REMOTE = Remote()


def tell_away(error: Unavailable, left: float) -> None:
    """Why nothing happens, and for how long."""
    say(f"{error.message}; trying again for {left:.0f} seconds")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Logging:
    """What a component logs, on stderr."""

    log_level: Annotated[str | None, Parameter(help="debug, info, warning or error; also TASKYARD_LOG_LEVEL.")] = None
    log_format: Annotated[
        str | None, Parameter(help="human, json, or auto: human on a terminal; also TASKYARD_LOG_FORMAT.")
    ] = None


DEFAULT_LOGGING = Logging()


def configured(kind: type[S], **given: Any) -> S:
    """Settings of that kind: what was given on the command line, then the environment. ``InvalidInput``."""
    from pydantic import ValidationError

    from taskyard.settings import explain

    try:
        return kind(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise InvalidInput(explain(error)) from error


def pairs(words: Sequence[str], option: str) -> dict[str, str]:
    """``["a=1"]`` as a mapping. ``InvalidInput`` where a word is no pair."""
    for word in words:
        if not word.partition("=")[0] or "=" not in word:
            raise InvalidInput(f"{option} {word}: give KEY=VALUE")
    return dict(_split(word) for word in words)


def variables(words: Sequence[str], option: str) -> dict[str, str]:
    """``["A=1", "B"]`` as a mapping; a name alone takes its value from our own environment."""
    for word in words:
        if "=" not in word and word not in os.environ:
            raise InvalidInput(f"{option} {word}: there is no such variable here: give NAME=VALUE")
    return pairs([word if "=" in word else f"{word}={os.environ[word]}" for word in words], option)


def amounts(words: Sequence[str], option: str) -> dict[str, float | str]:
    """``["cpus=0.5", "memory=1GiB"]`` as a mapping; what is no number stays as it is."""
    return {name: _number(value) for name, value in pairs(words, option).items()}


def numbers(words: Sequence[str], option: str) -> dict[str, float]:
    """``["disks=2"]`` as a mapping of numbers. ``InvalidInput`` where a value is none, or not finite."""
    return {name: _finite(value, f"{option} {name}={value}") for name, value in pairs(words, option).items()}


def _finite(value: str, told: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidInput(f"{told}: its amount must be a finite number")
    return number


def _split(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return name, value


def _number(value: str) -> float | str:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
