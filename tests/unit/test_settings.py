from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import annotated_types
import pytest
from pydantic import AliasChoices, ValidationError
from pydantic.fields import FieldInfo

from taskyard import settings
from taskyard.addresses import Address
from taskyard.executor.node import MAX_OUTCOMES
from taskyard.settings import (
    ApiSettings,
    ClientSettings,
    ExecutorSettings,
    ManagerSettings,
    Settings,
    explain,
    is_loopback,
)

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
SECTIONS: dict[str, type[Settings]] = {
    "Every component": Settings,
    "Service Manager": ManagerSettings,
    "API Server": ApiSettings,
    "Executor Node": ExecutorSettings,
    "Command line and client": ClientSettings,
}
# Defaults that the machine decides.
MACHINES = {
    "data_dir": "`$XDG_DATA_HOME/taskyard`",
    "cpus": "the machine's CPUs",
    "python": "the Python that runs Taskyard",
}


@pytest.fixture(autouse=True)
def _nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in SECTIONS.values():
        for name, field in kind.model_fields.items():
            for variable in variables(name, field):
                monkeypatch.delenv(variable, raising=False)


# --- docs/settings.md -------------------------------------------------------------------------------------------------


def variables(name: str, field: FieldInfo) -> list[str]:
    """The environment variables that set a field, the strongest first."""
    if isinstance(field.validation_alias, AliasChoices):
        return [str(choice) for choice in field.validation_alias.choices if choice != name]
    return [f"TASKYARD_{name.upper()}"]


