"""Frozen settings of every component: the only reader of environment variables.

Each setting is read from ``TASKYARD_<NAME>``; ``HOST``, ``PORT`` and ``SOCKET_ADDRESS`` are honoured too, as the contract
wants. What the command line gives beats the environment. ``docs/settings.md`` lists them all, and a test keeps it so.
"""

from __future__ import annotations

import ipaddress
import math
import os
import sys
from pathlib import Path
from typing import Any, Self

from pydantic import AliasChoices, Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from taskyard.addresses import HTTPS_PORT, Address, is_host, read_address
from taskyard.explanations import faults
from taskyard.offers import BUILT_IN, flaw_of_amounts, flaw_of_labels

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
API_PORT, MANAGER_API_PORT, MANAGER_EXECUTOR_PORT = 5001, 5555, 5556
#: Seconds between an executor's deadline and the end of its lease, in which it kills its attempts; half of a deadline that is
#: shorter than two of them.
ROOM_TO_KILL = 2.0
LOG_LEVELS = "^(debug|info|warning|error)$"
LOG_FORMATS = "^(human|json|auto)$"
#: Warm interpreters that an executor keeps ready, at most, unless it is told how many.
DEFAULT_SPARES = 9
ISOLATIONS = "^(auto|always|never)$"


def default_data_dir() -> Path:
    """``$XDG_DATA_HOME/taskyard``, by default below the home folder."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "taskyard"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a socket that is bound to ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Settings(BaseSettings):
    """What every component has. ``log_format`` is ``human``, ``json`` or ``auto``: human on a terminal."""

    model_config = SettingsConfigDict(
        env_prefix="TASKYARD_", frozen=True, extra="ignore", populate_by_name=True, allow_inf_nan=False
    )

    data_dir: Path = Field(default_factory=default_data_dir, description="where everything is kept")
    log_level: str = Field("info", pattern=LOG_LEVELS, description="debug, info, warning or error")
    log_format: str = Field("auto", pattern=LOG_FORMATS, description="human, json, or auto: human on a terminal")
    require_token: bool = Field(False, description="ask for a token on loopback too")

    def needs_token(self, host: str) -> bool:
        """Whether everybody who comes to a server that is bound to ``host`` has to show a token."""
        return self.require_token or not is_loopback(host)

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("host", "published_host", check_fields=False)
    @classmethod
    def _is_host(cls, value: str) -> str:
        if value and not is_host(value):  # an empty one listens everywhere
            raise ValueError(f"{value!r} is no host: give a name or an address")
        return value


class ManagerSettings(Settings):
    """The Service Manager's."""

    host: str = Field(
        "127.0.0.1",
        validation_alias=AliasChoices("TASKYARD_HOST", "HOST"),
        description="address to listen on, for both links",
    )
    api_port: int = Field(
        MANAGER_API_PORT,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("TASKYARD_MANAGER_API_PORT", "PORT"),
        description="port for API Servers; 0 takes a free one",
    )
    executor_port: int = Field(
        MANAGER_EXECUTOR_PORT, ge=0, le=65535, description="port for executors; 0 takes a free one"
    )
    heartbeat_interval: float = Field(10.0, gt=0, le=3600, description="seconds between an executor's heartbeats")
    executor_deadline: float = Field(
        30.0, gt=0, description="seconds after which an executor that hears nothing from the manager kills its attempts"
    )
    lease: float = Field(
        45.0, gt=0, description="seconds after which the manager gives a silent executor's attempts up"
    )
    max_waiting: int = Field(1_000_000, gt=0, description="tasks that may wait; a submit beyond gets 503")
    max_executors: int = Field(20_000, gt=0, description="executors that may be connected")
    max_wait: float = Field(60.0, gt=0, description="longest long poll, in seconds")
    max_executor_frame: int = Field(8 * MIB, ge=MIB, description="largest frame of an executor, in bytes")
    max_api_frame: int = Field(64 * MIB, ge=MIB, description="largest frame of an API Server, in bytes")
    max_api_calls: int = Field(1024, gt=0, description="calls of one API Server that may be under way")
    handshake_timeout: float = Field(10.0, gt=0, description="seconds in which a peer must have introduced itself")
    commit_bytes: int = Field(4 * MIB, gt=0, description="bytes of output in one commit")
    retention: float = Field(30 * 86400.0, gt=0, description="seconds for which an ended task is kept")
    cordon_after: int = Field(
        3, gt=0, description="tasks in a row whose attempts an executor cannot start before it gets no more for a while"
    )
    cordon_pause: float = Field(
        60.0, gt=0, description="seconds of that while; doubled each time, up to an hour, until an attempt starts"
    )
    prefetch: int = Field(
        0,
        ge=0,
        le=100,
        description="attempts that an executor may hold beyond its slots, to begin each when one is free",
    )
    key_retention: float = Field(86400.0, gt=0, description="seconds for which an idempotency key is kept")
    shutdown_grace: float = Field(10.0, gt=0, description="seconds for an orderly end")

    @property
    def store_file(self) -> Path:
        """Where the store is."""
        return self.data_dir / "manager" / "store.db"

    @model_validator(mode="after")
    def _lease_is_longest(self) -> Self:
        if not self.heartbeat_interval < self.executor_deadline < self.lease < math.inf:
            raise ValueError("heartbeat_interval < executor_deadline < lease must hold")
        room = min(ROOM_TO_KILL, self.executor_deadline / 2)
        if self.lease - self.executor_deadline < room:
            raise ValueError(
                f"lease must be {room:g} s longer than executor_deadline at least: executors need them to kill"
            )
        return self


