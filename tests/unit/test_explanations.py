from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from taskyard.api.schemas import BatchInput, TaskInput
from taskyard.explanations import faults
from taskyard.settings import ApiSettings, ExecutorSettings, ManagerSettings, Settings

PYDANTICS_WORDS = re.compile(r"Input|should|valid |Value error|instance|pattern|Field|Extra|constrained|\[key\]")


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ({"command": 5}, "command: must be a text, or must be a list"),
        ({"command": []}, "command: must be a text, or must have 1 or more"),
        ({"retries": 1.5}, "retries: must be a whole number"),
        ({"retries": -1}, "retries: must be 0 or more"),
        ({"timeout": "long"}, "timeout: must be a number"),
        ({"timeout": float("nan")}, "timeout: must be a finite number"),
        ({"timeout": 1e9}, "timeout: must be 31622400 or less"),
        ({"timeout": -1}, "timeout: must be more than 0"),
        ({"return_type": "xml"}, "return_type: must be 'none', 'text', 'json' or 'file'"),
        ({"nosuch": 1}, "nosuch: there is no such field"),
        ({"files": [{"content": ""}]}, "files.0.path: is missing"),
        ({"limits": 5}, "limits: must be an object of names and values"),
        ({"limits": {"nosuch": 1}}, "limits: there is no limit 'nosuch', only memory, "),
        ({"env": {"1": "x"}}, "env.1: its name must match ^[A-Za-z_]"),
        ({"env": {"A": "\0"}}, "env.A: must not hold a NUL character"),
        ({"env": {"TASKYARD_A": "x"}}, "TASKYARD_A: names that begin with TASKYARD_ are ours"),
        ({"resources": {"cpus": float("inf")}}, "resources.cpus: must be a finite number, or must be a text"),
    ],
)
def test_what_is_wrong_with_a_task_is_said_in_plain_words(task: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as raised:
        TaskInput.model_validate(task)
    told = "; ".join(f"{'.'.join(map(str, place))}: {said}" for place, said in faults(raised.value.errors()))
    assert sentence in told
    assert not PYDANTICS_WORDS.search(told)


WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    1e400,
    float("nan"),
    10**30,
    "",
    "x",
    "\0",
    "nan",
    [],
    [1],
    {},
    {"": 1},
    {"a": []},
)


@pytest.mark.parametrize("kind", [TaskInput, BatchInput, Settings, ApiSettings, ExecutorSettings, ManagerSettings])
def test_no_word_of_pydantics_is_left(kind: type[TaskInput | BatchInput | Settings]) -> None:
    told = set()
    for field in kind.model_fields:
        for value in WRONG:
            try:
                kind.model_validate({field: value})
            except ValidationError as error:
                told |= {said for _, said in faults(error.errors())}
    assert told
    assert [said for said in told if PYDANTICS_WORDS.search(said)] == []


def test_what_is_no_json() -> None:
    with pytest.raises(ValidationError) as raised:
        TaskInput.model_validate_json(json.dumps({"a": 1})[:-1])
    [(place, said)] = faults(raised.value.errors())
    assert place == ()
    assert said.startswith("is not JSON: ")
