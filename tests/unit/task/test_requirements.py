"""Requirements and PEP 723, read."""

from __future__ import annotations

import pytest

from taskyard.errors import InvalidInput
from taskyard.task.model import Needs, Spec, requirement_of
from taskyard.task.requirements import (
    LONGEST_REQUIREMENT,
    MOST_REQUIREMENTS,
    fits,
    requirements,
    requirements_file,
    script_needs,
)

SCRIPT = b"""\
#!/usr/bin/env python
# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "requests<3",
#   "Rich >= 13",
# ]
#
# [tool.uv]
# exclude-newer = "2025-01-01T00:00:00Z"
# ///
import requests
"""


def test_requirements_are_written_alike() -> None:
    given = [" numpy ", "numpy", "rich [jupyter]  >= 13", "a @ https://example.org/a.whl", 'b; python_version < "3.12"']
    assert requirements(given) == (
        "numpy",
        "rich[jupyter]>=13",
        "a @ https://example.org/a.whl",
        'b; python_version < "3.12"',
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no requirement"),
        ("numpy ==", "is no requirement"),
        ("-r other.txt", "option of pip"),
        ("--index-url=https://example.org", "option of pip"),
        ("numpy==2.0 --hash=sha256:00", "option of pip"),
        ("./local", "is no requirement"),
        ("a @ file:///etc", "use https"),
        ("a @ https://example.org/a.whl\n--index-url=https://example.org", "more than one line"),
        ("a @ https://example.org/a.whl\u2028-r/etc/passwd", "more than one line"),
        ("x" * (LONGEST_REQUIREMENT + 1), "longer than"),
    ],
)
def test_what_is_no_requirement(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        requirements([text])


def test_not_too_many() -> None:
    with pytest.raises(InvalidInput, match="are the most"):
        requirements(f"a{number}" for number in range(MOST_REQUIREMENTS + 1))


def test_a_file() -> None:
    text = "# packages\n\nnumpy==2.0  # pinned\nrich \\\n  >=13\na @ https://example.org/a#egg=a\n"
    assert requirements_file(text) == ("numpy==2.0", "rich>=13", "a @ https://example.org/a#egg=a")
    with pytest.raises(InvalidInput, match=r"line 1: .*option of pip"):
        requirements_file("-c constraints.txt\n")
    with pytest.raises(InvalidInput, match="line 4: 'numpy of the newest' is no requirement"):
        requirements_file("rich \\\n >=13 \\\n  ,<15\nnumpy of the newest\\")


@pytest.mark.parametrize("script", [SCRIPT, SCRIPT.replace(b"\n", b"\r\n"), b"\xff\n" + SCRIPT])
def test_a_script_says_what_it_needs(script: bytes) -> None:
    assert script_needs(script) == Needs(requirements=("requests<3", "Rich>=13"), requires_python=">=3.11")


def test_a_script_that_says_nothing() -> None:
    assert not script_needs(b"print(1)\n")
    assert not script_needs(SCRIPT.replace(b"/// script", b"/// other"))
    assert not script_needs(SCRIPT.replace(b"# ///\n", b""))
    assert not script_needs(b"# /// script\n# dependencies = []\n# ///\n")


@pytest.mark.timeout(20)
def test_many_beginnings_take_no_longer() -> None:
    assert not script_needs(b"# /// script\n" * 500_000)


def test_the_last_end_counts() -> None:
    assert script_needs(b'# /// script\n# dependencies = ["a"]\n# x = """\n# ///\n# """\n# ///\n').requirements == (
        "a",
    )
    assert not script_needs(b'# /// other\n# \n# /// script\n# dependencies = ["a"]\n# ///\n')


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (SCRIPT + SCRIPT, "several blocks"),
        (SCRIPT.replace(b'"requests<3"', b'"requests<"'), "is no requirement"),
        (SCRIPT.replace(b'">=3.11"', b'"new"'), "requires-python"),
        (SCRIPT.replace(b'">=3.11"', b"3"), "requires-python"),
        (SCRIPT.replace(b"# ]", b"# "), "is no TOML"),
        (SCRIPT.replace(b"Rich", b"\xff"), "is no TOML"),
        (b'# /// script\n# dependencies = "a"\n# ///\n', "no list of strings"),
    ],
)
def test_a_script_that_says_it_wrongly(script: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        script_needs(script)


def test_which_interpreters_fit() -> None:
    assert fits("3.11.7", "")
    assert fits("3.11.7", ">=3.11,<3.12")
    assert fits("3.14.0rc1", ">=3.13")
    assert not fits("3.10.2", ">=3.11")


@pytest.mark.parametrize(
    ("version", "asked"), [("3.11.7", "x"), ("3.11.7", ">=3.\ud800"), ("none", ">=3.11"), ("", ">=3")]
)
def test_what_nobody_can_read_fits_nothing(version: str, asked: str) -> None:
    assert not fits(version, asked)


def test_who_asks_for_the_same_has_one_digest() -> None:
    needs = Needs(requirements=("a", "b"))
    assert needs.digest == Needs(requirements=("b", "a", "b")).digest
    assert needs.digest != Needs(requirements=("a",)).digest != Needs(requirements=("a",), requires_python=">=3").digest
    assert Needs().digest == ""


def test_a_spec_asks_for_what_the_task_and_its_script_need() -> None:
    spec = Spec(
        arguments=("a.py",),
        requirements=("a",),
        script_needs=Needs(requirements=("b",), requires_python=">=3.11"),
    )
    assert spec.needs == Needs(requirements=("a", "b"), requires_python=">=3.11")
    assert requirement_of(spec).environment == spec.needs.digest
    assert requirement_of(spec).python == ">=3.11"
    assert requirement_of(Spec(arguments=("a.py",))).environment == ""