class ApiSettings(Settings):
    """The API Server's."""

    host: str = Field(
        "127.0.0.1",
        validation_alias=AliasChoices("TASKYARD_HOST", "HOST"),
        description="address to listen on",
    )
    port: int = Field(
        API_PORT,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("TASKYARD_PORT", "PORT"),
        description="HTTP port; 0 takes a free one",
    )
    socket_address: str = Field(
        f"127.0.0.1:{MANAGER_API_PORT}",
        validation_alias=AliasChoices("TASKYARD_SOCKET_ADDRESS", "SOCKET_ADDRESS"),
        description="the manager as the API Server reaches it: host[:port], or wss://host[:port][/path] by TLS",
    )
    published_host: str = Field(
        "",
        description="address of the machine at which a container's port is published: it decides in place of `host` "
        "whether a token is needed",
    )
    advertise: str = Field(
        "", description="[https://]host[:port] at which executors reach this API Server; empty: found out"
    )
    allowed_hosts: tuple[str, ...] = Field((), description="further Host names that may be used without a token")
    max_upload: int = Field(8 * GIB, gt=0, description="bytes of one request's files")
    max_body: int = Field(64 * MIB, gt=0, description="bytes of a request without files (a batch, for example)")
    max_files: int = Field(2000, gt=0, description="files of one task, a zip's members among them")
    max_zip_ratio: float = Field(200.0, gt=1, description="a zip's unpacked size over its packed size")
    max_inline_file: int = Field(
        64 * KIB, ge=0, description="files up to this size travel inside the message, in bytes"
    )
    max_inline_task: int = Field(256 * KIB, ge=0, description="files of one task that travel so, in bytes together")
    max_batch: int = Field(10_000, gt=0, description="tasks of one batch")
    max_wait: float = Field(60.0, gt=0, description="longest long poll, in seconds")
    max_page: int = Field(1000, gt=0, description="tasks on one page")
    request_timeout: float = Field(30.0, gt=0, description="seconds that the manager may take to answer")
    reconnect_timeout: float = Field(
        5.0, gt=0, description="seconds for which requests wait for a manager that is away"
    )
    header_timeout: float = Field(10.0, gt=0, description="seconds in which a request's headers must have come")
    body_timeout: float = Field(
        10.0, gt=0, description="seconds for which an upload may stall, or fall behind 1024 bytes a second, in all"
    )
    write_timeout: float = Field(
        30.0, gt=0, description="seconds in which a client takes nothing of its answer, after which it is given up"
    )
    max_connections: int = Field(1000, gt=0, description="HTTP connections at once")
    shutdown_grace: float = Field(10.0, gt=0, description="seconds for an orderly end")

    @field_validator("socket_address", "advertise")
    @classmethod
    def _is_address(cls, value: str, info: ValidationInfo) -> str:
        if value or info.field_name == "socket_address":
            read_address(value, MANAGER_API_PORT)
        return value

    @property
    def reached_at(self) -> str:
        """The address by which it is decided who can reach this server at all."""
        return self.published_host or self.host

    @property
    def manager(self) -> Address:
        """Where the manager is reached."""
        return read_address(self.socket_address, MANAGER_API_PORT)


