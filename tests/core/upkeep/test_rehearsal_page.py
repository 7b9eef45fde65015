"""The HTML page of a rehearsal: only text where text is meant, and small whatever was found."""

from __future__ import annotations

from dataclasses import replace

from lakebase_provider.core import RehearsalReport
from lakebase_provider.core.database.rows.row_diff import RowDiff, RowExample
from lakebase_provider.core.database.structure.catalog_diff import CatalogChange, CatalogDiff
from lakebase_provider.core.database.structure.catalog_dump import CatalogObject
from lakebase_provider.core.upkeep.rehearsal.recorder import StatementRun, TakenLock
from lakebase_provider.core.upkeep.rehearsal.rehearsal_checks import CheckResult
from tests.core.upkeep.test_report import _ALLOWED, HOSTILE, Elements


def report(name: str = HOSTILE, objects: int = 1) -> RehearsalReport:
    locks = (TakenLock("ACCESS EXCLUSIVE", name, "table", 3 << 20),)
    row = {name: None, "b": name}
    table = CatalogObject("table", name, f"CREATE TABLE {name}", name)
    return RehearsalReport(
        parent="projects/p/branches/production",
        branch="run-1",
        forked_at="2027-01-31T12:00:00Z",
        seconds=1.5,
        statements=(
            StatementRun(1, "ALTER TABLE", 1.2, None, name, locks, 1.3),
            StatementRun(2, "VACUUM", 0.0, 3, "", (), 0.0, "failed", outside=True),
            StatementRun(3, "SELECT", 0.1, 3, "", None, 0.0, "undone"),
        ),
        statements_left_out=7,
        failure=None,
        checks=(CheckResult(name, False, name, 0.2), CheckResult("rows", True, "3 rows", 0.2)),
        tables=(RowDiff(name, (name,), 10, 1, 2, 3, (RowExample("changed", row, row, None),)),),
        not_compared={name: name},
        catalog=CatalogDiff((table,) * objects, (table,), (CatalogChange("index", name, name, "after"),)),
        limits=(name,),
        checksum="abc",
        ran=(StatementRun(1, "ALTER TABLE", 1.2, None),),
        restore_point={"time": "2027-01-31T12:00:00Z", "lsn": name},
    )


def test_all_text_is_text_whatever_its_author_wants() -> None:
    page = report().to_html()
    found = Elements(page)
    assert found.open == []
    assert found.tags <= _ALLOWED
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "<script>alert(1)</script>\"' onload=x <!-- ]]> &lt; \\x1b[31m \\u202e javascript:x" in found.text
    assert "default-src 'none'" in page


def test_it_says_what_was_found() -> None:
    text = Elements(report("public.orders").to_html()).text
    for told in (
        "On run-1, a branch of projects/p/branches/production, with its data of 2027-01-31T12:00:00Z",
        "ACCESS EXCLUSIVE on table public.orders, 3.0 MiB, held 1,300 ms",
        "runs outside a transaction",
        "and 7 more",
        "of 10 rows 2 changed and 3 removed, 1 added",
        "public.orders = NULL, b = public.orders",
        "On the parent",
        "What this cannot tell",
    ):
        assert told in text
    failed = Elements(replace(report("public.orders"), failure="it broke", ran=None).to_html()).text
    assert "The work failed: it broke" in failed
    assert "What is defined" not in failed
    assert "On the parent" not in failed


def test_it_is_small_whatever_was_found() -> None:
    assert len(report("x" * 100_000, objects=5_000).to_html().encode()) <= 600 * 1024
    assert "and 4,900 more" in report("public.orders", objects=5_000).to_html()
