"""What this machine has to offer, and how busy it is."""

from __future__ import annotations

import os

import psutil

from taskyard.protocol.messages import Usage
from taskyard.settings import ExecutorSettings
from taskyard.task.model import SLOTS, thousandths


def capacity(settings: ExecutorSettings) -> dict[str, int]:
    """What the executor offers, in thousandths (of a CPU, of a byte): what the settings say, else what the machine has."""
    amounts = {
        **settings.resources,
        SLOTS: settings.slots,
        "cpus": settings.cpus,
        "memory": settings.memory or psutil.virtual_memory().total,
        "gpus": settings.gpus,
    }
    return {name: thousandths(amount) for name, amount in amounts.items() if amount > 0}


def usage() -> Usage:
    """The machine's load since the last call."""
    memory = psutil.virtual_memory()
    return Usage(
        cpu_percent=psutil.cpu_percent(interval=None),
        memory_used=memory.total - memory.available,
        memory_total=memory.total,
        load=os.getloadavg()[0],
    )
