"""`taskyard manager`, `taskyard api` and `taskyard executor`: each component as a process of its own.

Options beat the environment; every setting that has no option is read from there (``docs/settings.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from taskyard.cli.options import DEFAULT_LOGGING, Logging, configured, numbers, pairs
from taskyard.errors import InvalidInput

if TYPE_CHECKING:
    import asyncio

DataDir = Annotated[Path | None, Parameter(help="Where everything is kept; also TASKYARD_DATA_DIR.")]
RequireToken = Annotated[bool | None, Parameter(help="Ask for a token on loopback too; also TASKYARD_REQUIRE_TOKEN.")]


def manager(
    *,
    host: str | None = None,
    api_port: int | None = None,
    executor_port: int | None = None,
    prefetch: int | None = None,
    data_dir: DataDir = None,
    require_token: RequireToken = None,
    logging: Logging = DEFAULT_LOGGING,
) -> None:
    """Start a Service Manager.

    Parameters
    ----------
    host
        Address to listen on; also HOST. [default: 127.0.0.1]
    api_port
        Port for API Servers; also PORT. [default: 5555]
    executor_port
        Port for executors. [default: 5556]
    prefetch
        Attempts that an executor may hold beyond its slots; also TASKYARD_PREFETCH. [default: 0]
    """
    from taskyard import log
    from taskyard.cli.serving import make_tokens, serve_until_signal
    from taskyard.manager.service import Manager
    from taskyard.settings import ManagerSettings
    from taskyard.tokens import TokenGate

    settings = configured(
        ManagerSettings,
        host=host,
        api_port=api_port,
        executor_port=executor_port,
        prefetch=prefetch,
        data_dir=data_dir,
        require_token=require_token,
        log_level=logging.log_level,
        log_format=logging.log_format,
    )
    log.configure("manager", settings.log_level, settings.log_format)
    make_tokens(settings, settings.host)

    async def serve(stop: asyncio.Event) -> None:
        async with Manager(settings, TokenGate(settings.data_dir)).running():
            await stop.wait()

    serve_until_signal(serve)


def api(
    *,
    host: str | None = None,
    port: Annotated[int | None, Parameter(name=["--port", "-p"])] = None,
    manager: Annotated[str | None, Parameter(name=["--manager", "-m"])] = None,
    data_dir: DataDir = None,
    require_token: RequireToken = None,
    logging: Logging = DEFAULT_LOGGING,
) -> None:
    """Start an API Server.

    Parameters
    ----------
    host
        Address to listen on; also HOST. [default: 127.0.0.1]
    port
        HTTP port; also PORT. [default: 5001]
    manager
        The manager's HOST[:PORT] for API Servers, or wss://HOST[:PORT][/PATH]; also SOCKET_ADDRESS. [default: 127.0.0.1:5555]
    """
    from taskyard import log
    from taskyard.api.connector import LinkConnector
    from taskyard.api.service import serve
    from taskyard.cli.serving import make_tokens, serve_until_signal, user_token
    from taskyard.settings import ApiSettings
    from taskyard.tokens import TokenGate

    settings = configured(
        ApiSettings,
        host=host,
        port=port,
        socket_address=manager,
        data_dir=data_dir,
        require_token=require_token,
        log_level=logging.log_level,
        log_format=logging.log_format,
    )
    log.configure("api", settings.log_level, settings.log_format)
    if settings.needs_token(settings.reached_at):
        make_tokens(settings, settings.reached_at)

    async def serve_api(stop: asyncio.Event) -> None:
        async with LinkConnector(settings, user_token(settings.data_dir)) as connector:
            await serve(settings, connector, TokenGate(settings.data_dir), stop)

    serve_until_signal(serve_api)


def executor(
    *,
    address: Annotated[str | None, Parameter(name=["--address", "-a"])] = None,
    port: Annotated[int | None, Parameter(name=["--port", "-p"])] = None,
    slots: Annotated[int | None, Parameter(name=["--slots", "-s"])] = None,
    name: Annotated[str | None, Parameter(name=["--name", "-n"])] = None,
    label: Annotated[Sequence[str], Parameter(name=["--label", "-l"])] = (),
    cpus: float | None = None,
    memory: int | None = None,
    gpus: float | None = None,
    resource: Annotated[Sequence[str], Parameter(name=["--resource", "-r"])] = (),
    python: str | None = None,
    spares: int | None = None,
    preload: str | None = None,
    data_dir: DataDir = None,
    parent_pid: Annotated[int | None, Parameter(show=False)] = None,
    logging: Logging = DEFAULT_LOGGING,
) -> None:
    """Start an executor. Several may run on one machine.

    Parameters
    ----------
    address
        Host of the manager, HOST:PORT, or wss://HOST[:PORT][/PATH]; also TASKYARD_MANAGER_HOST. [default: 127.0.0.1]
    port
        Its port for executors; also TASKYARD_MANAGER_PORT. [default: 5556]
    slots
        Tasks at once. [default: 1]
    name
        Name in listings; else the host's name and a number.
    label
        A label that tasks can ask for, KEY=VALUE; may be repeated.
    cpus
        CPUs to offer; else all of the machine.
    memory
        Bytes of memory to offer; else what the machine has.
    gpus
        GPUs to offer.
    resource
        A further named quantity to offer, NAME=AMOUNT; may be repeated.
    python
        Interpreter that runs the scripts; else our own.
    spares
        Warm interpreters to keep ready; 0 starts a fresh one for each attempt; else one more than slots, at most 9.
    preload
        Modules that warm interpreters import ahead: NAME,NAME.
    """
    from taskyard import log
    from taskyard.cli.serving import die_with, executor_token, serve_until_signal

    if parent_pid is not None:
        die_with(parent_pid)

    from taskyard.addresses import read_address
    from taskyard.executor.service import run
    from taskyard.settings import MANAGER_EXECUTOR_PORT, ExecutorSettings

    if address is not None and port is None and "://" not in address:
        try:
            address, port = read_address(address, MANAGER_EXECUTOR_PORT)[:2]
        except ValueError as error:
            raise InvalidInput(f"--address: {error}") from error
    settings = configured(
        ExecutorSettings,
        manager_host=address,
        manager_port=port,
        slots=slots,
        name=name,
        labels=pairs(label, "--label") or None,
        cpus=cpus,
        memory=memory,
        gpus=gpus,
        resources=numbers(resource, "--resource") or None,
        python=python,
        spares=spares,
        preload=preload,
        data_dir=data_dir,
        log_level=logging.log_level,
        log_format=logging.log_format,
    )
    log.configure("executor", settings.log_level, settings.log_format)

    async def serve(stop: asyncio.Event) -> None:
        await run(settings, executor_token(settings.data_dir), stop)

    serve_until_signal(serve)
