"""One HTML page of what an inspection and a health check found: no script, nothing from elsewhere.

It is given results, and asks nobody. All text in it is text: names are a database's, messages a server's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from lakebase_provider.core.base.plain_text import escaped
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.upkeep.inspection.inspection_report import (
    InspectionFinding,
    InspectionReport,
    shown,
)

if TYPE_CHECKING:
    from lakebase_provider.core.upkeep.health.stages import HealthReport, StageResult

#: Characters of a text that is somebody else's.
_LONGEST = 1000
#: Titles of columns that hold numbers.
_NUMBERS = {"Time", "Value", "Limit", "Pid", "For", "Transaction", "Age", "Connecting", "Connections"}
#: The end of a table.
TABLE_END = "</tbody></table></div>"
#: Seconds that a new token lives, and below which it is short-lived.
_TOKEN_LIFE, _SHORT_LIFE = 3600.0, 300.0
#: Shares of the connections that the check of an inspection warns of.
_HIGH_SHARE, _BAD_SHARE = 0.7, 0.85
#: Statuses with what the page calls them, which are also their classes; the worst first.
_STATUSES = {"failed": "failed", "bad": "bad", "warn": "warning", "ok": "ok", "skipped": "skipped"}

#: What makes it light and dark, narrow and wide, and fit to print.
STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b2127; --faint: #59636e; --line: #d5dade;
  --band: #f4f6f8; --ok: #1a7f4b; --warn: #8f5700; --bad: #b3261e; --bar: #2f6fde; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181c; --ink: #e6eaee; --faint: #9aa6b2;
  --line: #343c44; --band: #1d2329; --ok: #5dcb92; --warn: #efb04b; --bad: #ff8a80; --bar: #7aa7ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 68rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1rem 0 0; } header h3 { margin: 0; }
p { margin: .3rem 0; } .faint { color: var(--faint); }
.status { font-weight: 600; white-space: nowrap; } .status::before { content: "● "; }
.ok { color: var(--ok); } .warn { color: var(--warn); } .bad, .failed { color: var(--bad); }
.skipped { color: var(--faint); }
.counts { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; margin: .8rem 0 0; padding: 0;
  list-style: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: normal; }
td.when { width: 30%; }
td.text { overflow-wrap: anywhere; min-width: 10rem; }
th { color: var(--faint); font-weight: 500; white-space: nowrap; }
.number { text-align: right; white-space: nowrap; }
svg { display: block; width: 100%; height: .9rem; min-width: 6rem; } svg rect { fill: var(--bar); }
svg rect.track { fill: var(--line); } svg rect.bad, svg rect.failed { fill: var(--bad); }
svg rect.warn { fill: var(--warn); }
.meters { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: .5rem 2rem; }
article { border: 1px solid var(--line); border-radius: .4rem; padding: .7rem .9rem; margin: .7rem 0;
  break-inside: avoid; }
article header { display: flex; flex-wrap: wrap; gap: 0 1rem; align-items: baseline; }
.remedy { background: var(--band); border-radius: .3rem; padding: .3rem .6rem; }
code { font: .92em ui-monospace, monospace; }
@media print { body { max-width: none; padding: 0; font-size: 11px; } .scroll { overflow: visible; } }
"""
#: A page that is opened from a mail or a web server cannot be made to load anything.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def html_report(
    *,
    inspection: InspectionReport | None = None,
    health: HealthReport | None = None,
    title: str | None = None,
) -> str:
    """One HTML page that needs nothing else: for a browser, a mail, or an artefact of CI.

    Args:
        inspection: What ``client.inspect`` has returned.
        health: What ``client.health`` has returned.
        title: What it is about; the database by default.

    Raises:
        ConfigError: Neither is given.

    Example:
        >>> page = html_report(inspection=client.inspect(), health=client.health())
        >>> Path("lakebase.html").write_text(page, encoding="utf-8")
    """
    if inspection is None and health is None:
        raise ConfigError("There is nothing to report.", remedy="Give inspection, health, or both.")
    named = title or ("Lakebase" if inspection is None else f"Database {inspection.database}")
    return "\n".join(_page(named, inspection, health)) + "\n"