class ExecutorSettings(Settings):
    """The Executor Node's."""

    manager_host: str = Field(
        "127.0.0.1", description="host of the manager, or wss://host[:port][/path] where it is reached by TLS"
    )
    manager_port: int = Field(MANAGER_EXECUTOR_PORT, ge=1, le=65535, description="its port for executors")
    name: str = Field("", max_length=100, description="name in listings; empty: the host's name and a number")
    slots: int = Field(1, ge=1, le=1000, description="attempts at once")
    cpus: float = Field(default_factory=lambda: float(os.cpu_count() or 1), gt=0, description="CPUs to offer")
    memory: int = Field(0, ge=0, description="bytes of memory to offer; 0: what the machine has")
    gpus: float = Field(0.0, ge=0, description="GPUs to offer")
    resources: dict[str, float] = Field(
        default_factory=dict, description="further named quantities to offer, not `slots`, `cpus`, `memory` or `gpus`"
    )
    labels: dict[str, str] = Field(default_factory=dict, description="labels that tasks can ask for")
    python: str = Field(default_factory=lambda: sys.executable, description="interpreter that runs the scripts")
    spares: int = Field(
        -1,
        ge=-1,
        le=1000,
        description="warm interpreters kept ready; 0: every attempt starts a fresh one; -1: slots + 1, at most 9",
    )
    preload: str = Field("", description="modules that warm interpreters import ahead, separated by commas")
    work_dir: Path | None = Field(
        None, description="where attempts have their folders; empty: a place that their users can reach is chosen"
    )
    isolation: str = Field(
        "auto", pattern=ISOLATIONS, description="a user of its own for each slot: auto (where it can), always, never"
    )
    first_uid: int = Field(
        57_000, ge=1, description="the first of 1001 user ids: slots may get them, and one kills the others"
    )
    max_output: int = Field(16 * MIB, gt=0, description="bytes kept of each of an attempt's two streams")
    max_spool: int = Field(1 * GIB, gt=0, description="bytes of output kept on disk while the manager is away")
    max_artifacts: int = Field(1000, gt=0, description="files of one attempt's output folder")
    max_artifact_bytes: int = Field(8 * GIB, gt=0, description="bytes of one attempt's output folder")
    max_cache: int = Field(4 * GIB, ge=0, description="bytes of downloaded files kept for the next attempt")
    max_environments: int = Field(
        10 * GIB, ge=0, description="bytes of environments kept for the next task that asks for the same packages"
    )
    build_timeout: float = Field(
        600.0, gt=0, description="seconds that each of the two steps of building an environment may take"
    )
    drain_grace: float = Field(
        10.0, ge=0, description="seconds that running attempts get when the executor is drained or ended"
    )
    ready_file: Path | None = Field(
        None,
        description="file that is there, and renewed with each heartbeat, while the manager answers; for health checks",
    )
    reconnect_longest: float = Field(5.0, gt=0, description="longest pause between two tries to reach the manager")
    download_timeout: float = Field(60.0, gt=0, description="seconds without a byte after which a download is given up")

    @field_validator("manager_host")
    @classmethod
    def _is_manager(cls, value: str) -> str:
        if "://" in value:
            read_address(value, MANAGER_EXECUTOR_PORT)
        elif not is_host(value):
            raise ValueError(f"{value!r} is no host: give a name or an address")
        return value

    @field_validator("labels")
    @classmethod
    def _labels_are_sound(cls, value: dict[str, str]) -> dict[str, str]:
        if flaw := flaw_of_labels(value):
            raise ValueError(flaw)
        return value

    @field_validator("cpus", "memory", "gpus", "resources")
    @classmethod
    def _amounts_are_sound(cls, value: Any, info: ValidationInfo) -> Any:
        amounts = value if isinstance(value, dict) else {str(info.field_name): value}
        if isinstance(value, dict) and (taken := [name for name in BUILT_IN if name in value]):
            raise ValueError(f"{taken[0]} is no further quantity: it has a setting of its own, {taken[0]}")
        if flaw := flaw_of_amounts(amounts):
            raise ValueError(flaw)
        return value

    @property
    def manager(self) -> Address:
        """Where the manager is reached."""
        if "://" not in self.manager_host:
            return Address(self.manager_host, self.manager_port)
        secure_port = self.manager_port if "manager_port" in self.model_fields_set else HTTPS_PORT
        return read_address(self.manager_host, self.manager_port, secure_port)

    @property
    def most_spares(self) -> int:
        """Warm interpreters that are kept ready."""
        return min(self.slots + 1, DEFAULT_SPARES) if self.spares < 0 else self.spares

    @property
    def preloaded(self) -> tuple[str, ...]:
        """The modules that are imported ahead."""
        return tuple(name.strip() for name in self.preload.split(",") if name.strip())


class ClientSettings(Settings):
    """The command line's and the client's."""

    url: str = Field(f"http://127.0.0.1:{API_PORT}", description="the API Server")
    token: str = Field(
        "", repr=False, description="the users' token; empty: that of the data directory, if it is there"
    )
    timeout: float = Field(30.0, gt=0, description="seconds for a request that does not wait")


def explain(error: Exception) -> str:
    """One sentence for each setting that is wrong, for people."""
    details: list[dict[str, Any]] = getattr(error, "errors", lambda **_: [])(include_url=False)
    return "; ".join(
        f"{'.'.join(str(part) for part in place) or 'settings'}: {sentence}" for place, sentence in faults(details)
    )
