"""What the measurements have in common: contenders side by side in one run, medians, a table, a JSON file."""

from __future__ import annotations

import json
import resource
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

OUTPUT = Path("build/bench")


@dataclass(frozen=True)
class Row:
    """A contender's figures in one comparison.

    Attributes:
        comparison: What was measured.
        contender: Who.
        median: Median over the rounds, in `unit`.
        unit: Unit of the figures.
        low: Smallest figure.
        high: Largest figure.
        rounds: How many rounds were counted.
    """

    comparison: str
    contender: str
    median: float
    unit: str
    low: float
    high: float
    rounds: int


@dataclass(frozen=True)
class Goal:
    """A goal and what was measured.

    Attributes:
        name: What it is about.
        goal: The bound, as text.
        measured: The figure.
        met: Whether it holds.
    """

    name: str
    goal: str
    measured: float
    met: bool


class Bench:
    """Collects rows and goals of one benchmark.

    Args:
        name: Names the JSON file.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._rows: list[Row] = []
        self._goals: list[Goal] = []

    def compare(
        self,
        comparison: str,
        unit: str,
        contenders: Mapping[str, Callable[[], float]],
        *,
        rounds: int = 5,
    ) -> dict[str, list[float]]:
        """Let each contender run once to warm up, then in turn; each returns its figure.

        Args:
            comparison: What is measured.
            unit: Unit of the figures.
            contenders: Functions that run once and return the figure.
            rounds: How many rounds are counted.

        Returns:
            The figures of the counted rounds, by contender.
        """
        figures: dict[str, list[float]] = {name: [] for name in contenders}
        for counted in [False] + [True] * rounds:
            for name, run in contenders.items():
                figure = run()
                if counted:
                    figures[name].append(figure)
        for name, found in figures.items():
            median = statistics.median(found)
            self._rows.append(Row(comparison, name, median, unit, min(found), max(found), rounds))
        return figures

    @staticmethod
    def ratio(figures: Mapping[str, list[float]], contender: str, peer: str) -> float:
        """Median of the ratios round by round: what drifts in the machine drifts in both of a round."""
        return statistics.median(a / b for a, b in zip(figures[contender], figures[peer], strict=True))

    def record(self, comparison: str, contender: str, figure: float, unit: str) -> None:
        """A figure that was counted once and does not vary."""
        self._rows.append(Row(comparison, contender, figure, unit, figure, figure, 1))

    def at_most(self, name: str, measured: float, bound: float) -> None:
        """A goal that a figure stays below."""
        self._goals.append(Goal(name, f"<= {bound:g}", measured, measured <= bound))

    def at_least(self, name: str, measured: float, bound: float) -> None:
        """A goal that a figure reaches."""
        self._goals.append(Goal(name, f">= {bound:g}", measured, measured >= bound))

    def finish(self) -> int:
        """Print the table, write the JSON file.

        Returns:
            0 if every goal is met, else 1.
        """
        print(f"\n{'comparison':<34}{'contender':<34}{'median':>12}{'min':>12}{'max':>12}  unit")
        for row in self._rows:
            figures = f"{row.median:>12.3f}{row.low:>12.3f}{row.high:>12.3f}"
            print(f"{row.comparison:<34}{row.contender:<34}{figures}  {row.unit}")
        print(f"\n{'goal':<68}{'bound':>12}{'measured':>12}")
        for goal in self._goals:
            print(f"{goal.name:<68}{goal.goal:>12}{goal.measured:>12.3f}  {'met' if goal.met else 'NOT MET'}")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak_bytes = peak if sys.platform == "darwin" else peak * 1024
        OUTPUT.mkdir(parents=True, exist_ok=True)
        result = {
            "name": self._name,
            "rows": [asdict(row) for row in self._rows],
            "goals": [asdict(goal) for goal in self._goals],
            "peak_rss_bytes": peak_bytes,
        }
        (OUTPUT / f"{self._name}.json").write_text(json.dumps(result, indent=2) + "\n")
        return 0 if all(goal.met for goal in self._goals) else 1
