"""Whether what an executor says of itself can be listed and reckoned with. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from taskyard.offers import flaw_of_amounts, flaw_of_labels
from taskyard.protocol.messages import MOST_ENVIRONMENTS, Hello

#: Characters of a name, an id or a digest, and of all that it says of its software and its means.
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
    return flaw_of_labels(hello.labels) or flaw_of_amounts(offered) or flaw_of_environments(hello.environments)


def flaw_of_environments(digests: Sequence[str]) -> str:
    """The same of the environments that it says it has."""
    if len(digests) > MOST_ENVIRONMENTS:
        return f"it names {len(digests)} environments: at most {MOST_ENVIRONMENTS} are allowed"
    if any(not 0 < len(digest) <= LONGEST_NAME for digest in digests):
        return f"what it names is no environment: a digest has 1 to {LONGEST_NAME} characters"
    return ""
