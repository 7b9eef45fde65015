"""The HTML page of a rehearsal, by the renderer of all reports: no script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lakebase_provider.core.upkeep.inspection.report import (
    POLICY,
    STYLE,
    TABLE_END,
    as_text,
    bar,
    counts,
    document_head,
    marked,
    table_head,
)

if TYPE_CHECKING:
    from lakebase_provider.core.database.rows.row_diff import RowDiff
    from lakebase_provider.core.database.structure.catalog_diff import CatalogDiff
    from lakebase_provider.core.upkeep.rehearsal.recorder import StatementRun
    from lakebase_provider.core.upkeep.rehearsal.rehearsal_report import RehearsalReport

#: Objects of each kind of change that are shown.
_OBJECTS = 100
_STATUS = {"done": "ok", "failed": "failed", "undone": "skipped"}


def rehearsal_page(report: RehearsalReport) -> str:
    """One HTML page of what a rehearsal found.

    Args:
        report: What it found.
    """
    return "\n".join(_page(report)) + "\n"


def _page(report: RehearsalReport) -> Iterator[str]:
    yield from document_head(f"Rehearsal for {report.parent}", STYLE, POLICY)
    yield "<body>\n<main>\n<header>\n<h1>Rehearsal</h1>"
    since = "" if report.forked_at is None else f", with its data of {report.forked_at}"
    told = f"On {report.branch}, a branch of {report.parent}{since}; {report.seconds:,.1f} s."
    yield f'<p class="faint">{as_text(told)}</p>'
    statuses = ["ok" if check.passed else "failed" for check in report.checks]
    work = "ok" if report.failure is None else "failed"
    yield from counts([work, *statuses])
    yield "</header>"
    if report.failure is not None:
        yield f'<p class="remedy"><b class="failed">The work failed:</b> {as_text(report.failure)}</p>'
    yield from _statements("Statements", report.statements, report.statements_left_out)
    yield from _checks(report)
    yield from _rows(report.tables, report.not_compared)
    if report.failure is None:
        yield from _catalog(report.catalog)
    if report.ran is not None:
        yield from _statements("On the parent", report.ran, 0)
        point = report.restore_point or {}
        moment = f"The moment before: {point.get('time')} ({point.get('lsn')})."
        yield f"<p>{as_text(moment)}</p>"
    yield "<section>\n<h2>What this cannot tell</h2>\n<ul>"
    yield from (f"<li>{as_text(one)}</li>" for one in report.limits)
    yield f'</ul>\n<p class="faint">Checksum: <code>{as_text(report.checksum)}</code></p>\n</section>'
    yield "</main>\n</body>\n</html>"


def _statements(title: str, runs: Sequence[StatementRun], left_out: int) -> Iterator[str]:
    if not runs:
        return
    yield f"<section>\n<h2>{title}</h2>"
    yield from table_head("Statement", "Status", "Time", "Beside the slowest", "Rows", "Strongest lock")
    longest = max(run.seconds for run in runs) or 1.0
    for run in runs:
        what = f"{run.number}. {run.title}" + (f" ({run.place})" if run.place else "")
        outside = '<br><span class="faint">runs outside a transaction</span>' if run.outside else ""
        status = _STATUS[run.outcome]
        ms = f"{run.seconds * 1000:,.0f} ms"
        rows = "" if run.rows is None else f"{run.rows:,}"
        yield (
            f'<tr><td class="text">{as_text(what)}{outside}</td><td>{marked(status)}</td>'
            f'<td class="number">{ms}</td>'
            f'<td class="when">{bar([(0.0, max(run.seconds / longest, 0.004), status)], ms)}</td>'
            f'<td class="number">{rows}</td><td class="text">{_lock(run)}</td></tr>'
        )
    yield TABLE_END
    if left_out:
        yield f'<p class="faint">and {left_out:,} more</p>'
    yield "</section>"


def _lock(run: StatementRun) -> str:
    if run.locks is None:
        return '<span class="faint">not watched</span>'
    lock = run.strongest
    if lock is None:
        return '<span class="faint">no new one</span>'
    size = "" if lock.size is None else f", {lock.size / 2**20:,.1f} MiB"
    return as_text(f"{lock.mode} on {lock.kind} {lock.relation}{size}, held {run.held * 1000:,.0f} ms")


def _checks(report: RehearsalReport) -> Iterator[str]:
    if not report.checks:
        return
    yield "<section>\n<h2>Checks</h2>"
    yield from table_head("Check", "Status", "Time", "Found")
    for check in report.checks:
        yield (
            f'<tr><td class="text">{as_text(check.name)}</td>'
            f"<td>{marked('ok' if check.passed else 'failed')}</td>"
            f'<td class="number">{check.seconds * 1000:,.0f} ms</td>'
            f'<td class="text">{as_text(check.found)}</td></tr>'
        )
    yield f"{TABLE_END}\n</section>"


def _rows(tables: Sequence[RowDiff], not_compared: Mapping[str, str]) -> Iterator[str]:
    if not (tables or not_compared):
        return
    yield "<section>\n<h2>Rows</h2>"
    for table in tables:
        yield f"<article>\n<header><h3>{as_text(table.table)}</h3></header>"
        told = (
            f"By {', '.join(table.keys)}: of {table.rows_before:,} rows {table.changed:,} changed and "
            f"{table.removed:,} removed, {table.added:,} added."
        )
        yield f"<p>{as_text(told)}</p>"
        if table.examples:
            yield from table_head("Row", "Before", "After")
            for one in table.examples:
                cells = (f"{one.fate} {_values(one.key)}", _values(one.before), _values(one.after))
                yield "<tr>" + "".join(f'<td class="text">{as_text(cell)}</td>' for cell in cells) + "</tr>"
            yield TABLE_END
        yield "</article>"
    for name, why in not_compared.items():
        yield f'<p class="remedy"><b>{as_text(name)}</b> was not compared: {as_text(why)}</p>'
    yield "</section>"


def _values(values: Mapping[str, str | None] | None) -> str:
    pairs = () if values is None else values.items()
    return ", ".join(f"{name} = {'NULL' if value is None else value}" for name, value in pairs)


def _catalog(catalog: CatalogDiff) -> Iterator[str]:
    yield "<section>\n<h2>What is defined</h2>"
    if catalog.is_empty:
        yield "<p>No differences.</p>\n</section>"
        return
    yield from table_head("Object", "Fate", "Definition")
    rows = [
        *((one.kind, one.name, "created", one.definition) for one in catalog.created[:_OBJECTS]),
        *((one.kind, one.name, "removed", one.definition) for one in catalog.removed[:_OBJECTS]),
        *(
            (one.kind, one.name, "changed", f"{one.before} → {one.after}")
            for one in catalog.changed[:_OBJECTS]
        ),
    ]
    for kind, name, fate, definition in rows:
        yield (
            f'<tr><td class="text">{as_text(f"{kind} {name}")}</td><td>{fate}</td>'
            f'<td class="text"><code>{as_text(definition)}</code></td></tr>'
        )
    yield TABLE_END
    left = len(catalog.created) + len(catalog.removed) + len(catalog.changed) - len(rows)
    if left:
        yield f'<p class="faint">and {left:,} more</p>'
    yield "</section>"
