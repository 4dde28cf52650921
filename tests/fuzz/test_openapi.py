"""The API Server against its own OpenAPI document: whatever is sent, it answers as it says it does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from taskyard import Client
from tests.acceptance.processes import Yard

EXAMPLES = 200 if os.environ.get("TASKYARD_TEST_LONG") == "1" else 12
KNOWN = "known"
"""A task that is there, so that not every request ends in a 404."""


@pytest.fixture(scope="module")
def known_yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    # Waits are cut short, so that a long poll that was drawn holds nobody up.
    quick = {"TASKYARD_MAX_WAIT": "0.2"}
    with Yard(tmp_path_factory.mktemp("openapi"), **quick) as yard:
        yard.manager()
        yard.api()
        yard.executor()
        with Client(yard.url, token="") as client:
            script = "import os\nopen(os.environ['TASKYARD_OUTPUT'] + '/a.txt', 'w').write('a')\nprint('hello')"
            client.submit("hello.py", script=script, name=KNOWN, return_type="text")
            client.wait(KNOWN)
        yield yard


@pytest.mark.timeout(1200)
def test_every_answer_is_one_that_the_document_describes(known_yard: Yard) -> None:
    document = schemathesis.openapi.from_url(f"{known_yard.url}/openapi.json")
    operations = [found.ok() for found in document.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) > 30
    failures: list[str] = []
    for operation in operations:
        try:
            _try_out(operation)
        except Exception as error:  # each operation is tried, and each failure told
            failures.append(f"{operation.label}: {error}")
    assert not failures, "\n\n".join(failures)
    assert known_yard.curl("/ready")[0] == 200


def _try_out(operation: Any) -> None:
    """All of schemathesis' checks but that every body of the right shape is accepted: a schema cannot say that a command
    begins with the name of a file that is sent along."""

    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def call(case: Any) -> None:
        if "task" in (case.path_parameters or {}) and len(str(case.path_parameters["task"])) % 2:
            case.path_parameters["task"] = KNOWN
        case.call_and_validate(timeout=30, excluded_checks=[positive_data_acceptance])

    call()
