"""The units of ``deploy/systemd/`` start commands that there are, with variables and exit codes that mean something."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from taskyard.cli.commands import build
from taskyard.cli.exits import Exit
from taskyard.settings import ApiSettings, ExecutorSettings, ManagerSettings, Settings

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
PROGRAM = "/opt/taskyard/bin/taskyard"
COMPONENTS: dict[str, tuple[type[Settings], set[Exit]]] = {
    "taskyard-manager.service": (ManagerSettings, {Exit.USAGE, Exit.STORE}),
    "taskyard-api.service": (ApiSettings, {Exit.USAGE, Exit.STORE}),
    "taskyard-executor@.service": (ExecutorSettings, {Exit.USAGE, Exit.CONFLICT}),
}
TOKENS = {"executor_token_file"}


def values(unit: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)


def test_every_unit_is_tested() -> None:
    assert {path.name for path in UNITS.glob("*.service")} == set(COMPONENTS)


@pytest.mark.parametrize("unit", COMPONENTS)
def test_a_unit_starts_a_command_with_options_that_it_has(unit: str) -> None:
    (line,) = values(unit, "ExecStart")
    program, *words = shlex.split(re.sub("%.", "x", line))
    assert program == PROGRAM
    command, _, _ = build().parse_args(words, exit_on_error=False, print_error=False)
    assert f"taskyard-{command.__name__}" == unit.partition(".")[0].rstrip("@")


@pytest.mark.parametrize("unit", COMPONENTS)
def test_its_variables_are_settings(unit: str) -> None:
    names = [one.partition("=")[0] for line in values(unit, "Environment") for one in shlex.split(line)]
    settings = {f"TASKYARD_{name.upper()}" for name in {*COMPONENTS[unit][0].model_fields, *TOKENS}}
    assert "TASKYARD_DATA_DIR" in names
    assert set(names) <= settings


@pytest.mark.parametrize("unit", COMPONENTS)
def test_it_is_started_again_unless_that_cannot_help(unit: str) -> None:
    assert values(unit, "Restart") == ["on-failure"]
    assert values(unit, "StartLimitIntervalSec") == ["0"]
    (codes,) = values(unit, "RestartPreventExitStatus")
    assert {int(code) for code in codes.split()} == COMPONENTS[unit][1]


@pytest.mark.parametrize("unit", COMPONENTS)
def test_it_has_time_for_an_orderly_end(unit: str) -> None:
    (limit,) = values(unit, "TimeoutStopSec")
    settings = COMPONENTS[unit][0]
    field = settings.model_fields.get("shutdown_grace") or settings.model_fields["drain_grace"]
    assert float(limit) >= 2 * field.default


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    for unit in COMPONENTS:
        # It looks whether the program is there.
        (tmp_path / unit).write_text((UNITS / unit).read_text().replace(PROGRAM, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *(tmp_path / unit for unit in COMPONENTS)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # What other units of this machine have is not ours.
    faults = [line for line in done.stderr.splitlines() if "taskyard" in line]
    assert (done.returncode, faults) == (0, [])
