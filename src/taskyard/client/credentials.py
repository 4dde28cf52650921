"""Finds the users' token."""

from __future__ import annotations

import socket
from typing import NamedTuple
from urllib.parse import urlsplit

from taskyard import tokens
from taskyard.errors import InvalidInput
from taskyard.settings import ClientSettings, is_loopback


class Token(NamedTuple):
    """``origin`` tells people where it came from. Where there is none ``value`` is empty, and ``origin`` says how to give
    one."""

    value: str
    origin: str


def find_token(url: str, settings: ClientSettings) -> Token:
    """The token of the settings, else of the environment, else of the data directory. The last one belongs to this machine,
    and is shown to no other. ``InvalidInput`` where its file cannot be used, or the URL is none."""
    if settings.token:
        return Token(settings.token, "that of TASKYARD_TOKEN")
    if given := tokens.from_environment("user"):
        return Token(given, "that of TASKYARD_USER_TOKEN")
    try:
        host = urlsplit(url).hostname or ""
    except ValueError as error:
        raise InvalidInput(f"{url!r} is no address of an API Server: {error}") from error
    if not is_loopback(host) and host != socket.gethostname().lower():
        return Token(
            "", "set TASKYARD_USER_TOKEN to it, as the data directory's is for loopback and our own host name alone"
        )
    found = tokens.load(settings.data_dir)
    if found is None or not found.user:
        return Token("", f"set TASKYARD_USER_TOKEN to it, or give --data-dir, as there is none in {settings.data_dir}")
    return Token(found.user[0].value, f"that of {settings.data_dir / tokens.FILE_NAME}")
