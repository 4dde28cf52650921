"""What a benchmark found: one figure, what was asked for, and whether that is met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """``demand`` and ``aim`` are the most that is allowed, or, with ``at_least``, the least; without them it is only reported.

    ``baseline`` is what the same run measured beside it, in the same unit; ``details`` is what else belongs to it, by name.
    """

    name: str
    value: float
    unit: str
    demand: float | None = None
    aim: float | None = None
    at_least: bool = False
    baseline: float | None = None
    details: Mapping[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether the value is within the demand; true where none is made."""
        return self.demand is None or self._within(self.demand)

    def __str__(self) -> str:
        """One line."""
        line = f"{self.name:<76} {self.value:10.4g} {self.unit:<8}"
        if self.baseline is not None:
            line += f" baseline {self.baseline:.4g}, ratio {self.value / self.baseline:.2f};"
        if self.demand is not None:
            bound = "at least" if self.at_least else "at most"
            line += f" asked for: {bound} {self.demand:g}"
            line += f" (aim {self.aim:g})" if self.aim is not None else ""
            line += f": {self._verdict()}"
        return line.rstrip(" ;")

    def _within(self, bound: float) -> bool:
        return self.value >= bound if self.at_least else self.value <= bound

    def _verdict(self) -> str:
        if not self.met:
            return "MISSED"
        return "met, the aim too" if self.aim is not None and self._within(self.aim) else "met"
