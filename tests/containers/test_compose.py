"""compose.yaml as people use it. The tests of this file share what was started, and go in order."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from taskyard import Client
from tests.containers.engine import Engine, curl, moment, until
from tests.containers.scripts import FOR_EVER, MESSY, PACKAGES, WORK

#: Seconds for one test: the first one waits for the images, too.
pytestmark = pytest.mark.timeout(300)

URL = "http://127.0.0.1:5001"
TASKS = f"{URL}/api/v1/tasks"
#: Tasks of one load, and the seconds that each takes.
LOAD, EACH = 120, 1.0
#: Seconds for an environment to be built.
BUILD = 120.0
#: Prints what attempts have left in a container: processes, files, shared memory.
LOOK = r"""
for p in /proc/[0-9]*; do tr '\0' ' ' <$p/cmdline; echo; done 2>/dev/null | grep -E '[s]leep 3600|SIG_[I]GN'
find /tmp /var/tmp /dev/shm -mindepth 1 ! -name taskyard-ready
find /var/lib/taskyard/work -name sticky -o -name closed
tail -n +2 /proc/sysvipc/shm
true
"""


@pytest.fixture(scope="module")
def yard(images: Engine) -> Iterator[Engine]:
    """``docker compose up --build -d``."""
    images.compose("up", "--build", "-d")
    try:
        yield images
    except BaseException:
        print(images.describe())
        raise
    finally:
        images.compose("down", "--volumes")


@pytest.fixture(autouse=True)
def _told(yard: Engine, request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that fails shows what the containers have logged."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        print(yard.describe())


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(url=URL) as found:
        yield found


def connected(client: Client) -> set[str]:
    """The names of the executors that may get tasks."""
    return {one.name for one in client.executors() if one.connected and not one.draining}


def ready() -> bool:
    return curl(f"{URL}/ready")[0] == 200


def is_clean(yard: Engine, container: str) -> bool:
    return not yard.docker("exec", container, "sh", "-c", LOOK).strip()


def scale(yard: Engine, count: int) -> None:
    """The command of the documents. Those that leave have drained when it ends."""
    yard.compose("up", "-d", "--no-recreate", "--scale", f"executor={count}")


def run(client: Client, script: str, command: str = "script.py", **fields: object) -> str:
    """The id of a task."""
    return client.submit(command, script=script, return_type="text", **fields).id  # type: ignore[arg-type]


def test_it_comes_up_with_two_executors_and_without_a_token(yard: Engine, client: Client) -> None:
    until("the API Server is ready", ready)
    until("both executors are free", lambda: connected(client) == {"executor-1", "executor-2"})
    for service in ("manager", "api", "executor"):
        for container in yard.containers(service):
            yard.docker("exec", container, "taskyard", "ready", service)


def test_the_contracts_lines(yard: Engine, tmp_path: Path) -> None:
    hello = ("-F", "file=@examples/hello.py", "-F", "cmd=hello.py 1", "-F", "rt=text")
    assert curl(f"{URL}/api/v1/version") == (200, {"version": "1.0"})
    assert curl(f"{TASKS}/hello", *hello) == (201, {"status": "ok"})
    assert curl(f"{TASKS}/hello", *hello)[0] == 400
    assert curl(TASKS) == (200, {"status": "ok", "tasks": ["hello"]})
    ended = {"status": "ok", "task_status": "finished", "results": "0\n"}
    until("hello has ended", lambda: curl(f"{TASKS}/hello/results") == (200, ended))
    assert curl(f"{TASKS}/hello/status") == (200, {"status": "ok", "task_status": "finished"})
    assert curl(f"{TASKS}/hello", "-X", "PUT", "-F", "cmd=hello.py 600")[0] == 200
    assert curl(f"{TASKS}/hello/start", "-X", "POST") == (200, {"status": "ok"})
    until("hello runs", lambda: curl(f"{TASKS}/hello/status")[1]["task_status"] == "running")
    assert curl(f"{TASKS}/hello/stop", "-X", "POST") == (200, {"status": "ok"})
    until("hello is stopped", lambda: curl(f"{TASKS}/hello/status")[1]["task_status"] == "stopped")
    curl(f"{TASKS}/hello/download", "-o", str(tmp_path / "hello.py"))
    assert (tmp_path / "hello.py").read_bytes() == Path("examples/hello.py").read_bytes()
    assert curl(f"{TASKS}/hello", "-X", "DELETE")[0] == 200
    assert curl(f"{TASKS}/hello", "-X", "DELETE")[0] == 204


def test_each_attempt_is_warm_has_a_user_of_its_own_and_no_capability(yard: Engine, client: Client) -> None:
    (first, second) = [client.wait(run(client, MESSY)) for _ in range(2)]
    for task in (first, second):
        assert task.state == "finished", task
        uid, capabilities, no_new_privileges = client.output(task.id).split()
        assert 59_000 <= int(uid) <= 60_000
        assert (int(capabilities, 16), no_new_privileges) == (0, b"1")
        assert task.started_by in ("spare", "fork")


def test_what_an_attempt_leaves_is_removed_with_the_capabilities_that_there_are(yard: Engine, client: Client) -> None:
    """Artifacts and large files have crossed from container to container; processes, files and shared memory are gone."""
    task = client.wait(run(client, f"{MESSY}\n#{'x' * 200_000}"))
    assert [(one.path, one.size) for one in client.artifacts(task.id)] == [("large.bin", 300_000)]
    stopped = run(client, f"{MESSY}\nimport time\ntime.sleep(3600)")
    for _ in client.logs(stopped):
        break
    client.stop(stopped)
    assert client.wait(stopped).state == "stopped"
    for container in yard.containers("executor"):
        until("nothing is left", functools.partial(is_clean, yard, container))
        assert not yard.logged(container, "traces_not_removed")


def test_what_cannot_be_enforced_is_told(yard: Engine, client: Client) -> None:
    for one in client.executors():
        assert "a user for each slot" in one.confinement
        assert one.enforces["open_files"] == "rlimit"
        # No control group can be written in a container: CPUs are not bounded, memory only process by process.
        assert "cpus" not in one.enforces
        assert one.enforces["memory"] == "rlimit, each process"
        assert any("best effort" in words for words in one.confinement)


def test_the_root_file_system_cannot_be_written(yard: Engine) -> None:
    for service in ("manager", "api", "executor"):
        for container in yard.containers(service):
            written = yard.docker("exec", container, "sh", "-c", "touch /x /opt/taskyard/x 2>&1; true")
            assert written.count("Read-only file system") == 2, written
            host = yard.inspect(container)["HostConfig"]
            assert host["CapDrop"] == ["ALL"]
            assert any("no-new-privileges" in one for one in host["SecurityOpt"])


def test_executors_hold_their_own_token_alone(yard: Engine) -> None:
    user = yard.docker("exec", yard.containers("manager")[0], "taskyard", "token", "show", "--reveal", "--kind", "user")
    for container in yard.containers("executor"):
        assert user.strip() not in yard.docker("exec", container, "sh", "-c", "cat /var/lib/taskyard-token/*")


def test_an_executor_that_is_not_root(yard: Engine, client: Client) -> None:
    """Without any capability. It says that attempts share its user; environments are built with uv there too."""
    network = next(iter(yard.inspect(yard.containers("manager")[0])["NetworkSettings"]["Networks"].values()))
    yard.docker(
        "run", "-d", "--name", "modest", "--init", "--user", "10001:10001", "--cap-drop", "ALL", "--read-only",
        "--tmpfs", "/tmp", "--tmpfs", "/var/tmp", "--network", "yard_default",
        "-v", "yard_executor-token:/var/lib/taskyard-token:ro",
        "-e", "TASKYARD_MANAGER_HOST=manager", "-e", "TASKYARD_NAME=modest", "-e", 'TASKYARD_LABELS={"is": "modest"}',
        "-e", "TASKYARD_EXECUTOR_TOKEN_FILE=/var/lib/taskyard-token/executor",
        "-e", f"UV_DEFAULT_INDEX=http://{network['Gateway']}:{yard.index}/",
        "taskyard-executor",
    )  # fmt: skip
    try:
        until("it is free", lambda: "modest" in connected(client))
        (modest,) = [one for one in client.executors() if one.name == "modest"]
        assert "one user for all (the executor is not root)" in modest.confinement
        task = client.wait(run(client, PACKAGES, labels={"is": "modest"}), BUILD)
        assert task.state == "finished", task
        uid, path = client.output(task.id).decode().split()
        assert uid == "10001"
        assert "/environments/" in path
    finally:
        yard.docker("stop", "--time", "60", "modest")
        yard.docker("rm", "-v", "modest")
        client.forget("modest")


def test_scaling_out_and_in_a_death_and_a_restart_lose_no_task(
    yard: Engine, client: Client, figures: list[str]
) -> None:
    """2 → 3 → 6 → 1 under load; one container dies on the way, and the manager's is restarted."""
    with ThreadPoolExecutor(8) as pool:
        tasks = list(pool.map(lambda n: run(client, WORK, f"script.py {n} {EACH}"), range(LOAD)))

        scale(yard, 3)
        until("the third is free", lambda: len(connected(client)) == 3)
        newest = yard.containers("executor")[-1]
        began = moment(yard.inspect(newest)["State"]["StartedAt"])
        (free,) = yard.logged(newest, "connected")
        figures.append(
            f"cold start, container started → executor free: {(moment(free['timestamp']) - began).total_seconds():.2f} s"
        )

        scale(yard, 6)
        until("all six are free", lambda: len(connected(client)) == 6)
        victim = yard.containers("executor")[0]
        yard.kill_main(victim)
        until("it is started again by its restart policy", lambda: yard.inspect(victim)["RestartCount"] == 1)
        yard.docker("restart", "--time", "60", yard.containers("manager")[0])
        until("all six are there again", lambda: ready() and len(connected(client)) == 6)
        scale(yard, 1)
        assert len(yard.containers("executor")) == 1

        ended = list(pool.map(lambda task: client.wait(task, 240.0), tasks))
    assert [one.state for one in ended] == ["finished"] * LOAD
    assert [client.output(one.id).decode() for one in ended] == [f"{n}\n" for n in range(LOAD)]
    assert not [one for one in client.executors() if one.running]


