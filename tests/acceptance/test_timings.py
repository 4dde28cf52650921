"""How an attempt was started and how long each step took, as users and operators see it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.acceptance.processes import Yard


def test_status_api_and_metrics_tell_how_an_attempt_went(shared_yard: Yard, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("print(1)\n")
    for name, words in (("a-script", [str(script)]), ("a-program", ["--program", "/bin/echo", "1"])):
        assert shared_yard.cli("run", "--name", name, *words).returncode == 0
    task = json.loads(shared_yard.cli("status", "a-script", "--json").stdout)
    assert task["started_by"] in ("spare", "fork", "fresh")
    timings = task["timings"]
    in_order = [timings[step] for step in ("commit", "dispatch", "start", "end")]
    assert in_order == sorted(in_order)
    assert timings["start"] <= timings["first_output"] <= timings["end"]
    assert 0 < timings["executor_start"] <= timings["executor_first_output"] <= timings["end"]
    assert timings["executor_start"] <= timings["executor_end"] <= timings["end"]
    assert shared_yard.cli("run", "--fresh", "--name", "asked-for", str(script)).returncode == 0
    _, fresh = shared_yard.curl_json("/api/v2/tasks/asked-for")
    assert (fresh["fork"], fresh["started_by"]) == ("never", "fresh")
    assert task["fork"] == "auto"
    _, attempts = shared_yard.curl_json("/api/v2/tasks/a-program/attempts")
    assert attempts["attempts"][0]["started_by"] == "program"
    shown = shared_yard.cli("status", "a-program").stdout.decode()
    assert re.search(r"started by +program", shown)
    assert re.search(r"after submit +commit [\d.]+m?s, dispatch [\d.]+m?s, start ", shown)
    status, body = shared_yard.curl("/metrics")
    assert status == 200
    for name in ("taskyard_attempt_seconds", "taskyard_executor_seconds"):
        for step in ("start", "first_output", "end"):
            assert f'{name}_count{{started_by="program",step="{step}"}} 1.0' in body.decode()


def test_whatever_is_run_starts_fresh_where_that_is_asked_for(shared_yard: Yard, tmp_path: Path) -> None:
    script, folder = tmp_path / "job.py", tmp_path / "folder"
    text = '# /// script\n# requires-python = ">=3.9"\n# ///\nimport sys; print(*sys.argv[1:])\n'
    script.write_text(text)
    folder.mkdir()
    (folder / "__main__.py").write_text(text)
    cases = {
        "fresh-script": ([str(script)], "fresh"),
        "fresh-folder": ([str(folder)], "fresh"),
        "fresh-module": (["-i", str(script), "-m", "job"], "fresh"),
        "fresh-list": (["--program", "echo"], "program"),
    }
    for name, (words, how) in cases.items():
        ran = shared_yard.cli("run", "--fresh", "--name", name, *words, "-n", "1")
        assert (ran.returncode, ran.stdout) == (0, b"1" if how == "program" else b"-n 1\n"), ran.stderr
        _, task = shared_yard.curl_json(f"/api/v2/tasks/{name}")
        assert (task["fork"], task["started_by"]) == ("never", how)
