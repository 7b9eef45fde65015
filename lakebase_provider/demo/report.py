"""The demo's one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from lakebase_provider.core.upkeep.health.stages import HealthReport
from lakebase_provider.demo.expected import Difference
from lakebase_provider.demo.leaks import Search

if TYPE_CHECKING:
    from lakebase_provider.demo.run import Run
    from lakebase_provider.local.contract.records import Counters

_COLOURS = {"success": "green", "ok": "green", "as expected": "green"}


def print_report(
    console: Console,
    runs: Sequence[Run],
    counters: Counters,
    health: HealthReport,
    differences: Sequence[Difference],
    search: Search,
    *,
    renewed: bool,
    passed: bool,
) -> None:
    """Print tasks and steps, rows, tokens, connections and health as one table.

    Args:
        console: Where to.
        runs: The runs of the examples.
        counters: What the local Lakebase counted while they ran.
        health: The health report after them.
        differences: Figures of their tables, expected and found.
        search: The search for secrets in what the runs left behind.
        renewed: Each run renewed its token at least once.
        passed: The demo's verdict.
    """
    table = Table(box=box.SIMPLE_HEAD, title="Lakebase demo", title_justify="left")
    for heading in ("", "what", "state"):
        table.add_column(heading)
    table.add_column("seconds", justify="right")

    def row(group: str, what: str, state: str, seconds: float | None = None) -> None:
        colour = _COLOURS.get(state, "red" if state.startswith(("failed", "not ", "upstream")) else "default")
        table.add_row(group, what, f"[{colour}]{state}[/]", "" if seconds is None else f"{seconds:.2f}")

    for run in runs:
        for step in run.steps:
            row(run.title, f"{step['kind']} {step['name']}", step["state"], step["seconds"])
        if not run.succeeded:
            row(run.title, f"see {run.log}", "failed")
        table.add_section()
    for difference in differences:
        state = "as expected" if difference.as_expected else f"not {difference.expected}"
        row("rows", f"{difference.table}: {difference.figure} {difference.found}", state)
    table.add_section()
    for run in runs:
        row("tokens", f"{run.title}: {run.mints} minted, {max(0, run.mints - 1)} of them renewals", "")
        row("connections", f"{run.title}: {run.connections} opened for {run.checkouts} checkouts", "")
    row(
        "server",
        f"{counters.mints} tokens minted, {counters.logins} logins, {counters.refused_logins} refused",
        "",
    )
    if not renewed:
        row("tokens", "a run ended before its token had to be renewed", "failed")
    searched = f"none of them in {search.files} files, {search.bytes / 1e6:.1f} MB, logs at DEBUG included"
    row("secrets", "; ".join(search.leaks) or searched, "failed" if search.leaks else "ok")
    table.add_section()
    for stage in health.stages:
        row("health", f"{stage.name}: {stage.detail}", stage.status, stage.ms / 1000)
    console.print(table)
    console.print(
        "[green]everything is as expected[/]" if passed else "[red]something is wrong: see above[/]"
    )
