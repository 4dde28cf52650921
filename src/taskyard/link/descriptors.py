"""Room for connections among the file descriptors of this process."""

from __future__ import annotations

import resource

SHARE = 4
"""Connections may take one in so many descriptors, then the limit is raised."""


def make_room(connections: int) -> int:
    """Raise the soft limit of descriptors as far as the hard one allows, where so many connections are a quarter of it; gives
    the soft limit. Only then, since child processes inherit it, and some programs count on a small one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or connections < soft // SHARE:
        return soft
    wanted = 2 * SHARE * max(connections, soft // SHARE)
    raised = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if raised > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    return max(raised, soft)
