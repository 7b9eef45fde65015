"""What the database knows about tables, as observable assets or, for assets made by runs, by a sensor."""

# No "from __future__ import annotations": Dagster reads the annotation of `context` as an object.

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from dagster_lakebase.resource.failures import failing_fast
from dagster_lakebase.tables.asset_keys import Asset, asset_specs, require_list
from dagster_lakebase.tables.assets import TABLE_NAME, column_schema, require_database, table_of
from dagster_lakebase.tables.data_version import Observed, TableState, last_observed, observed
from lakebase_provider.core.database.facts import RowsRead, TableFacts, TableRef, fetch_table_facts, read_rows
from lakebase_provider.core.errors import TableNotFoundError

if TYPE_CHECKING:
    import psycopg

    from dagster_lakebase.resource.resource import LakebaseResource

#: Whether to count rows or use the catalog's estimate.
Rows = Literal["estimate", "count"]


def build_lakebase_table_observation(
    assets: Iterable[Asset],
    *,
    rows: Rows = "estimate",
    timestamp_column: str | None = None,
    commit_times: bool = False,
    resource_key: str = "lakebase",
    name: str = "lakebase_tables",
) -> dg.AssetsDefinition:
    """Observable assets for tables that are written outside Dagster.

    Each observation is one catalog query for all tables. It reports the estimated rows, the bytes on disk,
    the rows inserted, updated and deleted since the statistics began, the last analyze and vacuum, and the
    columns. Its data version changes after each write, so that dependents of the table can be materialized
    exactly when it has changed.

    Writes show in the server's statistics a moment after the commit. If these were lost in between (in a
    crash, by ``pg_stat_reset``, when a suspended compute restarted), the time of the newest row tells whether
    the table was written, if it is requested; otherwise the version changes, since a write may have been
    missed. ``rows="count"`` sees every write without the statistics.

    Args:
        assets: Specifications of the assets, or their keys. The metadata ``dagster/table_name`` names an
            asset's table; otherwise the key's last part is the table and the one before it the schema, by
            default ``public``.
        rows: ``count`` reads each table to count its rows exactly, and to see every write to them.
        timestamp_column: A column that holds the time of each row's last write, reported as
            ``dagster/last_updated_timestamp``, from which freshness is judged. After a loss of statistics, a
            write that does not set it is not seen, nor is a DELETE.
        commit_times: Report that time from the commits of the rows, if the server has
            ``track_commit_timestamp`` on. Reads each table.
        resource_key: Where the :class:`~dagster_lakebase.LakebaseResource` is bound.
        name: The name of the op that observes.

    Returns:
        A definition to pass on as ``Definitions(assets=[…])``; a schedule or an automation condition
        observes it.

    Raises:
        DagsterInvalidDefinitionError: There are no assets, or one of them is materialized by Dagster, which
            :func:`build_lakebase_table_observation_sensor` observes.

    Example:
        .. code-block:: python

            tables = build_lakebase_table_observation([dg.AssetSpec(["shop", "orders"])])
            defs = dg.Definitions(assets=[tables], resources={"lakebase": LakebaseResource()})
    """
    specs = _specs(assets)
    observer = _Observer(specs, rows, timestamp_column, commit_times)

    def lakebase_tables(context: dg.AssetExecutionContext) -> Iterator[dg.ObserveResult]:
        lakebase: LakebaseResource = getattr(context.resources, resource_key)
        keys = context.selected_asset_keys
        with failing_fast():
            found = observer.observe(lakebase, keys)
        last = last_observed(context.instance, keys)
        for key, (metadata, state) in found.seen.items():
            yield _result(key, metadata, observed(state, last.get(key)))
        with failing_fast():
            found.raise_for_missing()

    with warnings.catch_warnings():
        # We keep track of Dagster's beta status; our users could do nothing about the warning.
        warnings.simplefilter("ignore", dg.BetaWarning)
        observable = dg.multi_observable_source_asset(
            specs=list(specs.values()), name=name, can_subset=True, required_resource_keys={resource_key}
        )
    definition: dg.AssetsDefinition = observable(lakebase_tables)
    return definition


