"""The HTML page: one file, only text where text is meant, small and quick."""

from __future__ import annotations

import time
from html.parser import HTMLParser

import pytest

from lakebase_provider.core import HealthReport, InspectionFinding, InspectionReport, StageResult, html_report
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.upkeep.inspection.checks import CHECKS, Found

HOSTILE = "<script>alert(1)</script>\"' onload=x <!-- ]]> &lt; \x1b[31m \u202e javascript:x"
HEALTH = HealthReport(
    (
        StageResult("resolve", "ok", 12.0, "host"),
        StageResult("credential", "ok", 80.0, figures={"token_seconds": 200.0}),
        StageResult("login", "ok", 30.5, figures={"connect_ms": 30.0, "wake_seconds": 2.5}),
        StageResult("query", "ok", 3, figures={"connections": 90.0, "max_connections": 104.0}),
        StageResult("write", "failed", 2.0, HOSTILE, HOSTILE, "error"),
        StageResult("other", "skipped"),
    )
)
#: Elements that need no end, and those that the page may hold.
_VOID = {"meta", "rect", "input"}
_ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "section", "article", "h1", "h2"),
    *("h3", "p", "ul", "li", "span", "div", "table", "thead", "tbody", "tr", "th", "td", "svg", "rect"),
    *("code", "b", "br"),
}
_ATTRIBUTES = {
    *("lang", "charset", "http-equiv", "content", "name", "class", "scope", "role", "aria-label"),
    *("viewbox", "preserveaspectratio", "x", "width", "height"),
}


class Elements(HTMLParser):
    """What is in a page, and whether each element ends where it should."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in {*_VOID, "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def inspection(objects: int = 2, name: str = HOSTILE, status: str = "bad") -> InspectionReport:
    findings = tuple(
        InspectionFinding(
            check.name,
            status,  # type: ignore[arg-type] # of the test
            0.5,
            check.unit,
            0.4,
            0.5,
            tuple(Found(name, 0.5, name) for _ in range(objects)),
            more=3,
            reason=name,
            about=check.about,
            remedy=check.remedy,
        )
        for check in CHECKS
    )
    return InspectionReport(name, "17.2", "2027-01-31T12:00:00Z", 0.5, 9.0, findings)


@pytest.mark.parametrize("status", ["bad", "warn", "ok", "skipped"])
def test_all_text_is_text_whatever_its_author_wants(status: str) -> None:
    page = html_report(inspection=inspection(status=status), health=HEALTH, title=HOSTILE)
    found = Elements(page)
    assert found.open == []
    assert found.tags <= _ALLOWED
    assert found.attributes <= _ATTRIBUTES
    assert "\x1b" not in page
    assert "\u202e" not in page
    # Shown as it is, with what does not print as an escape.
    assert "<script>alert(1)</script>\"' onload=x <!-- ]]> &lt; \\x1b[31m \\u202e javascript:x" in found.text


def test_nothing_is_loaded_and_nothing_runs() -> None:
    page = html_report(inspection=inspection(name="public.orders"), health=HEALTH)
    for word in ("http:", "https:", "src=", "href=", "url(", "@import", "<script", "<link", "style="):
        assert word not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page
    assert "color-scheme: light dark" in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_it_is_small_and_soon_made() -> None:
    report = inspection(objects=20, name="public." + "a_long_name_of_a_table_" * 2)
    # The least of some: the machine may be busy.
    times = []
    for _ in range(20):
        start = time.perf_counter()
        page = html_report(inspection=report, health=HEALTH)
        times.append(time.perf_counter() - start)
    assert len(page.encode()) <= 200 * 1024
    assert min(times) <= 0.05


def test_a_text_of_any_length_is_cut() -> None:
    page = html_report(inspection=inspection(objects=1, name="x" * 1_000_000))
    assert len(page.encode()) <= 200 * 1024


def test_it_shows_what_was_found() -> None:
    text = Elements(html_report(inspection=inspection(name="public.orders"), health=HEALTH)).text
    assert "Database public.orders" in text
    assert "Connections: 90 of 104 in use" in text
    assert "Token: 3 minutes of life left" in text
    assert "The compute took 2.5 s to wake." in text
    assert "30.5 ms" in text
    for check in CHECKS:
        assert check.name in text
        assert check.remedy in text
    assert "and 3 more" in text


def test_either_part_may_be_missing_but_not_both() -> None:
    of_health = Elements(html_report(health=HEALTH)).text
    assert "The way to the database" in of_health
    assert "All checks" not in of_health
    assert "Nothing." in html_report(inspection=inspection(status="ok"))
    assert Elements(html_report(health=HealthReport(()))).open == []
    with pytest.raises(ConfigError, match="nothing to report"):
        html_report()
