"""Packages that a task asks for, with real processes and an index of this machine's own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard import Client
from taskyard.executor.environments import shelf_folders
from taskyard.executor.removal import remove_tree
from taskyard.settings import ExecutorSettings
from tests.acceptance.processes import Yard
from tests.packages import Index, sdist, serving, wheel

SYSTEM_PYTHON = "/usr/bin/python3"
SAYS = "import alpha, beta; print([alpha.VERSION, beta.VERSION])"
# A source distribution: what its build does runs as whoever builds it.
WHO = """
import os, zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    name = "gamma-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as file:
        file.writestr("gamma.py", f"WHO = {os.getuid()}\\n")
        file.writestr("gamma-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: gamma\\nVersion: 1.0\\n")
        file.writestr("gamma-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        file.writestr("gamma-1.0.dist-info/RECORD", "")
    return name
"""
BROKEN = "def build_wheel(*_, **__):\n    raise SystemExit('the compiler is missing')\n"


@pytest.fixture
def index() -> Iterator[Index]:
    files = [wheel("alpha", "1.0"), wheel("alpha", "2.0"), wheel("beta", "2.0", requires=("alpha<2",))]
    files += [sdist("gamma", "1.0", WHO), sdist("broken", "1.0", BROKEN)]
    with serving(dict(files)) as index:
        yield index


@pytest.fixture
def yard(tmp_path: Path, index: Index) -> Iterator[Yard]:
    with Yard(tmp_path, **index.variables) as yard:
        yard.manager()
        yard.api()
        yield yard


@pytest.fixture
def client(yard: Yard) -> Iterator[Client]:
    with Client(yard.url, token="") as client:
        yield client


def test_a_task_gets_what_it_asks_for_and_the_next_gets_the_same(yard: Yard, client: Client, index: Index) -> None:
    executor = yard.executor()
    task = client.submit("s.py", script=SAYS, requirements=["beta"], return_type="text")
    assert client.result(task.id, timeout=60).value == "['1.0', '2.0']\n"
    assert client.get(task.id).requirements == ("beta",)
    asked = len(index.asked)
    again = client.submit(
        "s.py", script="import alpha, sys; print(sys.prefix)", requirements=["beta"], return_type="text"
    )
    prefix = client.result(again.id, timeout=60).value_as(str).strip()
    assert Path(prefix).parent.parent.name.startswith("environments")
    assert len(index.asked) == asked
    executor.wait_for("environment_built")
    words = ["python", "-c", "import beta; print(beta.VERSION)"]
    program = client.submit(words, requirements=["beta"], return_type="text")
    assert client.result(program.id, timeout=60).value == "2.0\n"
    without = client.submit("s.py", script="import beta", return_type="text")
    assert client.wait(without.id, timeout=60).reason == "exit"


def test_a_script_says_what_it_needs(yard: Yard, client: Client) -> None:
    yard.executor()
    block = '# /// script\n# requires-python = ">=3.9"\n# dependencies = ["beta==2.0"]\n# ///\n'
    task = client.submit("s.py", script=block + SAYS, return_type="text")
    assert client.result(task.id, timeout=60).value == "['1.0', '2.0']\n"
    padding = "#" * (100 << 10) + "\n"  # it does not travel inside the message
    large = client.submit("s.py", script=padding + block + SAYS, return_type="text")
    assert client.result(large.id, timeout=60).value == "['1.0', '2.0']\n"
    status, _ = yard.curl("/api/v1/tasks/one", "-F", "file=@-;filename=s.py", "-F", "cmd=s.py", "-F", "rt=text")
    assert status == 201


def test_an_update_reads_the_script_anew(yard: Yard, client: Client) -> None:
    first = '# /// script\n# dependencies = ["alpha"]\n# ///\n'
    task = client.submit("a.py", files={"a.py": first.encode(), "b.py": first.replace("alpha", "beta").encode()})
    assert client.get(task.id).requirements == ("alpha",)
    client.update(task.id, command="b.py")
    assert client.get(task.id).requirements == ("beta",)
    client.update(task.id, priority=1)
    assert client.get(task.id).requirements == ("beta",)
    client.update(task.id, script="print(1)", command="c.py")
    assert client.get(task.id).requirements == ()


def test_what_cannot_be_built_fails_the_task_in_the_words_of_uv(yard: Yard, client: Client) -> None:
    yard.executor()
    for wanted, said in (
        ("beta>3", "only beta==2.0 is available"),
        ("absent", "absent"),
        ("broken", "the compiler is"),
    ):
        task = client.submit("s.py", script=SAYS, requirements=[wanted], retries=3)
        ended = client.wait(task.id, timeout=60)
        assert (ended.state, ended.reason, ended.attempt) == ("failed", "environment", 1)
        assert said in ended.message


def test_a_failing_index_is_the_machine_s_fault(yard: Yard, client: Client, index: Index) -> None:
    yard.executor()
    index.status = 503
    for _ in range(3):
        task = client.submit("s.py", script=SAYS, requirements=["beta"], max_losses=0)
        ended = client.wait(task.id, timeout=60)
        assert (ended.reason, ended.losses, ended.failures) == ("files", 1, 0)
        assert "503" in ended.message
    assert not client.executors()[0].cordoned  # it may run what needs no packages
    again = client.submit("s.py", script=SAYS, requirements=["beta"], return_type="text", max_losses=10)
    yard.components[-1].wait_for("environment_failed", count=4)
    index.status = 200
    assert client.result(again.id, timeout=60).value == "['1.0', '2.0']\n"


def test_one_build_for_all_that_wait_and_others_go_on(yard: Yard, client: Client, index: Index) -> None:
    executor = yard.executor("--slots", "5")
    index.open.clear()
    waiting = [client.submit("s.py", script=SAYS, requirements=["beta"], return_type="text") for _ in range(3)]
    assert index.reached.wait(60)
    other = client.submit("s.py", script="print(1)", return_type="json")
    assert client.result(other.id, timeout=60).value == 1
    stopped = client.submit("s.py", script=SAYS, requirements=["beta"])
    executor.wait_for("environment_building")
    client.stop(stopped.id)
    assert client.wait(stopped.id, timeout=60).state == "stopped"
    index.open.set()
    assert {client.result(one.id, timeout=60).value for one in waiting} == {"['1.0', '2.0']\n"}
    assert executor.log.count('"environment_building"') == 1


def test_a_build_that_nobody_waits_for_is_ended(yard: Yard, client: Client, index: Index, tmp_path: Path) -> None:
    executor = yard.executor()
    index.open.clear()
    task = client.submit("s.py", script=SAYS, requirements=["beta"])
    assert index.reached.wait(60)
    client.stop(task.id)
    assert client.wait(task.id, timeout=60).state == "stopped"
    index.open.set()
    again = client.submit("s.py", script=SAYS, requirements=["beta"], return_type="text")
    assert client.result(again.id, timeout=60).value == "['1.0', '2.0']\n"
    assert executor.log.count('"environment_building"') == 2


def test_a_task_waits_for_an_executor_with_the_interpreter_that_it_asks_for(yard: Yard, client: Client) -> None:
    yard.executor()
    block = '# /// script\n# requires-python = ">=3.99"\n# ///\n'
    task = client.submit("s.py", script=block)
    (obstacle,) = client.why(task.id).executors
    assert "has no Python >=3.99" in obstacle.explanation
    assert f"{sys.version_info.major}.{sys.version_info.minor}." in obstacle.explanation


def test_a_script_that_needs_no_packages_runs_in_the_executors_own_interpreter(yard: Yard, client: Client) -> None:
    yard.executor()
    block = '# /// script\n# requires-python = ">=3.9"\n# ///\nimport sys; print(sys.prefix)'
    task = client.submit("s.py", script=block, return_type="text")
    assert client.result(task.id, timeout=60).value == f"{sys.prefix}\n"


def test_the_least_recently_used_is_removed_but_none_that_is_used(yard: Yard, client: Client, tmp_path: Path) -> None:
    executor = yard.executor("--slots", "2", TASKYARD_MAX_ENVIRONMENTS="1")
    forever = "import alpha, time; print(1, flush=True); time.sleep(600)"
    used = client.submit("s.py", script=forever, requirements=["alpha==1.0"])
    for chunk in client.logs(used.id):
        if chunk.data:
            break
    other = client.submit("s.py", script="import alpha", requirements=["alpha==2.0"])
    assert client.wait(other.id, timeout=60).state == "finished"
    executor.wait_for("environment_evicted")
    shelf = tmp_path / "data" / "environments"
    assert len(list(shelf.glob("*.json"))) == 1
    client.stop(used.id)
    assert client.wait(used.id, timeout=60).state == "stopped"
    executor.wait_for("environment_evicted", count=2)
    assert not list(shelf.glob("*/"))


def test_one_that_is_built_ahead_is_found_by_an_executor_that_runs(yard: Yard, client: Client, index: Index) -> None:
    executor = yard.executor()
    built = yard.cli("env", "build", "--with", "beta", "--json")
    assert built.returncode == 0, built.stderr
    path = json.loads(built.stdout)["path"]
    asked = len(index.asked)
    script = "import beta, sys, time; print(sys.prefix, flush=True); time.sleep(600)"
    task = client.submit("s.py", script=script, requirements=["beta"])
    said = next(chunk.data for chunk in client.logs(task.id) if chunk.data)
    assert said.decode().strip() == path
    (listed,) = json.loads(yard.cli("env", "ls", "--json").stdout)
    assert (listed["asked"], listed["in_use"]) == (["beta"], True)
    assert yard.cli("env", "rm", listed["key"]).returncode == 5
    client.stop(task.id)
    assert client.wait(task.id, timeout=60).state == "stopped"
    assert executor.log.count('"environment_building"') == 0
    assert len(index.asked) == asked
    failed = yard.cli("env", "build", "--with", "beta>3")
    assert failed.returncode == 1
    assert b"only beta==2.0 is available" in failed.stderr


@pytest.mark.parametrize("isolation", ["never", "always"])
def test_the_next_task_of_an_environment_starts_warm(
    yard: Yard, client: Client, tmp_path: Path, isolation: str
) -> None:
    options: list[str] = []
    if isolation == "always":
        if os.geteuid() != 0 or not os.access(SYSTEM_PYTHON, os.X_OK):
            pytest.skip(f"needs root and {SYSTEM_PYTHON}")
        options = ["--python", SYSTEM_PYTHON]
    shelf = shelf_folders(ExecutorSettings(data_dir=tmp_path / "data"))[1]
    script = "import alpha, json, os, sys; print(json.dumps([alpha.__file__, sys.prefix, sys.executable, os.getuid()]))"
    try:
        executor = yard.executor(*options, TASKYARD_ISOLATION=isolation, TASKYARD_LOG_LEVEL="debug")
        said, how = [], []
        for _ in range(2):
            task = client.submit("s.py", script=script, requirements=["beta"], return_type="json")
            said.append(client.result(task.id, timeout=60).value_as(list))
            how += [one.started_by for one in client.attempts(task.id)]
            executor.wait_for("environment_warm")
        assert how == ["fresh", "spare"]
        assert said[0][:3] == said[1][:3]
        assert all((57_000 <= user < 58_000) == (isolation == "always") for *_, user in said)
        removed = yard.cli("env", "rm", "--all", TASKYARD_ISOLATION=isolation)
        assert removed.returncode == 0, removed.stderr
        task = client.submit("s.py", script=script, requirements=["beta"], return_type="json")
        assert client.result(task.id, timeout=60).value_as(list)[:3] == said[0][:3]
        assert [one.started_by for one in client.attempts(task.id)] == ["fresh"]
    finally:
        remove_tree(shelf)


def test_a_task_goes_to_the_executor_that_has_its_environment(yard: Yard, client: Client, tmp_path: Path) -> None:
    folders = {name: str(tmp_path / name) for name in ("cold", "warm")}
    assert yard.cli("env", "build", "--with", "beta", TASKYARD_DATA_DIR=folders["warm"]).returncode == 0
    for name, folder in folders.items():
        yard.executor("--name", name, TASKYARD_DATA_DIR=folder)
    assert [(one.name, one.environments) for one in client.executors()] == [("cold", 0), ("warm", 1)]
    forever = client.submit("s.py", script="import beta, time; time.sleep(600)", requirements=["beta"])
    held_back = client.submit("s.py", script=SAYS, requirements=["beta"], return_type="text")
    assert client.result(held_back.id, timeout=60).value == "['1.0', '2.0']\n"
    ran_on = {name: client.get(task.id).executor for name, task in (("warm", forever), ("cold", held_back))}
    assert [name for name, executor in ran_on.items() if executor is None or executor.name != name] == []
    client.stop(forever.id)
    assert client.wait(forever.id, timeout=60).state == "stopped"


@pytest.mark.skipif(
    os.geteuid() != 0 or not os.access(SYSTEM_PYTHON, os.X_OK), reason=f"needs root and {SYSTEM_PYTHON}"
)
def test_where_uv_does_not_run_pip_builds_as_the_users_of_slots(yard: Yard, client: Client, tmp_path: Path) -> None:
    absent = tmp_path / "absent" / "uv"
    absent.mkdir(parents=True)
    (absent / "__init__.py").write_text("def find_uv_bin():\n    raise FileNotFoundError\n")
    shelf = shelf_folders(ExecutorSettings(data_dir=tmp_path / "data"))[1]
    path = os.pathsep.join(filter(None, (str(absent.parent), os.environ.get("PYTHONPATH"))))
    try:
        executor = yard.executor("--python", SYSTEM_PYTHON, PYTHONPATH=path, PIP_RETRIES="0")
        if executor.wait_for("uv_does_not_run")["instead"] != "pip":
            pytest.skip(f"{SYSTEM_PYTHON} brings no pip: install python3-venv")
        script = "import gamma, os; print([gamma.WHO, os.stat(gamma.__file__).st_uid])"
        task = client.submit("s.py", script=script, requirements=["gamma"], return_type="json")
        built_by, owner = client.result(task.id, timeout=60).value_as(list)
        assert 57_000 <= built_by < 58_000
        assert owner == 0
        failed = client.submit("s.py", script=script, requirements=["broken"])
        ended = client.wait(failed.id, timeout=60)
        assert ended.reason == "environment"
        assert "the compiler is missing" in ended.message
    finally:
        remove_tree(shelf)


@pytest.mark.skipif(
    os.geteuid() != 0 or not os.access(SYSTEM_PYTHON, os.X_OK), reason=f"needs root and {SYSTEM_PYTHON}"
)
def test_where_slots_have_users_of_their_own_they_build_and_none_may_change_it(
    yard: Yard, client: Client, tmp_path: Path
) -> None:
    shelf = shelf_folders(ExecutorSettings(data_dir=tmp_path / "data"))[1]
    try:
        executor = yard.executor("--python", SYSTEM_PYTHON, "--slots", "2")
        script = """
import gamma, os, sys
changed = []
for parent, _, names in os.walk(os.path.dirname(sys.prefix)):
    for path in [parent, *(os.path.join(parent, name) for name in names)]:
        if os.access(path, os.W_OK) and not os.path.islink(path):
            changed.append(path)
print([gamma.WHO, os.getuid(), os.stat(gamma.__file__).st_uid, changed])
"""
        task = client.submit("s.py", script=script, requirements=["gamma"], return_type="json")
        built_by, run_by, owner, changed = client.result(task.id, timeout=60).value_as(list)
        assert 57_000 <= built_by < 58_000
        assert 57_000 <= run_by < 58_000
        assert (owner, changed) == (0, [])
        ahead = yard.cli("env", "build", "--with", "gamma", "--with", "alpha", "--python", SYSTEM_PYTHON, "--json")
        assert ahead.returncode == 0, ahead.stderr
        again = client.submit("s.py", script=script, requirements=["gamma", "alpha"], return_type="json")
        built_by, _, owner, changed = client.result(again.id, timeout=60).value_as(list)
        assert 57_000 <= built_by < 58_000
        assert (owner, changed) == (0, [])
        assert executor.log.count('"environment_building"') == 1
    finally:
        remove_tree(shelf)
