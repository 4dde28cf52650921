from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from taskyard import log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def stderr(monkeypatch: pytest.MonkeyPatch, *, terminal: bool = False) -> io.StringIO:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_of_json_tells_component_level_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = stderr(monkeypatch)
    log.configure("manager", "info", "json")
    structlog.get_logger().info("listening", port=5556)
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "listening", "level": "info", "component": "manager", "port": 5556}


class Writes(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def write(self, text: str) -> int:
        self.written.append(text)
        return super().write(text)


def test_a_line_is_one_write_as_several_processes_share_a_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Writes()
    monkeypatch.setattr(sys, "stderr", stream)
    log.configure("executor", "info", "json")
    structlog.get_logger().info("connected")
    logging.getLogger("some.library").warning("odd")
    assert len(stream.written) == 2
    assert all(text.endswith("}\n") for text in stream.written)


def test_the_standard_librarys_log_goes_the_same_way_from_warning_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = stderr(monkeypatch)
    log.configure("manager", "debug", "json")
    logging.getLogger("some.library").info("talkative")
    logging.getLogger("some.library").warning("odd: %s", 7)
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["component"]) == ("odd: 7", "warning", "manager")


@pytest.mark.parametrize(
    ("level", "expected"),
    [("debug", ["a", "b", "c"]), ("info", ["b", "c"]), ("warning", ["c"]), ("error", [])],
)
def test_lines_below_the_level_are_left_out(monkeypatch: pytest.MonkeyPatch, level: str, expected: list[str]) -> None:
    stream = stderr(monkeypatch)
    log.configure("api", level, "json")
    logger = structlog.get_logger()
    logger.debug("a")
    logger.info("b")
    logger.warning("c")
    assert [line["event"] for line in lines(stream)] == expected


@pytest.mark.parametrize(
    ("log_format", "terminal", "human"),
    [("human", False, True), ("json", True, False), ("auto", True, True), ("auto", False, False)],
)
def test_people_on_a_terminal_get_no_json(
    monkeypatch: pytest.MonkeyPatch, log_format: str, terminal: bool, human: bool
) -> None:
    stream = stderr(monkeypatch, terminal=terminal)
    log.configure("api", "info", log_format)
    structlog.get_logger().info("listening")
    assert "listening" in stream.getvalue()
    assert stream.getvalue().startswith("{") is not human


@pytest.mark.parametrize("log_format", ["human", "json"])
def test_a_traceback_shows_no_values(monkeypatch: pytest.MonkeyPatch, log_format: str) -> None:
    stream = stderr(monkeypatch)
    log.configure("api", "info", log_format)

    def fail(token: str) -> None:
        raise RuntimeError("a fault of ours")

    for logger in (structlog.get_logger(), logging.getLogger("some.library")):
        try:
            fail("".join(["hid", "den"]))
        except RuntimeError:
            logger.exception("failed")
    assert stream.getvalue().count("RuntimeError: a fault of ours") == 2
    assert "hidden" not in stream.getvalue()