def _page(title: str, inspection: InspectionReport | None, health: HealthReport | None) -> Iterator[str]:
    yield from document_head(title, STYLE, POLICY)
    yield f"<body>\n<main>\n<header>\n<h1>{as_text(title)}</h1>"
    if inspection is not None:
        yield surroundings(inspection)
    yield from counts(_statuses(inspection, health))
    yield "</header>"
    yield from sections(inspection, health)
    yield "</main>\n</body>\n</html>"


def document_head(title: str, style: str, policy: str | None = None) -> Iterator[str]:
    """What comes before a page's body.

    Args:
        title: The title, as plain text.
        style: Its style sheet.
        policy: Its Content-Security-Policy; None if a header says it.
    """
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    if policy is not None:
        yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{as_text(title)}</title>\n<style>{style}</style>\n</head>"


def surroundings(inspection: InspectionReport) -> str:
    """What was inspected, and when."""
    return (
        f'<p class="faint">Postgres {as_text(inspection.server_version)}, {as_text(inspection.taken_at)}; '
        f"{len(inspection.findings)} checks in {inspection.seconds:,.1f} s. "
        f"Its counters cover {inspection.statistics_days:,.1f} days.</p>"
    )


def sections(inspection: InspectionReport | None, health: HealthReport | None) -> Iterator[str]:
    """What the report says of each, for a page that has a head of its own."""
    if health is not None:
        yield from _health(health)
    if inspection is not None:
        yield from _inspection(inspection)


def _statuses(inspection: InspectionReport | None, health: HealthReport | None) -> list[str]:
    stages = () if health is None else health.stages
    findings = () if inspection is None else inspection.findings
    return [*(stage.status for stage in stages), *(finding.status for finding in findings)]


def counts(statuses: Sequence[str]) -> Iterator[str]:
    """How many there are of each status, the worst first."""
    yield '<ul class="counts">'
    for status in (one for one in _STATUSES if one in statuses):
        yield f"<li>{marked(status)} {statuses.count(status)}</li>"
    yield "</ul>"


def _health(health: HealthReport) -> Iterator[str]:
    yield "<section>\n<h2>The way to the database</h2>"
    yield from _meters(health.figures)
    whole = sum(stage.ms for stage in health.stages) or 1.0
    yield from table_head("Stage", "Status", "Time", "When", "Found")
    start = 0.0
    for stage in health.stages:
        yield _stage(stage, start / whole, stage.ms / whole)
        start += stage.ms
    yield TABLE_END
    for stage in health.stages:
        if stage.remedy:
            yield f'<p class="remedy"><b>{as_text(stage.name)}:</b> {as_text(stage.remedy)}</p>'
    yield "</section>"


def _stage(stage: StageResult, start: float, share: float) -> str:
    drawn = bar([(start, max(share, 0.004), stage.status)], f"{stage.ms:,.1f} ms")
    when = "" if stage.status == "skipped" else drawn
    return (
        f'<tr><th scope="row">{as_text(stage.name)}</th><td>{marked(stage.status)}</td>'
        f'<td class="number">{stage.ms:,.1f} ms</td><td class="when">{when}</td>'
        f'<td class="text">{as_text(stage.detail)}</td></tr>'
    )


def table_head(*titles: str) -> Iterator[str]:
    """The beginning of a table, up to its first row; ``TABLE_END`` ends it."""
    yield '<div class="scroll"><table>\n<thead><tr>'
    for title in titles:
        kind = ' class="number"' if title in _NUMBERS else ""
        yield f'<th scope="col"{kind}>{title}</th>'
    yield "</tr></thead>\n<tbody>"


def _meters(figures: dict[str, float]) -> Iterator[str]:
    yield '<div class="meters">'
    if figures.get("max_connections"):
        used, most = figures["connections"], figures["max_connections"]
        status = "bad" if used / most >= _BAD_SHARE else "warn" if used / most >= _HIGH_SHARE else "ok"
        yield _meter(f"Connections: {used:,.0f} of {most:,.0f} in use", used / most, status)
    if "token_seconds" in figures:
        left = figures["token_seconds"]
        status = "warn" if left < _SHORT_LIFE else "ok"
        yield _meter(f"Token: {left / 60:,.0f} minutes of life left", left / _TOKEN_LIFE, status)
    if figures.get("wake_seconds"):
        yield f"<div>The compute took {figures['wake_seconds']:,.1f} s to wake.</div>"
    yield "</div>"


