"""Any program as a task: scripts of a shell, compiled ones, and what the machine has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard import Client
from tests.acceptance.processes import DEADLINE, Yard, processes_with

JOB = """\
set -eu
echo "begun with $# in $(basename "$PWD"): $*"
echo complaint >&2
printf kept > "$TASKYARD_OUTPUT/left"
exit "$1"
"""
C = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int count, char **words) {
    if (count > 1 && strcmp(words[1], "fill") == 0)
        for (;;) {
            char *block = malloc(1 << 20);
            if (block == NULL) return 9;
            memset(block, 1, 1 << 20);
        }
    printf("%d words, TASKYARD_ATTEMPT=%s\n", count, getenv("TASKYARD_ATTEMPT"));
    return 7;
}
"""


@pytest.fixture
def client(shared_yard: Yard) -> Iterator[Client]:
    with Client(shared_yard.url, token="") as client:
        yield client


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled program."""
    if (compiler := shutil.which("gcc")) is None:
        pytest.skip("there is no gcc to compile a program with")
    folder = tmp_path_factory.mktemp("tool")
    (folder / "tool.c").write_text(C)
    subprocess.run([compiler, "-o", folder / "tool", folder / "tool.c"], check=True, timeout=DEADLINE)
    return folder / "tool"


def test_a_script_of_a_shell(client: Client) -> None:
    files = {"job.sh": JOB.encode()}
    task = client.submit(["bash", "job.sh", "0", "a b"], files=files, return_type="text")
    result = client.result(task.id, timeout=DEADLINE)
    assert result.value == "begun with 2 in work: 0 a b\n"
    assert client.output(task.id, "stderr") == b"complaint\n"
    assert [artifact.path for artifact in result.artifacts] == ["left"]
    failed = client.result(client.submit(["bash", "job.sh", "3"], files=files).id, timeout=DEADLINE, check=False)
    assert (failed.state, failed.reason, failed.exit_code) == ("failed", "exit", 3)
    assert failed.last_lines == "begun with 1 in work: 3\ncomplaint\n"


def test_a_file_that_is_run_directly_needs_no_mode(shared_yard: Yard) -> None:
    body = {"script": "#!/bin/sh\necho $0 $1\n", "command": ["./bin/greet", "you"], "return_type": "text"}
    header = ("-H", "Content-Type: application/json")
    status, task = shared_yard.curl_json("/api/v2/tasks?wait=30", *header, "-d", json.dumps(body))
    assert (status, task["result"]["value"]) == (201, "./bin/greet you\n")
    assert (task["command"], task["program"]) == (["./bin/greet", "you"], True)


def test_a_compiled_program_on_the_command_line(shared_yard: Yard, tool: Path) -> None:
    done = shared_yard.cli("run", "--program", "--name", "compiled", os.path.relpath(tool), "x", "--y")
    assert (done.returncode, done.stdout) == (7, b"3 words, TASKYARD_ATTEMPT=1\n"), done.stderr
    assert b"./tool x --y" in shared_yard.cli("status", "compiled").stdout


def test_a_program_has_the_limits_of_its_task(shared_yard: Yard, client: Client, tool: Path) -> None:
    (executor,) = client.executors()
    if executor.enforces.get("memory") != "cgroup":
        pytest.skip("the executor has no cgroup by which it could limit memory (try as root)")
    task = client.submit(["./tool", "fill"], files=[tool], limits={"memory": "64MiB"})
    result = client.result(task.id, timeout=DEADLINE, check=False)
    assert (result.reason, result.signal, result.measured_by) == ("oom", 9, "cgroup")
    slow = client.submit(["sleep", "600"], timeout=0.3)
    assert client.result(slow.id, timeout=DEADLINE, check=False).reason == "timeout"


def test_a_stop_ends_all_of_it(client: Client, tmp_path: Path) -> None:
    """With what it has started, in sessions of their own too, before it counts as stopped."""
    mark = f"marked-{tmp_path.name}-{os.getpid()}"
    text = "setsid sleep 600 & trap '' TERM; echo up; while :; do sleep 600; done"
    task = client.submit(["sh", "-c", text], env={"MARK": mark}, grace=0.2)
    assert next(client.logs(task.id)).data == b"up\n"
    assert len(processes_with(mark)) >= 2
    client.stop(task.id)
    assert client.wait(task.id, timeout=DEADLINE).state == "stopped"
    assert processes_with(mark) == []


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (["no-such-program"], 127, "there is no program 'no-such-program' on the executor's PATH"),
        (["/no/such/program"], 127, "there is no program '/no/such/program' on the executor"),
        (["./hello.py"], 126, "a script needs a first line such as #!/bin/sh"),
        (["/etc/passwd"], 126, "'/etc/passwd' cannot be executed: Permission denied"),
    ],
)
def test_what_cannot_be_executed_ends_as_in_a_shell(client: Client, command: list[str], code: int, says: str) -> None:
    task = client.submit(command, files={"hello.py": b"print(1)"})
    result = client.result(task.id, timeout=DEADLINE, check=False)
    assert (result.state, result.reason, result.exit_code) == ("failed", "exit", code)
    assert says in result.message
    assert client.output(task.id, "stderr").decode() == f"taskyard: {result.message}\n"
    assert client.executors()[0].cordoned == ""


def test_the_command_line_ends_as_a_shell_does(shared_yard: Yard) -> None:
    done = shared_yard.cli("run", "--program", "no-such-program", "--version")
    assert (done.returncode, done.stdout) == (127, b"")
    assert b"there is no program 'no-such-program'" in done.stderr
