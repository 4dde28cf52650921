"""Writes the tables of docs/performance.md and its plot from what was measured: ``python -m benchmarks.page``.

The figures lie in docs/performance.json, as ``--json`` of the benchmarks writes them. Nothing else has numbers of them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import plot, record

DOCS = Path(__file__).resolve().parent.parent / "docs"
FIGURES = DOCS / "performance.json"
PAGE = DOCS / "performance.md"
PLOT = DOCS / "performance.svg"


def main() -> int:
    found = record.load(FIGURES)
    PAGE.write_text(filled(PAGE.read_text(), found))
    PLOT.write_text(plot.drawn(found))
    return 0


def filled(page: str, found: Mapping[str, Any]) -> str:
    """The page with what stands between its marks (``<!-- NAME -->`` to ``<!-- end -->``) made anew."""
    parts = {"machine": found["machine"], "figures": _figures(found["benchmarks"]), "peers": _peers(found["peers"])}
    for name, text in parts.items():
        start, end = f"<!-- {name} -->\n", "<!-- end -->"
        if page.count(start) != 1:
            raise ValueError(f"the page has {page.count(start)} places for {name}")
        before, _, rest = page.partition(start)
        page = f"{before}{start}\n{text}\n\n{end}{rest.partition(end)[2]}"
    return page


def _figures(benchmarks: Mapping[str, Any]) -> str:
    lines = [
        "| figure | measured | asked for | aim | is it met? | beside it |",
        "|---|---|---|---|---|---|",
    ]
    for name in sorted(benchmarks, key=_position):
        for figure in benchmarks[name]:
            lines.append(
                f"| {figure['name']} | {figure['value']:.4g} {figure['unit']} | {_bound(figure, 'demand')} | "
                f"{_bound(figure, 'aim')} | {_verdict(figure)} | {_beside(figure)} |"
            )
    return "\n".join(lines)


def _position(name: str) -> tuple[int, str]:
    """What users compare first, then the manager alone."""
    first = ("latency", "first-output", "numpy", "throughput")
    return (first.index(name) if name in first else len(first), name)


def _bound(figure: Mapping[str, Any], which: str) -> str:
    if figure[which] is None:
        return ""
    return f"{'≥' if figure['at_least'] else '≤'} {figure[which]:g}"


def _verdict(figure: Mapping[str, Any]) -> str:
    if figure["demand"] is None:
        return ""
    return "yes" if figure["met"] else "**no**"


def _beside(figure: Mapping[str, Any]) -> str:
    said = [f"baseline {figure['baseline']:.4g}"] if figure["baseline"] is not None else []
    for name, value in figure["details"].items():
        said.append(f"{name[:-2]} {value * 1000:.2f} ms" if name.endswith(" s") else f"{name} {value:.4g}")
    return "; ".join(said)


def _peers(peers: Mapping[str, Any]) -> str:
    lines = [
        "| system | how a task runs | p50 | p99 | p50 / bare | 500 at once | idle |",
        "|---|---|---|---|---|---|---|",
    ]
    for found, way in plot.rows(peers):
        client = f" ({way['client']})" if way["client"] else ""
        lines.append(
            f"| {found['title']} ({', '.join(found['versions'])}) | {way['kind']}{client} | {way['p50 s'] * 1000:.2f} ms | "
            f"{way['p99 s'] * 1000:.2f} ms | {way['p50 s'] / found['bare p50 s']:.2f} | {way['batch tasks/s']:.0f} /s | "
            f"{found['idle percent of a core']:.1f}% of a core, {found['idle MiB']:.0f} MiB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
