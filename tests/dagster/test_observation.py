from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import dagster as dg
import pytest

from dagster_lakebase import (
    LakebaseResource,
    build_lakebase_table_observation,
    build_lakebase_table_observation_sensor,
)
from dagster_lakebase.tables.assets import table_of
from dagster_lakebase.tables.data_version import TableState
from dagster_lakebase.tables.observation import Rows
from lakebase_provider.local import LocalLakebase
from tests.eventually import eventually

ORDERS = dg.AssetSpec(["observed", "orders"])
EVENTS = dg.AssetSpec("events", metadata={"dagster/table_name": 'observed."Web-Events"'})


@pytest.fixture
def tables(lake: LocalLakebase) -> Iterator[LocalLakebase]:
    """A plain table of 3 rows, a partitioned one of 5, and a view."""
    execute = lake.admin.execute
    execute("DROP SCHEMA IF EXISTS observed CASCADE")
    execute(f'CREATE SCHEMA observed AUTHORIZATION "{lake.client_id}"')
    execute(
        "CREATE TABLE observed.orders (id bigint PRIMARY KEY, amount numeric(12,2), at timestamptz NOT NULL);"
        "COMMENT ON COLUMN observed.orders.amount IS 'in EUR'"
    )
    execute(
        'CREATE TABLE observed."Web-Events" (id int, day date) PARTITION BY RANGE (day);'
        'CREATE TABLE observed.early PARTITION OF observed."Web-Events"'
        " FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');"
        'CREATE TABLE observed.late PARTITION OF observed."Web-Events"'
        " FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')"
    )
    execute("CREATE VIEW observed.seen AS SELECT id FROM observed.orders")
    execute("INSERT INTO observed.orders SELECT n, n, timestamptz '2026-01-01Z' FROM generate_series(1, 3) n")
    execute(
        "INSERT INTO observed.\"Web-Events\" SELECT n, date '2026-01-30' + n FROM generate_series(0, 4) n"
    )
    execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA observed TO "{lake.client_id}"')
    # Statistics come a moment after the commit.
    eventually(lambda: counted(lake) == (3, 0, 5))
    yield lake
    execute("DROP SCHEMA observed CASCADE")


def counted(lake: LocalLakebase) -> tuple[Any, ...]:
    """Rows that were inserted into and updated in orders, and inserted into the partitions."""
    of = "pg_stat_get_tuples_{}('observed.{}'::regclass)"
    (found,) = lake.admin.execute(
        f"SELECT {of.format('inserted', 'orders')}, {of.format('updated', 'orders')},"
        f" {of.format('inserted', 'early')} + {of.format('inserted', 'late')}"
    )
    return found


def observe(
    *assets: Any, raise_on_error: bool = True, **arguments: Any
) -> tuple[dg.ExecuteInProcessResult, dict[str, dg.AssetObservation]]:
    definition = build_lakebase_table_observation(assets, **arguments)
    defs = dg.Definitions(
        assets=[definition],
        jobs=[dg.define_asset_job("observe", selection=[definition])],
        resources={"lakebase": LakebaseResource()},
    )
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_job_def("observe")
        result = job.execute_in_process(instance=instance, raise_on_error=raise_on_error)
    found = [
        event.asset_observation_data.asset_observation for event in result.get_asset_observation_events()
    ]
    return result, {observation.asset_key.to_user_string(): observation for observation in found}


def analyzed(lake: LocalLakebase) -> None:
    lake.admin.execute("ANALYZE observed.orders")
    lake.admin.execute('ANALYZE observed."Web-Events"')


def test_what_the_catalog_knows(tables: LocalLakebase) -> None:
    analyzed(tables)
    _, found = observe(ORDERS, EVENTS)
    values = {key: value.value for key, value in found["observed/orders"].metadata.items()}
    assert values["dagster/table_name"] == "observed.orders"
    assert values["lakebase/estimated_row_count"] == 3
    sizes = "SELECT pg_total_relation_size('observed.orders')"
    assert [(values["lakebase/size_bytes"],)] == tables.admin.execute(sizes)
    assert (values["lakebase/rows_inserted"], values["lakebase/rows_deleted"]) == (3, 0)
    analyzed_at = datetime.fromtimestamp(values["lakebase/last_analyze"], timezone.utc)
    assert abs(datetime.now(timezone.utc) - analyzed_at) < timedelta(minutes=5)
    assert "lakebase/last_vacuum" not in values
    assert "dagster/row_count" not in values
    columns = {column.name: column for column in values["dagster/column_schema"].columns}
    assert {name: column.type for name, column in columns.items()} == {
        "id": "bigint",
        "amount": "numeric(12,2)",
        "at": "timestamp with time zone",
    }
    assert columns["amount"].description == "in EUR"
    assert (columns["id"].constraints.nullable, columns["amount"].constraints.nullable) == (False, True)


