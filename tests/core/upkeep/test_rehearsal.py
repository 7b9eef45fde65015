"""Changes that are tried on a branch first: what is reported, and what reaches the parent."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.errors import (
    ConfigError,
    LakebaseError,
    LockTimeoutError,
    MigrationError,
    RehearsalError,
)
from lakebase_provider.local import LocalLakebase
from tests.core.upkeep.leases import left

ORDERS = """
CREATE TABLE orders (id int PRIMARY KEY, amount numeric(10, 2) NOT NULL, note text);
INSERT INTO orders SELECT n, n FROM generate_series(1, 1000) AS n
"""


@pytest.fixture
def orders(client: LakebaseClient) -> LakebaseClient:
    with client.connection() as connection:
        connection.execute(ORDERS)
    return client


def rows(client: LakebaseClient, query: str) -> list[tuple[Any, ...]]:
    with client.connection() as connection:
        return connection.execute(query.encode()).fetchall()


def test_a_rehearsal_says_what_a_change_does_and_leaves_nothing(orders: LakebaseClient) -> None:
    report = orders.rehearse(
        [
            "ALTER TABLE orders ALTER amount TYPE numeric(12, 3) -- rewrites it",
            "UPDATE orders SET note = 'a|b' WHERE id <= 3",
            "DELETE FROM orders WHERE id = 4",
            "INSERT INTO orders VALUES (1001, 5, NULL)",
            "CREATE TABLE extra (n int)",
            "SELECT note FROM orders WHERE id = 1",
        ],
        checks=["SELECT count(*) = 1000 FROM orders", {"table": "orders", "min_rows": 1, "max_rows": 1000}],
        tables=["orders", "extra", "absent"],
        examples=2,
    )
    assert report.ok
    assert report.ran is None
    assert left(orders) == []
    assert rows(orders, "SELECT count(*), count(note), max(id) FROM orders") == [(1000, 0, 1000)]

    titles = ["ALTER TABLE", "UPDATE", "DELETE FROM", "INSERT INTO", "CREATE TABLE", "SELECT FROM"]
    assert [one.title.split()[0] for one in report.statements] == [title.split()[0] for title in titles]
    assert [one.rows for one in report.statements] == [None, 3, 1, 1, None, 1]
    rewrite, update, *_, create, select = report.statements
    assert rewrite.strongest is not None
    assert (rewrite.strongest.mode, rewrite.strongest.relation) == ("ACCESS EXCLUSIVE", "public.orders")
    assert (rewrite.strongest.size or 0) > 8192
    assert rewrite.held >= sum(one.seconds for one in report.statements)
    assert update.strongest is not None
    assert (update.strongest.mode, update.strongest.kind) == ("ROW EXCLUSIVE", "table")
    # What the transaction has created nobody else waits for.
    assert create.locks == ()
    assert select.strongest is not None
    assert select.strongest.mode == "ACCESS SHARE"

    [found] = report.tables
    # The rewrite gives each amount another digit.
    assert (found.rows_before, found.added, found.changed, found.removed) == (1000, 1, 999, 1)
    assert [one.fate for one in found.examples] == ["added", "changed", "changed", "removed"]
    changed = found.examples[1]
    assert changed.key == {"id": "1"}
    assert changed.before == {"amount": "1.00", "note": None}
    assert changed.after == {"amount": "1.000", "note": "a|b"}
    assert report.not_compared == {
        "extra": "public.extra has no primary key.",
        "absent": "there is no such table.",
    }
    assert [(one.kind, one.name) for one in report.catalog.changed] == [("column", "public.orders.amount")]
    assert ("table", "public.extra") in [(one.kind, one.name) for one in report.catalog.created]

    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["ok"]
    assert plain["statements"][0]["locks"][0]["mode"] == "ACCESS EXCLUSIVE"
    told = report.to_markdown()
    assert "| 1 | ALTER TABLE (line 1) |" in told
    assert "ACCESS EXCLUSIVE on table `public.orders`" in told
    assert "note = `a\\|b`" in told
    assert "There was no traffic" in told


def test_a_failing_check_never_reaches_the_parent(orders: LakebaseClient) -> None:
    with pytest.raises(RehearsalError, match="few: 1,000 rows, at most 10 allowed") as caught:
        orders.rehearse(
            "UPDATE orders SET note = 'changed'",
            checks=[
                "SELECT bool_and(note = 'changed') FROM orders",
                "SELECT id = 1 FROM orders WHERE id < 3",
                "SELECT id FROM orders WHERE id = 1",
                "SELECT 1 / 0 = 1",
                {"sql": "SELECT FROM orders;", "max_rows": 10, "name": "few"},
            ],
            then="run",
        )
    assert rows(orders, "SELECT count(note) FROM orders") == [(0,)]
    assert left(orders) == []
    report = pickle.loads(pickle.dumps(caught.value)).report  # noqa: S301
    assert [check.passed for check in report.checks] == [True, False, False, False, False]
    assert [check.found for check in report.checks][1:4] == [
        "not true in 1 of 2 rows",
        "not of type boolean",
        "failed: DivisionByZero",
    ]
    assert not report.ok
    assert len(report.failures) == 4


def test_what_passes_runs_on_the_parent_too(orders: LakebaseClient) -> None:
    report = orders.rehearse(
        "ALTER TABLE orders ADD paid bool; CREATE INDEX CONCURRENTLY orders_amount ON orders (amount);"
        "UPDATE orders SET paid = false",
        checks=["SELECT count(paid) = 1000 FROM orders"],
        then="run",
        run_id="change/1",
        lease={"ttl": 600},
    )
    assert report.branch.startswith("run-change-1-")
    assert report.statements[1].strongest is not None
    assert report.statements[1].strongest.mode == "SHARE UPDATE EXCLUSIVE"
    assert report.ran is not None
    assert [(one.rows, one.outcome, one.locks) for one in report.ran] == [
        (None, "done", None),
        (None, "done", None),
        (1000, "done", None),
    ]
    assert rows(orders, "SELECT count(paid) FROM orders") == [(1000,)]
    query = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'orders_amount'::regclass"
    assert rows(orders, query) == [(True,)]
    assert "### On the parent" in report.to_markdown()


def test_a_statement_that_fails_is_reported_without_its_values(orders: LakebaseClient) -> None:
    report = orders.rehearse(
        ["UPDATE orders SET amount = 0", "UPDATE orders SET id = 'private'::text::int"],
        checks=["SELECT true"],
        tables=["orders"],
    )
    assert not report.ok
    assert "statements:3: statement 2 of 2 (UPDATE) failed: InvalidTextRepresentation" in str(report.failure)
    assert [one.outcome for one in report.statements] == ["undone", "failed"]
    assert (report.checks, report.tables) == ((), ())
    assert "private" not in json.dumps(report.to_dict()) + report.to_markdown()
    assert left(orders) == []


def test_a_function_is_rehearsed_and_shows_no_secret(
    orders: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    secret = lakebase_env.client_secret

    def work(connection: LakebaseConnection) -> None:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE orders SET note = %s WHERE id = 1", [f"{'x' * 70} {secret}"])
            cursor.executemany("DELETE FROM orders WHERE id = %s", [(2,), (3,)])
            with cursor.copy("COPY orders FROM STDIN") as copy:
                copy.write_row((5000, 1, "y" * 500))
            cursor.execute(f"COMMENT ON TABLE orders IS '{secret}'")

    report = orders.rehearse(work, tables={"orders": ["id"]})
    assert [one.rows for one in report.statements] == [1, 2, 1, None]
    assert [one.kind for one in report.catalog.created] == ["comment"]
    [found] = report.tables
    assert (found.added, found.changed, found.removed) == (1, 1, 2)
    assert found.examples[0].after == {"id": "5000", "amount": "1.00", "note": f"{'y' * 80}…"}
    assert found.examples[1].after == {"note": f"{'x' * 70} ***"}
    assert secret[:8] not in json.dumps(report.to_dict()) + report.to_markdown()

    def fail(connection: LakebaseConnection) -> None:
        connection.execute("DELETE FROM orders")
        raise ValueError(f"no, {secret}")

    failed = orders.rehearse(fail)
    assert failed.failure == "ValueError: no, ***"
    assert rows(orders, "SELECT count(*) FROM orders") == [(1000,)]


def test_on_the_parent_nobody_is_kept_waiting(orders: LakebaseClient) -> None:
    with orders.connect() as holder:
        holder.execute("LOCK TABLE orders")
        pid = holder.info.backend_pid
        with pytest.raises(LockTimeoutError, match=f"It was held by pid {pid}.*Attempts: 1"):
            orders.rehearse("DROP TABLE orders", then="run", lock_timeout=0.5, attempts=1)
    assert rows(orders, "SELECT count(*) FROM orders") == [(1000,)]


def test_migrations_run_on_a_branch_first(orders: LakebaseClient, tmp_path: Path) -> None:
    first, second = tmp_path / "0001_paid.sql", tmp_path / "0002_index.sql"
    first.write_text("ALTER TABLE orders ADD paid bool;\nUPDATE orders SET paid = true")
    second.write_text("CREATE INDEX CONCURRENTLY orders_paid ON orders (paid)")
    report = orders.migrations.run(tmp_path, target=1, rehearse=True)
    assert [file.state for file in report.files] == ["applied", "pending"]
    plain = report.to_dict()["rehearsal"]
    assert plain["ok"]
    assert [(one["place"], one["rows"]) for one in plain["statements"]] == [
        ("0001_paid.sql:1", None),
        ("0001_paid.sql:2", 1000),
    ]
    # Nothing is pending, so no branch is made.
    assert orders.migrations.run(tmp_path, target=1, rehearse=True).rehearsal is None

    second.write_text("CREATE INDEX CONCURRENTLY orders_paid ON orders (absent)")
    with pytest.raises(RehearsalError, match=r'0002_index.sql:1.*column "absent" does not exist'):
        orders.migrations.run(tmp_path, rehearse=True)
    assert [file.state for file in orders.migrations.status(tmp_path).files] == ["done", "pending"]
    second.write_text("CREATE UNIQUE INDEX orders_paid ON orders (id, paid)")
    found = orders.rehearse(tmp_path, checks=["SELECT count(*) = 2 FROM lakebase_migration"], then="run")
    assert found.ran is not None
    assert [(one.place, one.outcome) for one in found.ran] == [("0002_index.sql:1", "done")]
    assert [file.state for file in orders.migrations.status(tmp_path).files] == ["done", "done"]


@pytest.mark.parametrize(
    ("work", "options", "why"),
    [
        ("SELECT 1", {"thens": "run"}, "no option 'thens'"),
        ("SELECT 1", {"then": "approve"}, "then is 'approve'"),
        ("SELECT 1", {"checks": "SELECT true"}, "'checks' must be a list"),
        ("SELECT 1", {"checks": ["DELETE FROM orders"]}, "is no query"),
        ("SELECT 1", {"checks": [{"table": "orders"}]}, "has no bound"),
        ("SELECT 1", {"checks": [{"tables": "orders"}]}, "no key 'tables'"),
        ("SELECT 1", {"checks": [{"table": "orders", "min_rows": -1}]}, "'min_rows' must be"),
        ("SELECT 1", {"tables": "orders"}, "'tables' must be a list or a dict"),
        ("SELECT 1", {"examples": 101}, "'examples' must be at most 100"),
        ("SELECT 1", {"attempts": 0}, "'attempts' must be a whole number above 0"),
        ("SELECT 1", {"lease": {"source": "x"}}, "given 'source'"),
        (["SELECT 1", ""], {}, "A statement is empty"),
        (17, {}, "of type int"),
    ],
)
def test_what_cannot_be_rehearsed_is_refused_at_once(
    client: LakebaseClient, work: Any, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        client.rehearse(work, **options)


@pytest.mark.parametrize("text", ["BEGIN; SELECT 1", "SELECT 'x", "-- nothing"])
def test_statements_are_read_before_a_branch_is_made(client: LakebaseClient, text: str) -> None:
    with pytest.raises(MigrationError, match=r"statements:1|there is no statement"):
        client.rehearse(text)


async def test_a_twin_for_asyncio(client: LakebaseClient) -> None:
    with pytest.raises(LakebaseError, match="no option"):
        await client.arehearse("SELECT 1", nothing=1)  # type: ignore[call-arg]


# What somebody has approved.


def test_only_what_was_approved_runs(orders: LakebaseClient, tmp_path: Path) -> None:
    change = ["UPDATE orders SET note = 'a' WHERE id = 1", "UPDATE orders SET note = 'b' WHERE id = 2"]
    approved = orders.rehearse(change).checksum
    for other in (change[:1], change[::-1], [*change, "DELETE FROM orders"]):
        with pytest.raises(RehearsalError, match=r"What was approved .* is not what would run") as caught:
            orders.rehearse(other, then="run", approved=approved)
        assert caught.value.report is None
        assert "have that approved" in caught.value.remedy
    assert rows(orders, "SELECT count(note) FROM orders") == [(0,)]
    report = orders.rehearse(change, then="run", approved=approved)
    assert report.checksum == approved
    assert f"Checksum: `{approved}`" in report.to_markdown()
    assert rows(orders, "SELECT note FROM orders WHERE id < 3 ORDER BY id") == [("a",), ("b",)]

    file = tmp_path / "0001_a.sql"
    file.write_text("CREATE TABLE approved (n int);")
    approved = orders.rehearse(tmp_path).checksum
    file.write_text("CREATE TABLE approved (n bigint);")
    with pytest.raises(RehearsalError, match="What was approved"):
        orders.rehearse(tmp_path, then="run", approved=approved)
    with pytest.raises(ConfigError, match="'approved' must be a checksum"):
        orders.rehearse(tmp_path, approved="yes")


def test_of_a_function_the_statements_are_what_is_approved(orders: LakebaseClient) -> None:
    wanted = ["UPDATE orders SET note = %s WHERE id = 1"]

    def work(connection: LakebaseConnection) -> None:
        [[branch]] = connection.execute("SELECT count(*) FROM orders").fetchall()
        for statement in wanted:
            connection.execute(statement.encode(), [f"{branch}"])

    approved = orders.rehearse(work).checksum
    with orders.connection() as connection:
        connection.execute("DELETE FROM orders WHERE id = 1000")
    # Its parameters may follow from the rows.
    assert orders.rehearse(work, then="run", approved=approved).ok
    assert rows(orders, "SELECT note FROM orders WHERE id = 1") == [("999",)]
    wanted.append("DELETE FROM orders WHERE note = %s")
    with pytest.raises(RehearsalError, match="What was approved") as caught:
        orders.rehearse(work, then="run", approved=approved)
    assert caught.value.report.ran is None
    assert rows(orders, "SELECT count(*) FROM orders") == [(999,)]


def test_a_function_that_does_something_else_on_the_parent_is_undone(orders: LakebaseClient) -> None:
    def work(connection: LakebaseConnection) -> None:
        connection.execute("UPDATE orders SET note = 'x'")
        if connection.info.host == orders.target().host:
            connection.execute("TRUNCATE orders")

    approved = orders.rehearse(work).checksum
    with pytest.raises(RehearsalError, match="What was approved") as caught:
        orders.rehearse(work, then="run", approved=approved)
    assert (caught.value.report.ok, caught.value.report.ran) == (True, None)
    assert rows(orders, "SELECT count(*), count(note) FROM orders") == [(1000, 0)]


def test_the_moment_before_the_parent_is_changed_is_noted(orders: LakebaseClient) -> None:
    report = orders.rehearse("DELETE FROM orders WHERE id < 4", then="run")
    assert report.restore_point is not None
    assert report.restore_point["lsn"] in report.to_markdown()
    assert orders.restore_rows("orders", at=report.restore_point, dry_run=False).put_back == 3
    assert orders.rehearse("SELECT 1").restore_point is None


def test_of_a_run_that_fails_half_way_the_log_has_the_moment_before(
    orders: LakebaseClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    def only_there(connection: LakebaseConnection) -> None:
        connection.execute("DELETE FROM orders")
        if connection.info.host == orders.target().host:
            connection.execute("SELECT 1 / 0")

    with pytest.raises(psycopg.errors.DivisionByZero):
        orders.rehearse(only_there, then="run")
    assert "The restore point of projects/local/branches/production is 20" in caplog.text


def test_what_runs_outside_of_a_transaction_is_marked(orders: LakebaseClient) -> None:
    report = orders.rehearse(
        ["SET lock_timeout = '1s'", "CREATE INDEX CONCURRENTLY by_note ON orders (note)"]
    )
    assert [one.outside for one in report.statements] == [False, True]
    assert "CONCURRENTLY (line 3); runs outside a transaction |" in report.to_markdown()
