"""When a warm start would be seen by the script: then it gets a fresh interpreter. Pure.

A zygote was started before anybody knew the task. What an interpreter makes of its own command line and of some variables when
it starts, it cannot make up for; and what it has imported ahead hides the script's own modules of that name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

#: Variables that an interpreter, the C library or a numeric library reads once, when it starts.
EARLY_PREFIXES = ("PYTHON", "LD_", "LC_", "OMP_", "OPENBLAS_", "GOTO_", "MKL_", "BLIS_", "KMP_", "NUMEXPR_", "MALLOC_")
EARLY_NAMES = frozenset({"LANG", "LANGUAGE", "TZ", "GLIBC_TUNABLES", "VECLIB_MAXIMUM_THREADS"})


def why_not(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    zygotes: Mapping[str, str],
    beside: Collection[str],
    loaded: Collection[str],
) -> str:
    """Why these arguments of ``python`` cannot be run warm, in a few words; empty where they can. ``zygotes`` is the zygote's
    environment, ``beside`` the names of the files and folders beside the script, ``loaded`` the top names of the modules that
    the zygote has and a bare interpreter has not."""
    return _objection_to(arguments) or _early(environment, zygotes) or _shadow(beside, loaded)


def _objection_to(arguments: Sequence[str]) -> str:
    first = arguments[0] if arguments else ""
    if first in ("-m", "-c"):
        return "" if len(arguments) > 1 else f"{first} without what it is for"
    if first.startswith("-") or not first:
        return "options of the interpreter"
    return "" if first.endswith(".py") else "no file that ends in .py"


def _early(environment: Mapping[str, str], zygotes: Mapping[str, str]) -> str:
    for name in environment.keys() | zygotes.keys():
        is_early = name.startswith(EARLY_PREFIXES) or name in EARLY_NAMES
        if is_early and environment.get(name) != zygotes.get(name):
            return f"{name} is read when an interpreter starts"
    return ""


def _shadow(beside: Collection[str], loaded: Collection[str]) -> str:
    names = {name.partition(".")[0] for name in beside}
    shadowed = sorted(names.intersection(loaded))
    return f"{shadowed[0]} beside the script has the name of a module that is imported ahead" if shadowed else ""
