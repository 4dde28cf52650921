"""What the images are made of agrees with the rest of the repository. That they work is shown by tests/containers."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "deploy" / "images"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

Pins = dict[str, tuple[str, frozenset[str]]]


def pins(path: Path) -> Pins:
    """Each package of a lock: what stands behind its name, and its hashes."""
    found: Pins = {}
    for entry in re.split(r"\n(?=\S)", path.read_text()):
        if match := re.match(r"([\w.-]+)(==[^\\\n]+)", entry):
            found[match[1]] = (match[2].strip(), frozenset(re.findall(r"--hash=(\S+)", entry)))
    return found


@pytest.mark.parametrize("name", ["run.lock", "build.lock"])
def test_images_have_the_pins_that_the_tests_have(name: str) -> None:
    everything, some = pins(ROOT / "requirements.lock"), pins(IMAGES / name)
    assert some
    assert {package: everything.get(package) for package in some} == some
    assert all(hashes for _, hashes in some.values())


def test_they_have_what_the_package_needs() -> None:
    assert {Requirement(one).name for one in PROJECT["dependencies"]} <= pins(IMAGES / "run.lock").keys()
    assert (IMAGES / "build.in").read_text().split() == tomllib.loads((ROOT / "pyproject.toml").read_text())[
        "build-system"
    ]["requires"]


def test_the_label_is_the_version() -> None:
    assert f"ARG VERSION={PROJECT['version']}\n" in (ROOT / "Dockerfile").read_text()
