"""`taskyard executors`, `drain`, `undrain` and `forget`."""

from __future__ import annotations

from taskyard.cli.options import DEFAULT_REMOTE, Remote
from taskyard.cli.tasks import for_each


def executors(*, remote: Remote = DEFAULT_REMOTE) -> None:
    """List the executors: what they offer, use, run and enforce, and which are cordoned and why."""
    from taskyard.cli import show

    with remote.client() as client:
        found = client.executors()
    if remote.json:
        show.json(found)
    else:
        show.executors(found)


def drain(*executors: str, remote: Remote = DEFAULT_REMOTE) -> int:
    """Give executors no new tasks; what has not ended after their drain_grace is put back, uncharged.

    Parameters
    ----------
    executors
        Names, or ids, or their beginnings as `executors` shows them.
    """
    return _set_draining(executors, True, remote)


def undrain(*executors: str, remote: Remote = DEFAULT_REMOTE) -> int:
    """Give executors tasks again, also those that are cordoned.

    Parameters
    ----------
    executors
        Names, or ids, or their beginnings as `executors` shows them.
    """
    return _set_draining(executors, False, remote)


def forget(*executors: str, remote: Remote = DEFAULT_REMOTE) -> int:
    """Forget executors that are away and run nothing. One that comes back is listed again.

    Parameters
    ----------
    executors
        Names, or ids, or their beginnings as `executors` shows them.
    """
    from taskyard.cli import show

    with remote.client() as client:

        def forget_one(name: str) -> None:
            client.forget(name)
            if remote.json:
                show.json_line({"forgotten": name})

        return for_each(executors, forget_one)


def _set_draining(names: tuple[str, ...], draining: bool, remote: Remote) -> int:
    from taskyard.cli import show

    with remote.client() as client:

        def change(name: str) -> None:
            executor = client.drain(name) if draining else client.undrain(name)
            if remote.json:
                show.json_line(executor)

        return for_each(names, change)
