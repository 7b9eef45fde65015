"""What the measurements have in common: contenders side by side in one run, medians, a table, a JSON file."""

from __future__ import annotations

import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

OUTPUT = Path("build/bench")

# Every server that is measured is on this machine; the processes that the contenders start inherit it.
os.environ["LAKEBASE_ALLOW_LOOPBACK"] = "1"


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


def fresh(module: str, *arguments: str) -> dict[str, float]:
    """Run a module in a process of its own and return the figures that it prints as JSON.

    A contender so neither profits from what another imported nor pays for the memory that it left behind.

    Args:
        module: The module, such as ``"benchmarks.load_contenders"``.
        arguments: Its arguments.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(figures: Mapping[str, float]) -> None:
    """Print figures for :func:`fresh`, on a line of their own after whatever else was printed."""
    sys.__stdout__.write("\n" + json.dumps(figures) + "\n")


class Stopwatch:
    """Seconds, CPU seconds and growth of the peak memory of what runs inside of it, in this process.

    Attributes:
        seconds: Wall clock.
        cpu: CPU seconds of this process, and of children that ended meanwhile.
        growth: Bytes by which the peak of the resident memory exceeds that at the start; 0 where the system
            cannot tell (other than Linux).
    """

    seconds = cpu = growth = 0.0

    def __enter__(self) -> Stopwatch:
        gc.collect()
        self._resident = _peak(reset=True)
        self._cpu = _cpu_seconds()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.seconds = time.perf_counter() - self._start
        self.cpu = _cpu_seconds() - self._cpu
        self.growth = max(_peak() - self._resident, 0)


def _cpu_seconds() -> float:
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def _peak(*, reset: bool = False) -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    if reset:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


class Bench:
    """Collects rows and goals of one benchmark.

    Args:
        name: Names the JSON file.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._begun = time.perf_counter()
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

    def compare_runs(
        self,
        comparison: str,
        units: Mapping[str, str],
        contenders: Mapping[str, Callable[[], Mapping[str, float]]],
        *,
        rounds: int = 5,
    ) -> dict[str, dict[str, list[float]]]:
        """Like :meth:`compare`, for contenders of which each run gives several figures.

        Args:
            comparison: What is measured.
            units: The figures' names, with their units.
            contenders: Functions that run once and return the figures.
            rounds: How many rounds are counted.

        Returns:
            For each figure, those of the counted rounds by contender.
        """
        figures: dict[str, dict[str, list[float]]] = {
            name: {contender: [] for contender in contenders} for name in units
        }
        for counted in [False] + [True] * rounds:
            for contender, run in contenders.items():
                found = run()
                if counted:
                    for name in units:
                        figures[name][contender].append(found[name])
        for name, unit in units.items():
            for contender, values in figures[name].items():
                median = statistics.median(values)
                row = Row(f"{comparison}: {name}", contender, median, unit, min(values), max(values), rounds)
                self._rows.append(row)
        return figures

    @staticmethod
    def ratio(figures: Mapping[str, list[float]], contender: str, peer: str) -> float:
        """Median of the ratios round by round: what drifts in the machine drifts in both of a round."""
        return statistics.median(a / b for a, b in zip(figures[contender], figures[peer], strict=True))

    def record(self, comparison: str, contender: str, figure: float, unit: str) -> None:
        """A figure that was counted once and does not vary."""
        self._rows.append(Row(comparison, contender, figure, unit, figure, figure, 1))

    def record_many(self, comparison: str, contender: str, figures: list[float], unit: str) -> None:
        """Figures of rounds that the benchmark counted itself."""
        median = statistics.median(figures)
        self._rows.append(Row(comparison, contender, median, unit, min(figures), max(figures), len(figures)))

    def at_most(self, name: str, measured: float, bound: float) -> None:
        """A goal that a figure stays below."""
        self._goals.append(Goal(name, f"<= {bound:g}", measured, measured <= bound))

    def at_least(self, name: str, measured: float, bound: float) -> None:
        """A goal that a figure reaches."""
        self._goals.append(Goal(name, f">= {bound:g}", measured, measured >= bound))

    def finish(self) -> int:
        """Print the table and how long the measurement took, write the JSON file.

        Returns:
            0 if every goal is met, else 1.
        """
        print(f"\n{'comparison':<38}{'contender':<38}{'median':>12}{'min':>12}{'max':>12}  unit")
        for row in self._rows:
            figures = f"{row.median:>12.3f}{row.low:>12.3f}{row.high:>12.3f}"
            print(f"{row.comparison:<38}{row.contender:<38}{figures}  {row.unit}")
        print(f"\n{'goal':<76}{'bound':>12}{'measured':>12}")
        for goal in self._goals:
            print(f"{goal.name:<76}{goal.goal:>12}{goal.measured:>12.3f}  {'met' if goal.met else 'NOT MET'}")
        seconds = time.perf_counter() - self._begun
        print(f"\n{self._name}: {seconds / 60:.1f} minutes")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak_bytes = peak if sys.platform == "darwin" else peak * 1024
        OUTPUT.mkdir(parents=True, exist_ok=True)
        result = {
            "name": self._name,
            "rows": [asdict(row) for row in self._rows],
            "goals": [asdict(goal) for goal in self._goals],
            "peak_rss_bytes": peak_bytes,
            "seconds": round(seconds, 1),
        }
        (OUTPUT / f"{self._name}.json").write_text(json.dumps(result, indent=2) + "\n")
        return 0 if all(goal.met for goal in self._goals) else 1