def test_partitions_are_added_up(tables: LocalLakebase) -> None:
    analyzed(tables)
    _, found = observe(EVENTS)
    values = {key: value.value for key, value in found["events"].metadata.items()}
    assert values["dagster/table_name"] == 'observed."Web-Events"'
    assert values["lakebase/estimated_row_count"] == 5
    assert values["lakebase/rows_inserted"] == 5
    sizes = "SELECT pg_total_relation_size('observed.early') + pg_total_relation_size('observed.late')"
    assert [(values["lakebase/size_bytes"],)] == tables.admin.execute(sizes)


def test_what_is_not_known_is_not_made_up(tables: LocalLakebase) -> None:
    _, found = observe(ORDERS, dg.AssetSpec(["observed", "seen"]))
    # Never analyzed: Postgres has no estimate.
    assert "lakebase/estimated_row_count" not in found["observed/orders"].metadata
    assert "lakebase/last_analyze" not in found["observed/orders"].metadata
    view = found["observed/seen"]
    assert set(view.metadata) == {"dagster/table_name", "dagster/column_schema"}
    assert "dagster/data_version" not in (view.tags or {})


def test_counted_rows(tables: LocalLakebase) -> None:
    _, found = observe(ORDERS, EVENTS, rows="count")
    assert found["observed/orders"].metadata["dagster/row_count"].value == 3
    assert found["events"].metadata["dagster/row_count"].value == 5


def version(found: dict[str, dg.AssetObservation]) -> str:
    return (found["observed/orders"].tags or {})["dagster/data_version"]


@pytest.mark.parametrize(
    "write",
    [
        "INSERT INTO observed.orders VALUES (9, 9, now())",
        "UPDATE observed.orders SET amount = 1 WHERE id = 1",
        "DELETE FROM observed.orders WHERE id = 1",
        "TRUNCATE observed.orders",
    ],
)
def test_the_data_version_changes_with_each_write_and_only_then(tables: LocalLakebase, write: str) -> None:
    first = version(observe(ORDERS)[1])
    analyzed(tables)
    assert version(observe(ORDERS)[1]) == first
    tables.admin.execute(write)
    # The server's statistics come a moment after the commit.
    eventually(lambda: version(observe(ORDERS)[1]) != first)


class Watched:
    """What an instance learns of orders, observation by observation, each in a run of its own."""

    def __init__(self, instance: dg.DagsterInstance, arguments: dict[str, Any]) -> None:
        definition = build_lakebase_table_observation([ORDERS], **arguments)
        defs = dg.Definitions(
            assets=[definition],
            jobs=[dg.define_asset_job("observe", selection=[definition])],
            resources={"lakebase": LakebaseResource()},
        )
        self._job = defs.resolve_job_def("observe")
        self._instance = instance

    def version(self) -> str:
        result = self._job.execute_in_process(instance=self._instance)
        (event,) = result.get_asset_observation_events()
        return (event.asset_observation_data.asset_observation.tags or {})["dagster/data_version"]


@pytest.fixture
def watch(tables: LocalLakebase) -> Iterator[Callable[..., Watched]]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield lambda **arguments: Watched(instance, arguments)


def crash(lake: LocalLakebase) -> None:
    lake.admin.crash_postgres()


def reset(lake: LocalLakebase) -> None:
    lake.admin.execute("SELECT pg_stat_reset()")


def reset_one(lake: LocalLakebase) -> None:
    lake.admin.execute("SELECT pg_stat_reset_single_table_counters('observed.orders'::regclass)")


def suspend(lake: LocalLakebase) -> None:
    """One that keeps the statistics, as a clean stop of Postgres does."""
    lake.admin.suspend()