def test_the_engine_sees_that_they_are_healthy(yard: Engine) -> None:
    def health(container: str) -> object:
        return yard.inspect(container)["State"]["Health"]["Status"]

    for service in ("manager", "api", "executor"):
        for container in yard.containers(service):
            until(f"{service} is healthy", lambda container=container: health(container) == "healthy")  # type: ignore[misc]


def test_an_executor_that_leaves_puts_back_what_does_not_end(yard: Engine, client: Client) -> None:
    """Uncharged: the task runs again on one that stays."""
    scale(yard, 2)
    until("both are free", lambda: len(connected(client)) == 2)
    tasks = [run(client, FOR_EVER) for _ in range(2)]
    for task in tasks:
        for _ in client.logs(task):
            break
    leaving = threading.Thread(target=scale, args=(yard, 1))
    leaving.start()
    leaving.join()
    (stays,) = connected(client)
    (moved,) = [task for task in tasks if client.get(task).state != "running"]
    (other,) = set(tasks) - {moved}
    client.stop(other)

    def runs_there() -> bool:
        task = client.get(moved)
        return task.state == "running" and task.executor is not None and task.executor.name == stays

    until("it runs on the one that stays", runs_there)
    assert [one.reason for one in client.attempts(moved)] == ["drained", None]
    client.stop(moved)
    assert client.wait(moved).state == "stopped"


