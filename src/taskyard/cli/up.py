"""`taskyard up`: a whole Taskyard on one machine. Manager and API Server share a process; executors are its children."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from taskyard.cli.options import DEFAULT_LOGGING, Logging, configured
from taskyard.cli.servers import DataDir, RequireToken

if TYPE_CHECKING:
    import asyncio


def up(
    *,
    executors: Annotated[int, Parameter(name=["--executors", "-e"], validator=validators.Number(gte=0, lte=1000))] = 2,
    slots: Annotated[int, Parameter(name=["--slots", "-s"])] = 1,
    host: str | None = None,
    port: Annotated[int | None, Parameter(name=["--port", "-p"])] = None,
    executor_port: int | None = None,
    python: str | None = None,
    spares: int | None = None,
    preload: str | None = None,
    data_dir: DataDir = None,
    require_token: RequireToken = None,
    logging: Logging = DEFAULT_LOGGING,
) -> None:
    """Start manager, API Server and executors on this machine.

    Ends with Ctrl-C or SIGTERM, in order; a second one ends it at once. An executor that dies is started again.

    Parameters
    ----------
    executors
        How many executors to start; more can join from other machines.
    slots
        Tasks at once on each.
    host
        Address to listen on; also HOST. Beyond loopback everything needs a token. [default: 127.0.0.1]
    port
        HTTP port of the API; also PORT. [default: 5001]
    executor_port
        Port for executors; 0 takes a free one. [default: 5556]
    python
        Interpreter that runs the scripts; else our own.
    spares
        Warm interpreters that each keeps ready; 0 starts a fresh one for each attempt; else one more than slots, at most 9.
    preload
        Modules that warm interpreters import ahead: NAME,NAME.
    """
    from taskyard import log
    from taskyard.api.service import serve
    from taskyard.cli.children import ChildOptions, keep_executor
    from taskyard.cli.serving import make_tokens, serve_until_signal
    from taskyard.executor.interpreters import interpreter_of
    from taskyard.manager.service import Manager
    from taskyard.settings import ApiSettings, ExecutorSettings, ManagerSettings
    from taskyard.tokens import TokenGate

    shared = {
        "host": host,
        "data_dir": data_dir,
        "require_token": require_token,
        "log_level": logging.log_level,
        "log_format": logging.log_format,
    }
    manager_settings = configured(ManagerSettings, executor_port=executor_port, **shared)
    api_settings = configured(ApiSettings, port=port, **shared)
    executor_settings = configured(
        ExecutorSettings, slots=slots, python=python, spares=spares, preload=preload, data_dir=data_dir
    )
    interpreter_of(executor_settings)  # that there is none is said here, once
    log.configure("up", api_settings.log_level, api_settings.log_format)
    make_tokens(manager_settings, manager_settings.host)
    gate = TokenGate(manager_settings.data_dir)

    async def serve_all(stop: asyncio.Event) -> None:
        import asyncio

        async with Manager(manager_settings, gate).running(listen_for_apis=False) as manager:
            options = ChildOptions(
                host=reachable(manager_settings.host),
                port=manager.executor_port,
                slots=executor_settings.slots,
                python=executor_settings.python,
                spares=executor_settings.most_spares,
                preload=executor_settings.preload,
                data_dir=manager_settings.data_dir,
                log_level=manager_settings.log_level,
                log_format=manager_settings.log_format,
            )
            grace = executor_settings.drain_grace + manager_settings.shutdown_grace
            async with asyncio.TaskGroup() as group:
                for number in range(1, executors + 1):
                    name = f"local-{number}"
                    group.create_task(keep_executor(options.command(name), name, stop, grace))
                await serve(api_settings, manager.handler, gate, stop)

    serve_until_signal(serve_all)


def reachable(host: str) -> str:
    """The address at which this machine reaches a socket that is bound to ``host``."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound
