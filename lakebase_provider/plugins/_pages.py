"""The pages as HTML: forms and tables around the report, with no script and nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from urllib.parse import quote

from lakebase_provider.core.database.sessions.running_sessions import MOST, RunningSession
from lakebase_provider.core.upkeep.inspection.report import (
    STYLE,
    TABLE_END,
    as_text,
    bar,
    counts,
    document_head,
    marked,
    sections,
    surroundings,
    table_head,
)
from lakebase_provider.core.upkeep.looking.look import Look, SeenBranch
from lakebase_provider.plugins._forms import MARK

_OWN_STYLE = """
a { color: var(--bar); } form { margin: 0; }
button { font: inherit; color: var(--ink); background: var(--band); border: 1px solid var(--bar);
  border-radius: .3rem; padding: .1rem .7rem; cursor: pointer; white-space: nowrap; }
button:hover, button:focus-visible { background: var(--bar); color: var(--paper); }
.head { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center;
  justify-content: space-between; }
.notice { background: var(--band); border-left: .25rem solid var(--bar); padding: .4rem .8rem;
  margin: .8rem 0; }
td svg { min-width: 4rem; }
"""
_STYLE = STYLE + _OWN_STYLE
_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
#: What a browser may do for these pages: load their own style, and send forms to where they are from.
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_DIGEST}'; form-action 'self'; frame-ancestors 'self'; "
    "base-uri 'none'"
)
#: Makes the mark of a form from what it does.
Mark = Callable[..., str]

_NOT_LOOKED_AT = '<span class="faint">not looked at</span>'


def listed(looks: Sequence[tuple[str, Look | None, bool]], mark: Mark, *, connects: bool) -> str:
    """All connections, each with what the latest look has seen.

    Args:
        looks: Ids of connections, the latest look at each, and whether the user may work on it.
        mark: Makes the marks of forms.
        connects: Whether the API server may open connections.
    """
    return _page("Lakebase", _listed(looks, mark, connects))


def _listed(looks: Sequence[tuple[str, Look | None, bool]], mark: Mark, connects: bool) -> Iterator[str]:
    yield "<header><h1>Lakebase</h1></header>"
    if not connects:
        yield _notice(_NO_CONNECTING)
    if not looks:
        yield "<p>There is no connection of type lakebase that you may read.</p>"
        return
    yield from table_head("Connection", "Health", "Inspection", "Looked at", "Action")
    for conn_id, look, works in looks:
        form = _check(conn_id, mark, action=_address(conn_id)) if works and connects else ""
        yield (
            f'<tr><th scope="row"><a href="{as_text(_address(conn_id))}">{as_text(conn_id)}</a></th>'
            f"<td>{_way(look)}</td><td>{_inspected(look)}</td><td>{_when(look)}</td><td>{form}</td></tr>"
        )
    yield TABLE_END


_NO_CONNECTING = (
    "The API server opens no connections: [core] test_connection is not Enabled. "
    "Shown is what was kept before."
)


def _address(conn_id: str) -> str:
    return f"connections/{quote(conn_id, safe='')}"


def _way(look: Look | None) -> str:
    if look is None:
        return _NOT_LOOKED_AT
    if look.health is None:
        return marked("failed")
    failed = look.health.first_failure
    return marked("ok") if failed is None else f"{marked('failed')} at {as_text(failed.name)}"


def _inspected(look: Look | None) -> str:
    if look is None or look.inspection is None:
        return '<span class="faint">–</span>'
    found = [
        f"{marked(status)} {number}"
        for status in ("bad", "warn")
        if (number := len(look.inspection.of_status(status)))
    ]
    return " ".join(found) or marked("ok")


def _when(look: Look | None) -> str:
    if look is None:
        return '<span class="faint">never</span>'
    age = (datetime.now(timezone.utc) - look.moment()).total_seconds()
    return f"{look.moment():%Y-%m-%d %H:%M:%S} UTC, {duration(age)} ago"


def shown(
    conn_id: str,
    look: Look | None,
    history: Sequence[Look],
    mark: Mark,
    *,
    works: bool,
    connects: bool,
    notice: str = "",
) -> str:
    """A connection, with all that a look has seen.

    Args:
        conn_id: Its id.
        look: What is shown; None if nobody has looked.
        history: Earlier looks, the newest first.
        mark: Makes the marks of forms.
        works: Whether the user may look now, and cancel.
        connects: Whether the API server may open connections.
        notice: What is to be said first.
    """
    return _page(conn_id, _shown(conn_id, look, history, mark, works and connects, connects, notice))


def _shown(
    conn_id: str,
    look: Look | None,
    history: Sequence[Look],
    mark: Mark,
    works: bool,
    connects: bool,
    notice: str,
) -> Iterator[str]:
    yield '<p><a href="../">All connections</a></p>'
    form = _check(conn_id, mark) if works else ""
    yield f'<header><div class="head"><h1>{as_text(conn_id)}</h1>{form}</div>'
    yield f'<p class="faint">{f"Looked at {_when(look)}" if look else "Not looked at."}</p>'
    if look is not None and look.inspection is not None:
        yield surroundings(look.inspection)
    yield from () if look is None else counts(_statuses(look))
    yield "</header>"
    for said in (notice, "" if connects else _NO_CONNECTING):
        yield _notice(said) if said else ""
    if look is None:
        return
    for part, error in look.errors.items():
        yield f'<p class="remedy"><b class="bad">{as_text(part)}:</b> {as_text(error)}</p>'
    if look.sessions is not None:
        yield from _sessions(conn_id, look.sessions, mark, works)
    if look.branches is not None:
        yield from _branches(look.branches)
    if len(history) > 1:
        yield from _history(history)
    yield from sections(look.inspection, look.health)


def _statuses(look: Look) -> list[str]:
    stages = () if look.health is None else look.health.stages
    findings = () if look.inspection is None else look.inspection.findings
    return [*(stage.status for stage in stages), *(finding.status for finding in findings)]


def _sessions(conn_id: str, sessions: Sequence[RunningSession], mark: Mark, works: bool) -> Iterator[str]:
    yield "<section>\n<h2>Sessions</h2>"
    if not sessions:
        yield "<p>Nobody else is connected.</p></section>"
        return
    yield from table_head(
        "Task", "Run", "Role", "Pid", "Does", "For", "Transaction", "Waits for pid", "Action"
    )
    for one in sessions:
        does = " ".join(filter(None, (one.state, one.command))) or "hidden from this role"
        form = _cancel(conn_id, one, mark) if works and one.can_be_cancelled else ""
        waits = ", ".join(map(str, one.blocked_by))
        yield (
            f'<tr><th scope="row">{as_text(one.task or "unnamed")}</th><td>{as_text(one.run)}</td>'
            f'<td>{as_text(one.user or "")}</td><td class="number">{one.pid}</td><td>{as_text(does)}</td>'
            f'<td class="number">{duration(one.seconds)}</td>'
            f'<td class="number">{duration(one.transaction_seconds)}</td><td>{waits}</td><td>{form}</td></tr>'
        )
    yield TABLE_END
    if len(sessions) >= MOST:
        yield f'<p class="faint">No more than {MOST} are shown.</p>'
    yield "</section>"


def _branches(branches: Sequence[SeenBranch]) -> Iterator[str]:
    yield "<section>\n<h2>Branches</h2>"
    yield from table_head("Branch", "State", "Age", "Made from", "Lease")
    for one in branches:
        kind = ", ".join(
            name for name, is_so in (("default", one.is_default), ("protected", one.is_protected)) if is_so
        )
        yield (
            f'<tr><th scope="row">{as_text(one.id)}</th>'
            f"<td>{as_text(', '.join(filter(None, (one.state, kind))))}</td>"
            f'<td class="number">{duration(one.age)}</td><td>{as_text(one.source or "")}</td>'
            f"<td>{_lease(one)}</td></tr>"
        )
    yield f"{TABLE_END}</section>"


def _lease(branch: SeenBranch) -> str:
    if branch.expires_in is None:
        return '<span class="faint">stays</span>'
    end = f"expires in {duration(branch.expires_in)}" if branch.expires_in > 0 else "has expired"
    if not branch.is_leased:
        return end
    return f"leased, {end}" if branch.is_held else f"{marked('warn')} leased, held by nobody, {end}"


def _history(history: Sequence[Look]) -> Iterator[str]:
    yield "<section>\n<h2>History</h2>"
    yield from table_head(
        "Looked at", "Health", "Connecting", "Beside the slowest", "Connections", "Inspection"
    )
    figures = [{} if look.health is None else look.health.figures for look in history]
    most = max((one.get("connect_ms", 0.0) for one in figures), default=0.0) or 1.0
    for look, one in zip(history, figures, strict=True):
        ms, used = one.get("connect_ms"), one.get("connections")
        told = "" if ms is None else f"{ms:,.0f} ms"
        sessions = "" if used is None else f"{used:,.0f}"
        drawn = "" if ms is None else bar([(0.0, max(ms / most, 0.01), "ok")], told, track=True)
        yield (
            f"<tr><td>{look.moment():%Y-%m-%d %H:%M:%S}</td><td>{_way(look)}</td>"
            f'<td class="number">{told}</td><td class="when">{drawn}</td>'
            f'<td class="number">{sessions}</td><td>{_inspected(look)}</td></tr>'
        )
    yield f"{TABLE_END}</section>"


def _check(conn_id: str, mark: Mark, *, action: str | None = None) -> str:
    return _form("Check now", {"do": "check", MARK: mark("check", conn_id)}, action)


def _cancel(conn_id: str, one: RunningSession, mark: Mark) -> str:
    which = (str(one.pid), str(one.started), str(one.statement_started))
    fields = dict(zip(("pid", "started", "statement"), which, strict=True))
    return _form("Cancel", {"do": "cancel", **fields, MARK: mark("cancel", conn_id, *which)}, None)


def _form(title: str, fields: dict[str, str], action: str | None) -> str:
    where = "" if action is None else f' action="{as_text(action)}"'
    hidden = "".join(
        f'<input type="hidden" name="{as_text(name)}" value="{as_text(value)}">'
        for name, value in fields.items()
    )
    return f'<form method="post"{where}>{hidden}<button type="submit">{as_text(title)}</button></form>'


def refused(status: int, detail: str) -> str:
    """A page that says why there is no other."""
    said = "Log in to Airflow, and load this page again." if status == 401 else detail
    return _page(f"{status}", iter((f"<h1>{status}</h1>", f"<p>{as_text(said)}</p>")))


def _notice(text: str) -> str:
    return f'<p class="notice">{as_text(text)}</p>'


def _page(title: str, content: Iterable[str]) -> str:
    head = document_head(title, _STYLE)
    return "\n".join((*head, "<body>\n<main>", *content, "</main>\n</body>\n</html>")) + "\n"


def duration(seconds: float | None) -> str:
    """A time span in the unit that suits it; empty if it is not known."""
    if seconds is None:
        return ""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:,.0f} s"