def build_lakebase_table_observation_sensor(
    assets: Iterable[Asset],
    *,
    rows: Rows = "estimate",
    timestamp_column: str | None = None,
    commit_times: bool = False,
    minimum_interval_seconds: int = 3600,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
    resource_key: str = "lakebase",
    name: str = "lakebase_table_observation_sensor",
) -> dg.SensorDefinition:
    """A sensor that observes tables without a run, including those that Dagster materializes.

    It reports the same as :func:`build_lakebase_table_observation`. A table that does not exist is named in
    the tick's message; the others are still observed.

    Args:
        assets: The assets, or their keys.
        rows: ``count`` reads each table to count its rows exactly. A tick has 60 seconds.
        timestamp_column: A column that holds the time of each row's last write.
        commit_times: Report that time from the commits of the rows. Reads each table.
        minimum_interval_seconds: Seconds between ticks.
        default_status: Whether the sensor runs without being switched on.
        resource_key: Where the :class:`~dagster_lakebase.LakebaseResource` is bound.
        name: The sensor's name.

    Returns:
        A definition to pass on as ``Definitions(sensors=[…])``.

    Raises:
        DagsterInvalidDefinitionError: There are no assets.
    """
    specs = _specs(assets, materialized=True)
    observer = _Observer(specs, rows, timestamp_column, commit_times)

    @dg.sensor(
        name=name,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        required_resource_keys={resource_key},
        description="Observes what the database knows about tables.",
    )
    def lakebase_tables(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        found = observer.observe(getattr(context.resources, resource_key), specs)
        events = [
            # Without the data version: for an asset that Dagster makes, it is its materialization's.
            dg.AssetObservation(key, metadata=metadata)
            for key, (metadata, _state) in found.seen.items()
        ]
        count = len(found.seen)
        message = f"{count} {'table' if count == 1 else 'tables'} observed. {found.missing_text()}".strip()
        return dg.SensorResult(asset_events=events, skip_reason=message)

    return lakebase_tables


class _Found:
    """What an observation saw, and which tables it did not find."""

    def __init__(self) -> None:
        self.seen: dict[dg.AssetKey, tuple[dict[str, Any], TableState]] = {}
        self.missing: dict[dg.AssetKey, TableRef] = {}

    def missing_text(self) -> str:
        if not self.missing:
            return ""
        named = ", ".join(f"{table} of {key.to_user_string()}" for key, table in self.missing.items())
        return f"No such tables: {named}."

    def raise_for_missing(self) -> None:
        if self.missing:
            raise TableNotFoundError(
                self.missing_text(),
                remedy=f"Check schema and name (they are case-sensitive), or name the table with "
                f"{TABLE_NAME}.",
            )


class _Observer:
    def __init__(
        self,
        specs: Mapping[dg.AssetKey, dg.AssetSpec],
        rows: Rows,
        timestamp_column: str | None,
        commit_times: bool,
    ) -> None:
        if rows not in ("estimate", "count"):
            raise dg.DagsterInvalidDefinitionError(f"rows is {rows!r}. Use 'estimate' or 'count'.")
        self._specs = specs
        self._tables = {key: table_of(key, spec.metadata) for key, spec in specs.items()}
        self._count = rows == "count"
        self._timestamp_column = timestamp_column
        self._timed = commit_times or timestamp_column is not None

    def observe(self, lakebase: "LakebaseResource", keys: Iterable[dg.AssetKey]) -> _Found:
        tables = {key: self._tables[key] for key in keys}
        for key in tables:
            require_database(key, self._specs[key].metadata, lakebase.client.config.database)
        found = _Found()
        with lakebase.get_connection() as connection:
            facts = fetch_table_facts(connection, list(tables.values()))
            read = read_rows(connection, facts) if self._count else {}
            times = self._times(connection, list(facts))
        for key, table in tables.items():
            if table not in facts:
                found.missing[key] = table
                continue
            of_table, rows, updated = facts[table], read.get(table), times.get(table)
            found.seen[key] = _metadata(table, of_table, rows, updated), _state(of_table, rows, updated)
        return found

    def _times(
        self, connection: "psycopg.Connection[Any]", tables: Sequence[TableRef]
    ) -> dict[TableRef, datetime | None]:
        if not self._timed:
            return {}
        from lakebase_provider.core.database.freshness import last_updated

        times: dict[TableRef, datetime | None] = {}
        for table in tables:
            found = last_updated(
                connection, [table.name], schema=table.schema, timestamp_column=self._timestamp_column
            )
            times[table] = found[table.name]
        return times


def _specs(assets: Iterable[Asset], *, materialized: bool = False) -> dict[dg.AssetKey, dg.AssetSpec]:
    function = "build_lakebase_table_observation" + ("_sensor" if materialized else "")
    require_list(assets, function)
    assets = list(assets)
    for asset in assets:
        if isinstance(asset, dg.AssetsDefinition) and asset.is_executable and not materialized:
            raise dg.DagsterInvalidDefinitionError(
                f"{function}: {sorted(map(str, asset.keys))} are made by Dagster itself. "
                "Use build_lakebase_table_observation_sensor."
            )
    return asset_specs(assets, function)


def _result(key: dg.AssetKey, metadata: dict[str, Any], now: Observed | None) -> dg.ObserveResult:
    if now is None:
        return dg.ObserveResult(key, metadata=metadata)
    version = dg.DataVersion(now.version)
    return dg.ObserveResult(key, metadata={**metadata, **now.metadata()}, data_version=version)


def _state(facts: TableFacts, rows: RowsRead | None, updated: datetime | None) -> TableState:
    return TableState(
        facts.statistics,
        facts.counters,
        facts.files,
        watermark=None if updated is None else updated.isoformat(),
        rows=None if rows is None else rows.version,
    )


def _metadata(
    table: TableRef, facts: TableFacts, rows: RowsRead | None, updated: datetime | None
) -> dict[str, Any]:
    known = {
        "lakebase/estimated_row_count": facts.estimated_rows,
        "lakebase/size_bytes": facts.size_bytes,
        "lakebase/rows_inserted": facts.rows_inserted,
        "lakebase/rows_updated": facts.rows_updated,
        "lakebase/rows_deleted": facts.rows_deleted,
        "lakebase/last_analyze": _timestamp(facts.last_analyze),
        "lakebase/last_vacuum": _timestamp(facts.last_vacuum),
        "dagster/row_count": None if rows is None else rows.total,
        "dagster/last_updated_timestamp": _timestamp(updated),
    }
    return {
        TABLE_NAME: str(table),
        "dagster/column_schema": column_schema(facts),
        **{name: value for name, value in known.items() if value is not None},
    }


def _timestamp(when: datetime | None) -> dg.TimestampMetadataValue | None:
    return None if when is None else dg.MetadataValue.timestamp(when)
