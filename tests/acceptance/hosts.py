"""Several hosts on one machine: network namespaces on a bridge of their own. Needs root and iproute2."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Self

NETWORK = "10.77.0"


class Hosts:
    """Hosts by name, each with one address; the bridge between them lies in a namespace too."""

    def __init__(self, names: Sequence[str]) -> None:
        self._mark = f"ty{os.getpid()}"
        self.addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, start=1)}

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()

    def _build(self) -> None:
        switch = self.namespace("switch")
        self._add(switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for number, (name, address) in enumerate(self.addresses.items(), start=1):
            host = self.namespace(name)
            self._add(host)
            _ip("-n", switch, "link", "add", f"port{number}", "type", "veth", "peer", "name", "net", "netns", host)
            _ip("-n", switch, "link", "set", f"port{number}", "master", "bridge", "up")
            _ip("-n", host, "address", "add", f"{address}/24", "dev", "net")
            _ip("-n", host, "link", "set", "net", "up")
            _ip("-n", host, "link", "set", "lo", "up")

    def _remove(self) -> None:
        for name in (*self.addresses, "switch"):
            subprocess.run(["ip", "netns", "delete", self.namespace(name)], capture_output=True, check=False)

    def on(self, name: str) -> list[str]:
        """What to put before a command to run it on that host."""
        return ["ip", "netns", "exec", self.namespace(name)]

    def namespace(self, name: str) -> str:
        """The network namespace of that host, as `ip netns` calls it."""
        return f"{self._mark}-{name}"

    @staticmethod
    def _add(namespace: str) -> None:
        _ip("netns", "add", namespace)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, check=False)
    assert done.returncode == 0, (arguments, done.stderr.decode())
