from __future__ import annotations

import pytest

from taskyard.executor.likeness import why_not

ZYGOTES = {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", "PATH": "/bin"}


@pytest.mark.parametrize("arguments", [("a.py",), ("a.py", "-O"), ("sub/a.py",), ("-m", "a"), ("-c", "pass", "-u")])
def test_what_is_run_warm(arguments: tuple[str, ...]) -> None:
    assert why_not(arguments, {**ZYGOTES, "HOME": "/home", "X": "1"}, ZYGOTES, ["a.py"], ["numpy"]) == ""


@pytest.mark.parametrize(
    "arguments", [(), ("-O", "a.py"), ("-",), ("-m",), ("-c",), ("-mjson",), ("folder",), ("a.pyz",)]
)
def test_what_the_interpreter_has_to_read_itself(arguments: tuple[str, ...]) -> None:
    assert why_not(arguments, ZYGOTES, ZYGOTES, (), ()) != ""


@pytest.mark.parametrize(
    "name", ["PYTHONHASHSEED", "TZ", "LD_PRELOAD", "OMP_NUM_THREADS", "LC_ALL", "LANG", "MKL_THREADS"]
)
def test_variables_that_are_read_at_the_start(name: str) -> None:
    assert name in why_not(("a.py",), {**ZYGOTES, name: "other"}, ZYGOTES, (), ())


def test_a_variable_of_the_zygotes_that_is_missing() -> None:
    assert "LANG" in why_not(("a.py",), {"PYTHONUNBUFFERED": "1"}, ZYGOTES, (), ())


@pytest.mark.parametrize("name", ["numpy.py", "numpy", "numpy.cpython-311-x86_64-linux-gnu.so"])
def test_a_name_that_is_taken_by_what_was_imported_ahead(name: str) -> None:
    assert "numpy" in why_not(("a.py",), ZYGOTES, ZYGOTES, ["a.py", name], ["numpy", "json"])
    assert why_not(("a.py",), ZYGOTES, ZYGOTES, ["a.py", name], ["json"]) == ""