def suspend_and_forget(lake: LocalLakebase) -> None:
    """What Lakebase's documentation says of a suspend."""
    suspend(lake)
    reset(lake)


LOSSES = [crash, reset, reset_one, suspend, suspend_and_forget]
WATERMARKS: list[dict[str, Any]] = [{"timestamp_column": "at"}, {"rows": "count"}]


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("watermark", WATERMARKS)
def test_lost_statistics_are_no_write(
    tables: LocalLakebase,
    watch: Callable[..., Watched],
    lose: Callable[[LocalLakebase], None],
    watermark: dict[str, Any],
) -> None:
    watched = watch(**watermark)
    first = watched.version()
    lose(tables)
    assert watched.version() == first
    lose(tables)
    assert watched.version() == first
    # And what is counted from there on is seen again.
    tables.admin.execute("DELETE FROM observed.orders WHERE id = 3")
    eventually(lambda: watched.version() != first)


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("watermark", [{}, *WATERMARKS])
def test_a_write_between_two_losses_is_seen(
    tables: LocalLakebase,
    watch: Callable[..., Watched],
    lose: Callable[[LocalLakebase], None],
    watermark: dict[str, Any],
) -> None:
    watched = watch(**watermark)
    watched.version()
    lose(tables)
    before = watched.version()
    tables.admin.execute("UPDATE observed.orders SET amount = 7, at = now() WHERE id = 1")
    eventually(lambda: counted(tables)[1] == 1)
    lose(tables)
    after = watched.version()
    assert after != before
    assert watched.version() == after


@pytest.mark.parametrize("write", ["DELETE FROM observed.orders WHERE id = 1", "TRUNCATE observed.orders"])
def test_counted_rows_tell_what_no_time_does(
    tables: LocalLakebase, watch: Callable[..., Watched], write: str
) -> None:
    watched = watch(rows="count")
    before = watched.version()
    tables.admin.execute(write)
    reset(tables)
    assert watched.version() != before


def test_counted_rows_do_not_wait_for_the_statistics(
    tables: LocalLakebase, watch: Callable[..., Watched]
) -> None:
    watched = watch(rows="count")
    before = watched.version()
    tables.admin.execute("UPDATE observed.orders SET amount = 1 WHERE id = 1")
    assert watched.version() != before
    before = watched.version()
    tables.admin.execute("VACUUM (FREEZE, FULL) observed.orders")
    assert watched.version() == before


def test_a_replaced_table_of_the_same_rows_is_another_one(
    tables: LocalLakebase, watch: Callable[..., Watched]
) -> None:
    watched = watch(timestamp_column="at")
    before = watched.version()
    tables.admin.execute(
        "CREATE TABLE observed.other AS TABLE observed.orders; DROP TABLE observed.orders CASCADE;"
        "ALTER TABLE observed.other RENAME TO orders;"
        f'GRANT SELECT ON observed.orders TO "{tables.client_id}"'
    )
    reset(tables)
    assert watched.version() != before


def test_a_view_has_a_version_by_its_column(tables: LocalLakebase) -> None:
    tables.admin.execute("CREATE OR REPLACE VIEW observed.seen AS SELECT id, at FROM observed.orders")
    seen = dg.AssetSpec(["observed", "seen"])
    first, second = (
        (observe(seen, timestamp_column="at")[1]["observed/seen"].tags or {})["dagster/data_version"]
        for _ in range(2)
    )
    assert first == second


def test_a_replica_counts_nothing() -> None:
    at_noon = TableState(None, "1", "1", watermark="2026-01-01T12:00:00+00:00")
    assert not at_noon.is_written_since(at_noon)
    assert replace(at_noon, watermark="2026-01-01T13:00:00+00:00").is_written_since(at_noon)
    assert TableState(None, "1", "1").version() is None


def test_tables_of_the_catalog_itself_are_counted(tables: LocalLakebase) -> None:
    catalog = dg.AssetSpec(["pg_catalog", "pg_class"])
    before = version_of(catalog)
    tables.admin.execute("CREATE TABLE observed.another (id int)")
    eventually(lambda: version_of(catalog) != before)