def test_rotated_tokens_reach_the_executors(yard: Engine, client: Client) -> None:
    yard.compose("exec", "-T", "manager", "taskyard", "token", "rotate", "--overlap", "60")
    yard.compose("run", "--rm", "tokens")
    yard.compose("restart", "-t", "60", "api", "executor")
    until("the API Server is ready", ready)
    until("an executor is free again", lambda: bool(connected(client)))
    assert client.wait(run(client, WORK, "script.py again 0")).state == "finished"
    shown = yard.compose("exec", "-T", "manager", "taskyard", "token", "show", "--reveal", "--kind", "executor")
    (container,) = yard.containers("executor")
    assert yard.docker("exec", container, "cat", "/var/lib/taskyard-token/executor") == shown


def test_published_wider_it_asks_everybody_for_the_token(yard: Engine) -> None:
    yard.compose("up", "-d", "--scale", "executor=1", TASKYARD_PUBLISH="0.0.0.0")
    until("it is ready", ready)
    assert curl(f"{URL}/api/v1/version")[0] == 401
    token = yard.compose("exec", "-T", "manager", "taskyard", "token", "show", "--reveal", "--kind", "user").strip()
    assert curl(f"{URL}/api/v1/tasks", "-H", f"Authorization: Bearer {token}")[0] == 200


def test_tasks_are_there_after_down_and_up(yard: Engine) -> None:
    """Only ``--volumes`` removes them; whatever was published before, tokens are not needed again."""
    yard.compose("down")
    yard.compose("up", "-d")
    until("it is ready", ready)
    status, listing = curl(TASKS)
    assert status == 200
    assert len(listing["tasks"]) > LOAD
    assert all(re.match(r"[\w-]+$", name) for name in listing["tasks"])
