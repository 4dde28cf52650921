"""The plot of the peers, as SVG written by hand: no library is needed for bars."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.ways import FORK, IN_WORKER, OWN_PROCESS

COLOURS = {OWN_PROCESS: "#1b6ca8", FORK: "#8a63b8", IN_WORKER: "#c9a227"}
KINDS = (OWN_PROCESS, FORK, IN_WORKER)
WIDTH, ROW, TOP, LEFT, PANEL, GAP = 1060, 20, 96, 330, 300, 90


def rows(peers: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Each system's ways: those in a process of their own first, as they are alike; then in the order of the catalogue."""
    for kind in KINDS:
        for name in PEERS:
            if name in peers:
                for way in peers[name]["ways"]:
                    if way["kind"] == kind:
                        yield peers[name], way


def drawn(found: Mapping[str, Any]) -> str:
    """Two panels of bars: milliseconds of one task (logarithmic), and tasks per second of a batch."""
    bars = list(rows(found["peers"]))
    height = TOP + ROW * len(bars) + 20
    right = LEFT + PANEL + GAP
    most_rate = max(way["batch tasks/s"] for _, way in bars)
    bare = sorted(one["bare p50 s"] for one in found["peers"].values())
    bare_x = LEFT + _log(bare[len(bare) // 2] * 1000)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(12, 24, "The same script of one line, two slots, warm pools", size=16),
        *(_legend(number, kind) for number, kind in enumerate(KINDS)),
        _text(LEFT, TOP - 26, "one at a time: p50 in ms, logarithmic (less is better)"),
        _text(right, TOP - 26, "500 at once, tasks/s (more is better)"),
    ]
    for decade in (1, 10, 100, 1000):
        x = LEFT + _log(decade)
        parts += [_line(x, TOP - 6, height - 20, "#dddddd"), _text(x, TOP - 10, str(decade), "middle")]
    parts += [_line(bare_x, TOP - 6, height - 20, "#b03030"), _text(bare_x, height - 6, "bare interpreter", "middle")]
    for number, (one, way) in enumerate(bars):
        y = TOP + ROW * number
        colour = COLOURS[way["kind"]]
        label = one["title"] + (f" ({way['client']})" if way["client"] else "")
        milliseconds, rate = way["p50 s"] * 1000, way["batch tasks/s"]
        parts += [
            _text(LEFT - 8, y + 13, label, "end", bold=one["title"].startswith("Taskyard")),
            *_bar(LEFT, y, _log(milliseconds), colour, f"{milliseconds:.1f}"),
            *_bar(right, y, PANEL * rate / most_rate, colour, f"{rate:.0f}"),
        ]
    return "\n".join([*parts, "</svg>", ""])


def _log(milliseconds: float) -> float:
    """How far from the left 1 ms to 1 s stand."""
    return max(2.0, PANEL * math.log10(max(milliseconds, 1.0)) / 3)


def _legend(number: int, kind: str) -> str:
    x = 12 + 290 * number
    return f'<rect x="{x}" y="38" width="12" height="12" fill="{COLOURS[kind]}"/>' + _text(x + 18, 48, kind)


def _bar(x: float, y: float, width: float, colour: str, label: str) -> tuple[str, str]:
    bar = f'<rect x="{x:.1f}" y="{y + 2}" width="{width:.1f}" height="{ROW - 5}" fill="{colour}"/>'
    return bar, _text(x + width + 4, y + 13, label)


def _line(x: float, top: float, bottom: float, colour: str) -> str:
    return f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", *, size: int = 12, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" font-size="{size}"{weight}>{escape(text)}</text>'