def test_a_foreign_table_is_not_said_to_be_unchanged(tables: LocalLakebase) -> None:
    tables.admin.execute(
        "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;"
        "CREATE FOREIGN TABLE observed.abroad (id int) SERVER nowhere"
    )
    try:
        _, found = observe(dg.AssetSpec(["observed", "abroad"]))
    finally:
        tables.admin.execute("DROP FOREIGN DATA WRAPPER nowhere CASCADE")
    assert "dagster/data_version" not in (found["observed/abroad"].tags or {})


def version_of(asset: dg.AssetSpec) -> str:
    return (observe(asset)[1][asset.key.to_user_string()].tags or {})["dagster/data_version"]


def test_the_last_write_by_a_column(tables: LocalLakebase) -> None:
    _, found = observe(ORDERS, timestamp_column="at")
    when = found["observed/orders"].metadata["dagster/last_updated_timestamp"].value
    assert when == datetime(2026, 1, 1, tzinfo=timezone.utc).timestamp()


def test_commit_times_that_the_server_does_not_keep(tables: LocalLakebase) -> None:
    result, found = observe(ORDERS, commit_times=True, raise_on_error=False)
    assert not found
    (event,) = [event for event in result.all_events if event.is_step_failure]
    assert "track_commit_timestamp is off" in str(event.step_failure_data.error)


def test_a_missing_table_does_not_hide_the_others(tables: LocalLakebase) -> None:
    result, found = observe(ORDERS, dg.AssetSpec(["observed", "Orders"]), raise_on_error=False)
    assert set(found) == {"observed/orders"}
    (event,) = [event for event in result.all_events if event.is_step_failure]
    assert 'No such tables: observed."Orders" of observed/Orders' in str(event.step_failure_data.error)


def test_the_sensor_observes_what_runs_make(tables: LocalLakebase) -> None:
    @dg.asset(key=["observed", "orders"])
    def orders() -> None: ...

    sensor = build_lakebase_table_observation_sensor([orders, ["observed", "absent"]], rows="count")
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(
            instance=instance,
            resources={"lakebase": LakebaseResource()},
            definitions=dg.Definitions(assets=[orders], sensors=[sensor]),
        ) as context,
    ):
        tick = sensor.evaluate_tick(context)
    (event,) = tick.asset_events
    assert event.asset_key == orders.key
    assert event.metadata["dagster/row_count"].value == 3
    assert not event.tags
    assert tick.skip_message == "1 table observed. No such tables: observed.absent of observed/absent."


@pytest.mark.parametrize(
    ("key", "metadata", "table"),
    [
        (["orders"], {}, ("public", "orders")),
        (["warehouse", "shop", "orders"], {}, ("shop", "orders")),
        (["orders"], {"dagster/table_name": "o"}, ("public", "o")),
        (["orders"], {"dagster/table_name": "shop.o"}, ("shop", "o")),
        (["orders"], {"dagster/table_name": "db.shop.o"}, ("shop", "o")),
        (["orders"], {"dagster/table_name": '"a.b"."c""d"'}, ("a.b", 'c"d')),
        (["orders"], {"dagster/table_name": dg.MetadataValue.text("shop.o")}, ("shop", "o")),
    ],
)
def test_where_a_table_is(key: list[str], metadata: dict[str, Any], table: tuple[str, str]) -> None:
    assert table_of(dg.AssetKey(key), metadata) == table


@pytest.mark.parametrize("name", ["", "a..b", "a.b.c.d", 3])
def test_a_table_name_that_cannot_be_read_is_refused(name: Any) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="dagster/table_name of asset orders"):
        build_lakebase_table_observation([dg.AssetSpec("orders", metadata={"dagster/table_name": name})])


def test_what_dagster_makes_itself_is_left_to_the_sensor() -> None:
    @dg.asset
    def made() -> None: ...

    with pytest.raises(dg.DagsterInvalidDefinitionError, match="build_lakebase_table_observation_sensor"):
        build_lakebase_table_observation([made])


def test_bad_arguments_are_refused_when_they_are_written() -> None:
    exact: Rows = "exact"  # type: ignore[assignment] # the point of the test
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="Use 'estimate' or 'count'"):
        build_lakebase_table_observation([ORDERS], rows=exact)
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="no assets"):
        build_lakebase_table_observation_sensor([])
