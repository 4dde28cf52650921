"""What an executor may offer: labels, and amounts of resources. Pure. Kept to by its settings, and asked for by the manager,
since an executor is another program, perhaps a broken one."""

from __future__ import annotations

from collections.abc import Mapping

#: Labels, and further resources, of one executor or task; characters of a name or a label's value.
MOST_LABELS = 64
LONGEST_LABEL = 100
#: Of any resource, a byte of memory among them. Its thousandths fit into 64 bits.
LARGEST_AMOUNT = 1e15
SMALLEST_AMOUNT = 0.001
#: Quantities that every executor has, each with a setting of its own.
BUILT_IN = ("slots", "cpus", "memory", "gpus")
MOST_RESOURCES = MOST_LABELS + len(BUILT_IN)


def flaw_of_labels(labels: Mapping[str, str]) -> str:
    """What is wrong with an executor's labels, in a sentence; empty where nothing is."""
    if len(labels) > MOST_LABELS:
        return f"there are {len(labels)} labels: at most {MOST_LABELS} are allowed"
    for name, value in labels.items():
        if flaw := _flaw_of_text(name):
            return f"the label {_shown(name)}: its name {flaw}"
        if value and (flaw := _flaw_of_text(value)):
            return f"the label {_shown(name)}: its value {flaw}"
    return ""


def flaw_of_amounts(amounts: Mapping[str, float]) -> str:
    """What is wrong with the amounts that an executor offers, in a sentence; empty where nothing is."""
    if len(amounts) > MOST_RESOURCES:
        return f"there are {len(amounts)} resources: at most {MOST_RESOURCES} are allowed"
    for name, amount in amounts.items():
        if flaw := _flaw_of_text(name):
            return f"the resource {_shown(name)}: its name {flaw}"
        if amount != 0 and not SMALLEST_AMOUNT <= amount <= LARGEST_AMOUNT:  # true of what is no number, too
            given = f"{float(amount):g}" if abs(amount) < 1e100 else "such an amount"
            return (
                f"the resource {name}: {given} cannot be offered: give {SMALLEST_AMOUNT:g} to {LARGEST_AMOUNT:g}, or 0"
            )
    return ""


def _flaw_of_text(text: str) -> str:
    if not 1 <= len(text) <= LONGEST_LABEL:
        return f"has {len(text)} characters: 1 to {LONGEST_LABEL} are allowed"
    return "" if text.isprintable() else "holds characters that cannot be printed"


def _shown(text: str) -> str:
    return repr(text if len(text) <= LONGEST_LABEL else f"{text[:20]}...")