def shown_default(name: str, field: FieldInfo) -> str:
    if name in MACHINES:
        return MACHINES[name]
    value = field.get_default(call_default_factory=True)
    if value in ("", (), {}):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`" if value < 1e6 else f"`{value:.0f}`"
    if isinstance(value, int) and "bytes" in str(field.description):
        for size, unit in ((settings.GIB, "GiB"), (settings.MIB, "MiB"), (settings.KIB, "KiB")):
            if value >= size and value % size == 0:
                return f"`{value}` ({value // size} {unit})"
    return f"`{value}`"


def bound(field: FieldInfo) -> str:
    parts = []
    for limit in field.metadata:
        match limit:
            case annotated_types.Ge(ge=low):
                parts.append(f"≥ {low}")
            case annotated_types.Gt(gt=low):
                parts.append(f"> {low}")
            case annotated_types.Le(le=high):
                parts.append(f"≤ {high}")
            case annotated_types.MaxLen(max_length=length):
                parts.append(f"≤ {length} characters")
            case _:
                assert hasattr(limit, "pattern"), f"the page has no words for {limit}"
    return ", ".join(parts)


def row(name: str, field: FieldInfo) -> str:
    named = ", ".join(f"`{variable}`" for variable in variables(name, field))
    return f"| `{name}` | {named} | {shown_default(name, field)} | {bound(field)} | {field.description} |"


def own_fields(kind: type[Settings]) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in kind.model_fields.items():
        if kind is Settings or name not in Settings.model_fields:
            yield name, field


@pytest.mark.parametrize("title", SECTIONS)
def test_the_page_lists_every_setting_as_it_is(title: str) -> None:
    section = PAGE.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == [row(name, field) for name, field in own_fields(SECTIONS[title])]


def test_the_page_has_a_section_for_every_kind_of_settings() -> None:
    assert {kind.__name__ for kind in SECTIONS.values()} == {
        name for name in vars(settings) if name.endswith("Settings") and name != "BaseSettings"
    }
    assert set(SECTIONS) <= set(re.findall(r"^## (.+)$", PAGE.read_text(), re.MULTILINE))


def test_every_setting_has_a_description_and_every_number_a_bound() -> None:
    for kind in SECTIONS.values():
        for name, field in kind.model_fields.items():
            assert field.description, name
            if field.annotation in (int, float):
                assert bound(field), name


def test_no_variable_means_two_things_to_two_components() -> None:
    """``HOST`` and ``PORT`` do, as the contract wants; what a component shares with another means the same."""
    meanings: dict[str, set[str]] = {}
    for kind in SECTIONS.values():
        for name, field in own_fields(kind):
            for variable in variables(name, field):
                meanings.setdefault(variable, set()).add(name)
    assert {variable for variable, names in meanings.items() if len(names) > 1} == {"PORT"}


# --- where values come from -------------------------------------------------------------------------------------------


def test_the_environment_sets_and_the_command_line_beats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ExecutorSettings().slots == 1
    monkeypatch.setenv("TASKYARD_SLOTS", "4")
    assert ExecutorSettings().slots == 4
    assert ExecutorSettings(slots=2).slots == 2


@pytest.mark.parametrize(
    ("kind", "name", "names", "value"),
    [
        (ManagerSettings, "host", ["TASKYARD_HOST", "HOST"], "0.0.0.0"),
        (ManagerSettings, "api_port", ["TASKYARD_MANAGER_API_PORT", "PORT"], 7001),
        (ApiSettings, "host", ["TASKYARD_HOST", "HOST"], "0.0.0.0"),
        (ApiSettings, "port", ["TASKYARD_PORT", "PORT"], 7001),
        (ApiSettings, "socket_address", ["TASKYARD_SOCKET_ADDRESS", "SOCKET_ADDRESS"], "tcp://manager:5555"),
    ],
)
def test_the_contracts_variables_are_honoured_behind_ours(
    monkeypatch: pytest.MonkeyPatch, kind: type[Settings], name: str, names: list[str], value: Any
) -> None:
    ours, contracts = names
    monkeypatch.setenv(contracts, str(value))
    assert getattr(kind(), name) == value
    monkeypatch.setenv(ours, "127.0.0.9" if isinstance(value, str) else "7002")
    assert getattr(kind(), name) == ("127.0.0.9" if isinstance(value, str) else 7002)
    assert getattr(kind(**{name: value}), name) == value


def test_lists_and_maps_are_given_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKYARD_LABELS", '{"zone": "eu"}')
    monkeypatch.setenv("TASKYARD_RESOURCES", '{"licences": 2.5}')
    monkeypatch.setenv("TASKYARD_ALLOWED_HOSTS", '["yard.example"]')
    assert ExecutorSettings().labels == {"zone": "eu"}
    assert ExecutorSettings().resources == {"licences": 2.5}
    assert ApiSettings().allowed_hosts == ("yard.example",)


def test_the_data_directory_is_that_of_the_desktop_standard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert Settings().data_dir == tmp_path / "taskyard"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings().data_dir == tmp_path / ".local" / "share" / "taskyard"
    assert Settings(data_dir=Path("~/yard")).data_dir == tmp_path / "yard"
    monkeypatch.chdir(tmp_path)
    assert Settings(data_dir=Path("yard")).data_dir == tmp_path / "yard"


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().log_level = "debug"  # type: ignore[misc]  # what is tested


def test_a_token_does_not_show_itself() -> None:
    assert "hidden" not in repr(ClientSettings(token="hidden"))


# --- what is wrong is said --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "values", "sentence"),
    [
        (Settings, {"log_level": "loud"}, "log_level: must be one of debug, info, warning, error"),
        (Settings, {"log_format": "xml"}, "log_format: must be one of human, json, auto"),
        (ManagerSettings, {"api_port": 65536}, "api_port: must be 65535 or less"),
        (ManagerSettings, {"lease": "soon"}, "lease: must be a number"),
        (ManagerSettings, {"lease": 30.0}, "heartbeat_interval < executor_deadline < lease must hold"),
        (ManagerSettings, {"lease": float("inf")}, "lease: must be a finite number"),
        (ManagerSettings, {"lease": 31.9}, "lease must be 2 s longer than executor_deadline at least"),
        (
            ManagerSettings,
            {"heartbeat_interval": 0.1, "executor_deadline": 1.0, "lease": 1.4},
            "lease must be 0.5 s longer than executor_deadline at least",
        ),
        (ManagerSettings, {"heartbeat_interval": 31.0}, "heartbeat_interval < executor_deadline < lease must hold"),
        (ApiSettings, {"socket_address": "manager:http"}, "'manager:http' is not an address: give host or host:port"),
        (ManagerSettings, {"retention": "inf"}, "retention: must be a finite number"),
        (ExecutorSettings, {"labels": {"a": "x" * 100_000}}, "labels: the label 'a': its value has 100000 characters"),
        (ExecutorSettings, {"resources": {"x": -1}}, "resources: the resource x: -1 cannot be offered"),
        (ExecutorSettings, {"resources": {"x": float("nan")}}, "resources.x: must be a finite number"),
        (ExecutorSettings, {"resources": {"slots": 3}}, "resources: slots is no further quantity"),
        (ExecutorSettings, {"resources": {"x": 1e30}}, "resources: the resource x: 1e+30 cannot be offered"),
        (ExecutorSettings, {"memory": 10**18}, "memory: the resource memory: 1e+18 cannot be offered"),
        (ExecutorSettings, {"slots": MAX_OUTCOMES + 1}, "slots: must be 1000 or less"),
        (ExecutorSettings, {"slots": 0, "cpus": 0}, "slots: must be 1 or more; cpus: must be more than 0"),
    ],
)
def test_a_wrong_value_is_explained(kind: type[Settings], values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as raised:
        kind(**values)
    assert sentence in explain(raised.value)


def test_executors_have_room_to_kill() -> None:
    assert ManagerSettings(lease=32.0).lease == 32.0
    assert ManagerSettings(heartbeat_interval=0.1, executor_deadline=1.0, lease=1.5).lease == 1.5


def test_a_rule_over_several_settings_has_no_setting_of_its_own() -> None:
    with pytest.raises(ValidationError) as raised:
        ManagerSettings(lease=30.0)
    assert explain(raised.value).startswith("settings: ")


# --- addresses --------------------------------------------------------------------------------------------------------


def test_the_manager_of_an_api_server_is_an_address() -> None:
    assert ApiSettings(socket_address="tcp://manager:7000").manager == Address("manager", 7000)
    assert ApiSettings(socket_address="wss://manager/api").manager == Address("manager", 443, secure=True, path="/api")


def test_the_manager_of_an_executor_is_a_host_and_a_port_or_an_address() -> None:
    def manager(**settings: Any) -> Address:
        return ExecutorSettings(**settings).manager

    assert manager(manager_host="manager") == Address("manager", 5556)
    assert manager(manager_host="::1", manager_port=7000) == Address("::1", 7000)
    assert manager(manager_host="wss://manager/executors") == Address("manager", 443, secure=True, path="/executors")
    assert manager(manager_host="wss://manager:7000", manager_port=7001) == Address("manager", 7000, secure=True)
    assert manager(manager_host="wss://manager", manager_port=7001) == Address("manager", 7001, secure=True)
    assert manager(manager_host="tcp://manager") == Address("manager", 5556)
    with pytest.raises(ValidationError, match="not an address"):
        ExecutorSettings(manager_host="wss://a b")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]"])
def test_loopback_hosts(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "localhost.example", "manager"])
def test_hosts_that_others_can_reach(host: str) -> None:
    assert not is_loopback(host)
