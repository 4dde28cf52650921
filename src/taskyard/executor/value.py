"""Whether what a script printed can be its return value. Pure.

The value itself is not sent again: the manager has it, as the attempt's output.
"""

from __future__ import annotations

import json
import math
from typing import Never

from taskyard.task.model import ReturnType


def objection(return_type: ReturnType, stdout: bytes, dropped: int) -> str:
    """Why ``stdout`` is no value of that type, as a sentence; empty where it is one. ``dropped`` counts the bytes of it that
    are missing."""
    if return_type not in (ReturnType.TEXT, ReturnType.JSON):
        return ""
    if dropped:
        return (
            f"the return value is incomplete: {dropped} bytes of stdout were not kept (see max_output of the executor)"
        )
    if return_type is ReturnType.JSON and (problem := _json_objection(stdout)):
        return f"{problem} (the return type 'text' takes any output)"
    return ""


def _json_objection(stdout: bytes) -> str:
    if not stdout.strip():
        return "the return value should be JSON, but nothing was printed on stdout"
    try:
        json.loads(stdout.decode(), parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        return f"stdout is not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
    except UnicodeDecodeError as error:
        line = stdout.count(b"\n", 0, error.start) + 1
        column = error.start - (stdout.rfind(b"\n", 0, error.start) + 1) + 1
        return f"stdout is not JSON: line {line}, column {column}: no UTF-8"
    except (ValueError, RecursionError) as error:
        return f"stdout is not JSON that can be read: {error}"
    return ""


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError(
            f"{number[:40]} is larger than any number that JSON's readers know; print it as a string instead"
        )
    return value


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is no JSON; print null or a string instead")
