"""Whether what an executor says of itself can be listed and reckoned with. Pure."""

from __future__ import annotations

from taskyard.offers import flaw_of_amounts, flaw_of_labels
from taskyard.protocol.messages import Hello

#: Characters of a name or an id, and of all that it says of its software and its means.
LONGEST_NAME = 100
LONGEST_DESCRIPTION = 20_000


def flaw(hello: Hello) -> str:
    """What is wrong with it, in a sentence; empty where nothing is."""
    for what, text in (("executor_id", hello.executor_id), ("boot_id", hello.boot_id), ("name", hello.name)):
        if len(text) > LONGEST_NAME:
            return f"its {what} has {len(text)} characters: at most {LONGEST_NAME} are allowed"
    means = (*hello.confinement, *hello.enforces, *hello.enforces.values())
    if (length := len(hello.software) + sum(map(len, means))) > LONGEST_DESCRIPTION:
        return f"what it says of itself has {length} characters: at most {LONGEST_DESCRIPTION} are allowed"
    offered = {name: amount / 1000 for name, amount in hello.capacity.items()}
    return flaw_of_labels(hello.labels) or flaw_of_amounts(offered)
