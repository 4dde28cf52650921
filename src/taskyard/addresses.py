"""Addresses as people write them: ``host``, ``host:port``, or a URL with a scheme."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

HTTPS_PORT = 443
_SECURE = frozenset({"wss", "https"})
#: Only a proxy looks at a path, to tell one link from another.
_WITH_PATH = frozenset({"ws", "wss"})


class Address(NamedTuple):
    """Where a peer is reached; ``secure`` by TLS."""

    host: str
    port: int
    secure: bool = False
    path: str = "/"

    @property
    def authority(self) -> str:
        """Host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """As a WebSocket is dialled."""
        return f"{'wss' if self.secure else 'ws'}://{self.authority}{self.path}"

    def __str__(self) -> str:
        """For people."""
        return self.url if self.secure else self.authority


def read_address(text: str, default_port: int, secure_port: int = HTTPS_PORT) -> Address:
    """``host[:port]``, or the same behind a scheme: ``wss://`` and ``https://`` mean TLS, any other nothing. A path may follow
    ``ws://`` and ``wss://``. ValueError where it is no address."""
    scheme, separator, rest = text.rpartition("://")
    path = ""
    if separator and scheme in _WITH_PATH:
        rest, slash, path = rest.partition("/")
        path = slash + path
    rest = rest.removesuffix("/")
    if rest.startswith("["):
        host, _, tail = rest[1:].partition("]")
        port = tail.removeprefix(":")
    elif rest.count(":") > 1:
        host, port = rest, ""
    else:
        host, _, port = rest.partition(":")
    sound = is_host(host) and re.fullmatch(r"(/[\w.~/-]*)?", path, re.ASCII) is not None
    if not sound or (port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
        raise ValueError(f"{text!r} is not an address: give host or host:port, or wss://host[:port][/path] for TLS")
    secure = scheme in _SECURE
    return Address(host, int(port or (secure_port if secure else default_port)), secure, path or "/")


def is_host(host: str) -> bool:
    """Whether it is a name or an address, without a look at whether there is such a machine."""
    try:
        if ":" in host:
            ipaddress.IPv6Address(host)
        else:
            host.encode("idna")  # as the socket does it
    except ValueError:
        return False
    return ":" in host or re.fullmatch(r"[\w.-]+", host) is not None
