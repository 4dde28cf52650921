"""`taskyard ready`: whether a component of this machine does its work, for health checks of containers and services."""

from __future__ import annotations

import http.client
import time
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from taskyard.cli.options import configured
from taskyard.cli.say import say
from taskyard.cli.up import reachable
from taskyard.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from pathlib import Path


def ready(component: Annotated[Literal["manager", "api", "executor"], Parameter(name="COMPONENT")], /) -> None:
    """Say whether a component of this machine is ready; else the exit code is 3.

    It is looked for where its settings say, so in a container it needs none. A manager is ready when its store is open and it
    listens, an API Server when it reaches its manager, an executor while the manager answers it: `ready_file` must be set.

    Parameters
    ----------
    component
        Which one.
    """
    from taskyard.settings import ApiSettings, ExecutorSettings, ManagerSettings

    match component:
        case "manager":
            manager = configured(ManagerSettings)
            for port in (manager.api_port, manager.executor_port):
                _ask(manager.host, port)
        case "api":
            api = configured(ApiSettings)
            _ask(api.host, api.port)
        case "executor":
            executor = configured(ExecutorSettings)
            if executor.ready_file is None:
                raise InvalidInput("ready_file is not set, so nobody knows: set TASKYARD_READY_FILE for the executor")
            _look(executor.ready_file)
    say("ready")


#: Seconds in which a component must have answered: the API Server itself waits for its manager.
_TIMEOUT = 4.0
#: Seconds for which what the manager has said last counts: several of the heartbeats that it asks for by default.
_FRESH = 45.0


def _ask(host: str, port: int) -> None:
    """``Unavailable`` where it does not answer ``GET /ready`` with 200."""
    connection = http.client.HTTPConnection(reachable(host), port, timeout=_TIMEOUT)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        said = answer.read(1000).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"nothing answers on port {port} of {reachable(host)}: {error}") from error
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise Unavailable(f"port {port} of {reachable(host)} answers {answer.status}: {said}")


def _look(file: Path) -> None:
    """``Unavailable`` where the manager has not answered the executor lately."""
    try:
        age = time.time() - file.stat().st_mtime
    except FileNotFoundError as error:
        raise Unavailable("the executor has no manager: its log says why") from error
    if age > _FRESH:
        raise Unavailable(f"the manager has not answered the executor for {age:.0f} seconds: its log may say why")
