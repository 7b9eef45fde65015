"""Vacuum, analyze, materialized views and sequences."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging

import psycopg
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import (
    ConfigError,
    LockTimeoutError,
    StatementError,
    StatementTimeoutError,
    TableNotFoundError,
)
from lakebase_provider.core.upkeep.maintenance import own_session
from lakebase_provider.core.upkeep.maintenance.maintenance import Maintenance
from lakebase_provider.core.upkeep.maintenance.maintenance_options import ACTIONS, PATIENCE, require_action
from lakebase_provider.core.upkeep.maintenance.maintenance_report import MaintenanceReport
from lakebase_provider.local import LocalLakebase
from tests.core.upkeep.maintenance.conftest import Database
from tests.eventually import eventually


def done(report: MaintenanceReport) -> list[str]:
    return [step.target for step in report.steps]


def skipped(report: MaintenanceReport) -> dict[str, str]:
    return {one.target: one.reason for one in report.skipped}


def dead(database: Database) -> int:
    database.rows("SELECT pg_stat_clear_snapshot()")
    [[found]] = database.rows(
        "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = 'public.orders'::regclass"
    )
    return int(found)


def test_a_table_is_vacuumed_and_analyzed(client: LakebaseClient, database: Database) -> None:
    database.rows("DELETE FROM orders WHERE id > 1000")
    report = client.maintenance.vacuum("orders")
    assert done(report) == ["public.orders"]
    assert report.steps[0].did.startswith("vacuumed and analyzed")
    assert dead(database) == 0
    [[estimate]] = database.rows("SELECT reltuples FROM pg_class WHERE oid = 'public.orders'::regclass")
    assert estimate == 1000
    assert json.loads(json.dumps(report.to_dict()))["steps"][0]["target"] == "public.orders"
    assert "| `public.orders` | vacuumed and analyzed (1000 dead rows" in report.to_markdown()


def test_by_share_of_dead_rows(client: LakebaseClient, database: Database) -> None:
    database.rows("CREATE TABLE tidy AS SELECT generate_series(1, 2000) AS n")
    database.rows("DELETE FROM orders WHERE id > 1000")
    eventually(lambda: dead(database) == 1000)
    assert done(client.maintenance.vacuum(dead_share=0.9)) == []
    assert done(client.maintenance.vacuum()) == ["public.orders"]
    assert "Nothing was to be done" in client.maintenance.vacuum().to_markdown()


def test_partitions_are_vacuumed_one_by_one(client: LakebaseClient, database: Database) -> None:
    database.rows("CREATE TABLE parts (n int) PARTITION BY RANGE (n)")
    for n in (0, 10):
        database.rows(f"CREATE TABLE parts_{n} PARTITION OF parts FOR VALUES FROM ({n}) TO ({n + 10})")
    assert done(client.maintenance.vacuum(["parts"])) == ["public.parts_0", "public.parts_10", "public.parts"]
    assert done(client.maintenance.vacuum(["parts"], analyze=False)) == ["public.parts_0", "public.parts_10"]
    assert done(client.maintenance.analyze("parts")) == ["public.parts"]


def test_it_is_skipped_while_a_long_transaction_would_keep_its_rows(
    client: LakebaseClient, database: Database
) -> None:
    reads = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM orders"
    with database.holding(reads) as pid:
        eventually(lambda: bool(skipped(client.maintenance.vacuum("orders", long_transaction=0.01))))
        report = client.maintenance.vacuum("orders", long_transaction=0.01)
        assert done(report) == []
        reason = skipped(report)["public.orders"]
        assert reason.startswith(f"its dead rows could not be removed: the transaction of pid {pid} (")
        assert "### Left alone" in report.to_markdown()
        assert done(client.maintenance.vacuum("orders")) == ["public.orders"]
        assert done(client.maintenance.analyze("orders")) == ["public.orders"]


def test_a_locked_table_does_not_keep_the_others_waiting(client: LakebaseClient, database: Database) -> None:
    database.rows("CREATE TABLE others (n int)")
    lock = "LOCK TABLE orders IN SHARE UPDATE EXCLUSIVE MODE"
    with database.holding(lock) as pid, pytest.raises(LockTimeoutError) as caught:
        client.maintenance.vacuum(["orders", "others"], lock_timeout=0.2, attempts=1)
    error = caught.value
    assert error.message.startswith("Vacuuming public.orders: The lock was not acquired within 0.2 s")
    assert f"It was held by pid {pid} (" in error.message
    assert error.message.endswith("Done: public.others.")
    assert error.retryable


def test_what_is_not_done_in_time_is_ended_and_says_what_it_waited_for(
    client: LakebaseClient, database: Database
) -> None:
    with database.holding("LOCK TABLE orders") as pid, pytest.raises(StatementTimeoutError) as caught:
        client.maintenance.analyze("orders", lock_timeout=60, timeout=1.5)
    assert f"It waited for a lock held by pid {pid} (" in caught.value.message
    assert caught.value.remedy.startswith("Raise timeout")
    assert not database.waits()


def test_the_progress_is_logged(
    client: LakebaseClient,
    database: Database,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(own_session, "_EVERY", 0.05)
    caplog.set_level(logging.INFO, "lakebase_provider")
    with database.holding("LOCK TABLE orders"), pytest.raises(StatementTimeoutError):
        client.maintenance.analyze("orders", lock_timeout=60, timeout=3)
    assert "Analyzing public.orders: it waits for a lock held by pid" in caplog.text


def test_what_the_role_does_not_own_or_a_pipeline_fills_is_left_alone(
    client: LakebaseClient, database: Database, lakebase_env: LocalLakebase
) -> None:
    dsn = f"{lakebase_env.superuser_dsn} dbname=databricks_postgres"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE databricks_writer_7 NOLOGIN")
        connection.execute("CREATE SCHEMA foreign_to_it")
        try:
            connection.execute("CREATE TABLE foreign_to_it.theirs (n int)")
            connection.execute("CREATE TABLE foreign_to_it.synced (n int)")
            connection.execute("ALTER TABLE foreign_to_it.synced OWNER TO databricks_writer_7")
            connection.execute("GRANT USAGE ON SCHEMA foreign_to_it TO PUBLIC")
            names = ["foreign_to_it.theirs", "foreign_to_it.synced"]
            # Whoever owns the database may vacuum all of it.
            vacuumed = client.maintenance.vacuum(names)
            found = skipped(client.maintenance.repair_sequences(names))
        finally:
            connection.execute("DROP SCHEMA foreign_to_it CASCADE")
            connection.execute("DROP ROLE databricks_writer_7")
    assert (done(vacuumed), [*skipped(vacuumed)]) == (["foreign_to_it.theirs"], ["foreign_to_it.synced"])
    assert found["foreign_to_it.synced"] == "it is a synced table, which its pipeline alone changes"
    assert found["foreign_to_it.theirs"].startswith("the role may not maintain it: its owner is ")


def test_arguments_are_refused_before_anything_is_sent(client: LakebaseClient, database: Database) -> None:
    maintenance = client.maintenance
    with pytest.raises(ConfigError, match="'dead_share' must be from 0 to 1"):
        maintenance.vacuum(dead_share=10)
    with pytest.raises(ConfigError, match="'tables' names nothing"):
        maintenance.vacuum([])
    with pytest.raises(ConfigError, match="'lock_timeout' must be above 0"):
        maintenance.analyze("orders", lock_timeout=0)
    with pytest.raises(ConfigError, match="'attempts' must be a whole number above 0"):
        maintenance.analyze("orders", attempts=0)
    with pytest.raises(TableNotFoundError):
        maintenance.vacuum("no_such_table")
    database.rows("CREATE VIEW seen AS SELECT 1 AS n")
    with pytest.raises(ConfigError, match=r"public\.seen is no table"):
        maintenance.analyze("seen")


def test_a_view_is_refreshed_beside_its_readers_if_it_can_be(
    client: LakebaseClient, database: Database
) -> None:
    query = "SELECT day, sum(total) FROM orders GROUP BY day"
    database.rows(f"CREATE MATERIALIZED VIEW days AS {query} WITH NO DATA")
    refresh = client.maintenance.refresh
    assert refresh("days").steps[0].did == "refreshed not concurrently (it holds nothing yet)"
    assert "it has no unique index" in refresh("days").steps[0].did
    with pytest.raises(ConfigError, match=r"days cannot be refreshed concurrently: it has no unique index"):
        refresh("days", concurrently=True)
    database.rows("CREATE UNIQUE INDEX days_some ON days (day) WHERE day > '2027-01-02'")
    database.rows("CREATE UNIQUE INDEX days_text ON days ((day + 1))")
    assert "it has no unique index" in refresh("days").steps[0].did
    database.rows("CREATE UNIQUE INDEX days_day ON days (day)")
    with database.holding("SELECT * FROM days"):
        assert refresh("days", lock_timeout=1, attempts=1).steps[0].did == "refreshed concurrently"
    assert refresh("days", concurrently=False).steps[0].did == "refreshed not concurrently (as asked for)"
    with pytest.raises(ConfigError, match="is no materialized view"):
        refresh(["days", "orders"])
    with pytest.raises(ConfigError, match="'concurrently' must be 'auto', True or False"):
        refresh("days", concurrently="yes")  # type: ignore[arg-type]


def test_a_view_that_fails_does_not_show_values(client: LakebaseClient, database: Database) -> None:
    database.rows("CREATE MATERIALIZED VIEW bad AS SELECT 'dose-of-it'::text AS n WITH NO DATA")
    database.rows("CREATE FUNCTION fails() RETURNS int LANGUAGE sql AS $$ SELECT 'dose-of-it'::text::int $$")
    database.rows("DROP MATERIALIZED VIEW bad")
    database.rows("CREATE MATERIALIZED VIEW bad AS SELECT fails() AS n WITH NO DATA")
    with pytest.raises(StatementError) as caught:
        client.maintenance.refresh("bad")
    assert "dose-of-it" not in str(caught.value)
    database.rows("DROP FUNCTION fails() CASCADE")


def test_sequences_that_are_behind_are_moved_on(client: LakebaseClient, database: Database) -> None:
    database.rows("CREATE TABLE counted (a int GENERATED BY DEFAULT AS IDENTITY, b serial, c text)")
    database.rows("INSERT INTO counted (a, b) VALUES (100, 200)")
    report = client.maintenance.repair_sequences("counted")
    assert done(report) == ["public.counted_a_seq", "public.counted_b_seq"]
    assert report.steps[0].did == "its next value is 101 now, and was 1"
    assert database.rows("INSERT INTO counted (c) VALUES ('x') RETURNING a, b") == [(101, 201)]
    database.rows("SELECT setval('counted_b_seq', 1000)")
    assert client.maintenance.repair_sequences().steps == ()
    assert database.rows("SELECT last_value FROM counted_b_seq") == [(1000,)]


def test_a_digest_needs_the_extension(client: LakebaseClient) -> None:
    with pytest.raises(ConfigError, match="The database has no pg_stat_statements") as caught:
        client.maintenance.digest_statements()
    assert "CREATE EXTENSION" in caught.value.remedy or "does not offer" in caught.value.remedy


def test_the_table_of_kinds_is_what_the_methods_take() -> None:
    for action, options in ACTIONS.items():
        parameters = [*inspect.signature(getattr(Maintenance, action)).parameters][1:]
        assert tuple(parameters) == (*options, *PATIENCE)
        assert inspect.iscoroutinefunction(getattr(Maintenance, f"a{action}"))
    for action, given, message in (
        ("mow", {}, "'action' is 'mow'"),
        ("vacuum", {"table": "t"}, "'vacuum' has no option 'table'"),
        ("partitions", {"table": "t"}, "'partitions' needs 'every'"),
        ("partitions", {"table": "t", "every": "day", "archive": "{partition}"}, "'archive' without 'keep'"),
    ):
        with pytest.raises(ConfigError, match=message):
            require_action(action, given)


def test_each_has_a_twin_for_asyncio(client: LakebaseClient, database: Database) -> None:
    async def work() -> MaintenanceReport:
        return await client.maintenance.avacuum("orders")

    assert done(asyncio.run(work())) == ["public.orders"]
