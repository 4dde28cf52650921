"""docs/performance.md says what was measured, and the record of the benchmarks keeps it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from benchmarks import page, plot, record
from benchmarks.figures import Figure


def test_the_page_says_what_was_measured() -> None:
    assert page.filled(page.PAGE.read_text(), record.load(page.FIGURES)) == page.PAGE.read_text()


def test_the_plot_shows_what_was_measured() -> None:
    drawn = plot.drawn(record.load(page.FIGURES))
    assert drawn == page.PLOT.read_text()
    ElementTree.fromstring(drawn)


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    without = page.PAGE.read_text().replace("<!-- peers -->", "")
    with pytest.raises(ValueError, match="0 places for peers"):
        page.filled(without, record.load(page.FIGURES))


def test_figures_that_are_not_measured_anew_stay(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    missed = Figure("slow", 0.7, "x bare", demand=0.5, details={"bare p50 s": 0.01})
    record.keep(file, "benchmarks", {"latency": [record.encoded(missed)]})
    record.keep(file, "benchmarks", {"storm": []})
    record.keep(file, "peers", {"ray": {"samples": 100}})
    found = json.loads(file.read_text())
    assert set(found["benchmarks"]) == {"latency", "storm"}
    assert found["benchmarks"]["latency"][0]["met"] is False
    assert found["benchmarks"]["latency"][0]["details"] == {"bare p50 s": 0.01}
    assert found["peers"] == {"ray": {"samples": 100}}


def test_a_figure_that_is_missed_is_marked() -> None:
    found = record.load(page.FIGURES)
    found["benchmarks"] = {"latency": [record.encoded(Figure("slow", 0.7, "x bare", demand=0.5))]}
    row = next(line for line in page.filled(page.PAGE.read_text(), found).splitlines() if line.startswith("| slow"))
    assert "| ≤ 0.5 |" in row
    assert "| **no** |" in row