def _meter(told: str, share: float, status: str) -> str:
    return f"<div>{told}{bar([(0.0, share, status)], told, track=True)}</div>"


def bar(parts: Iterable[tuple[float, float, str]], told: str, *, track: bool = False) -> str:
    """A line of bars: drawn, since browsers print no backgrounds.

    Args:
        parts: Where each begins and how long it is, as shares of the whole, and its class.
        told: What it says, for those who do not see it.
        track: Whether the whole is drawn too.
    """
    rects = ['<rect class="track" width="100" height="10"/>'] if track else []
    for start, share, status in parts:
        x = min(max(start, 0.0), 1.0) * 100
        width = min(max(share, 0.0) * 100, 100 - x)
        rects.append(f'<rect class="{status}" x="{x:.2f}" width="{width:.2f}" height="10"/>')
    return (
        f'<svg viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{as_text(told)}">'
        f"{''.join(rects)}</svg>"
    )


def _inspection(report: InspectionReport) -> Iterator[str]:
    wrong = report.of_status("bad", "warn")
    yield "<section>\n<h2>What needs a look</h2>"
    if not wrong:
        yield "<p>Nothing.</p>"
    for finding in wrong:
        yield from _finding(finding)
    yield "</section>\n<section>\n<h2>All checks</h2>"
    yield from table_head("Check", "Status", "Value", "Limit", "What it looks at")
    for finding in report.findings:
        why = f'<br><span class="faint">{as_text(finding.reason)}</span>' if finding.reason else ""
        yield (
            f'<tr><th scope="row">{as_text(finding.check)}</th><td>{marked(finding.status)}</td>'
            f'<td class="number">{_number(finding.value, finding)}</td>'
            f'<td class="number">{_number(finding.limit, finding)}</td>'
            f'<td class="text">{as_text(finding.about)}{why}</td></tr>'
        )
    yield TABLE_END
    for finding in report.findings:
        if finding.objects and finding.status == "ok":
            yield f"<h3>{as_text(finding.check)}</h3>"
            yield from _objects(finding)
    yield "</section>"


def _finding(finding: InspectionFinding) -> Iterator[str]:
    limit = "" if finding.limit is None else f", limit {_number(finding.limit, finding)}"
    yield f"<article>\n<header><h3>{as_text(finding.check)}</h3> {marked(finding.status)}"
    yield f"<span>{_number(finding.value, finding)}{limit}</span></header>"
    yield f"<p>{as_text(finding.about)}</p>"
    yield f'<p class="remedy">{as_text(finding.remedy)}</p>'
    yield from _objects(finding)
    if finding.reason:
        yield f'<p class="faint">{as_text(finding.reason)}</p>'
    yield "</article>"


def _objects(finding: InspectionFinding) -> Iterator[str]:
    if not finding.objects:
        return
    counted = finding.unit == "found"
    yield '<div class="scroll"><table><tbody>'
    for found in finding.objects:
        number = "" if counted else f'<td class="number">{_number(found.value, finding)}</td>'
        yield (
            f'<tr><td class="text"><code>{as_text(found.name)}</code></td>{number}'
            f'<td class="text">{as_text(found.detail)}</td></tr>'
        )
    yield TABLE_END
    if finding.more:
        yield f'<p class="faint">and {finding.more:,} more</p>'


def _number(value: float | None, finding: InspectionFinding) -> str:
    return as_text(shown(value, finding.unit))


def marked(status: str) -> str:
    """A status of a stage or a finding, in its colour."""
    return f'<span class="status {status}">{_STATUSES[status]}</span>'


def as_text(text: str) -> str:
    """Text as nothing but text: no tag, no attribute's end, no mark that turns its direction."""
    flat = escaped(text[:_LONGEST], keep=" ")
    return escape(flat if len(text) <= _LONGEST else f"{flat}…", quote=True)
