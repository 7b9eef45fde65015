"""SQL as a component: assets that are made where the data are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import dagster as dg

from dagster_lakebase.components.connection import Connection
from dagster_lakebase.components.scaffolding import SqlScaffolder
from dagster_lakebase.failures import failing_fast
from dagster_lakebase.table_facts import TABLE_NAME, count_rows, fetch_table_facts, table_of

if TYPE_CHECKING:
    import psycopg

    from dagster_lakebase.resource import LakebaseResource

#: Statements whose result says how many rows they wrote; so does a SELECT that returns none, CREATE TABLE AS.
_WRITES = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "COPY"})
#: Names of parameters that a partition gives begin with this.
_PARTITION = "partition_"


class SqlFile(dg.Model):
    """SQL in a file, named relative to the component's folder."""

    path: str


@dg.scaffold_with(SqlScaffolder)
class LakebaseSqlComponent(dg.Component, dg.Resolvable, dg.Model):
    """Assets that SQL makes in Lakebase, in one transaction, with values bound and never pasted into it.

    A parameter is written ``%(name)s``. Its value comes from ``parameters``, or from the partition that is
    materialized: ``partition_key``, ``partition_keys`` (an array, for ``= ANY(…)``), for partitions by time
    ``partition_start`` and ``partition_end`` (timestamptz; the end is not part of it), and for
    multi-partitions one ``partition_<dimension>`` for each. Where there are parameters or partitions, a
    literal per cent sign is written ``%%``.
    """

    connection: Connection = "lakebase"
    sql: Annotated[
        str | SqlFile,
        dg.Resolver(
            lambda _context, value: value,
            model_field_type=str | SqlFile,
            inject_before_resolve=False,
            description="One or more statements, or the path of a file with them.",
            examples=["REFRESH MATERIALIZED VIEW revenue", {"path": "revenue.sql"}],
        ),
    ]
    assets: Annotated[
        list[dg.ResolvedAssetSpec],
        dg.Resolver.default(
            description="The assets that the SQL makes. The metadata dagster/table_name names an asset's "
            "table, whose columns are then shown.",
        ),
    ]
    parameters: Annotated[
        Mapping[str, Any], dg.Resolver.default(description="Values of bind parameters, by name.")
    ] = {}
    count_rows: Annotated[
        bool,
        dg.Resolver.default(
            description="Whether to count the rows of each asset's table, which reads all of it, for "
            "dagster/row_count.",
        ),
    ] = False
    name: Annotated[
        str | None,
        dg.Resolver.default(description="The op's name; made from the assets' keys when left out."),
    ] = None
    pool: Annotated[
        str | None, dg.Resolver.default(description="The concurrency pool that limits how many run at once.")
    ] = None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The assets.

        Raises:
            DagsterInvalidDefinitionError: The SQL is empty or its file is missing, or a parameter's name or
                value cannot be used.
        """
        if not self.assets:
            raise dg.DagsterInvalidDefinitionError("assets is empty. Name what the SQL makes.")
        text = self._text(context)
        self._check_parameters()
        tables = {
            spec.key: table_of(spec.key, spec.metadata) for spec in self.assets if TABLE_NAME in spec.metadata
        }

        @dg.multi_asset(
            name=self.name or self._op_name(),
            specs=self.assets,
            required_resource_keys={self.connection},
            op_tags={"dagster/kind": "lakebase"},
            pool=self.pool,
        )
        def lakebase_sql(context) -> Iterator[dg.MaterializeResult[Any]]:  # type: ignore[no-untyped-def] # Dagster reads annotations as objects
            lakebase: LakebaseResource = getattr(context.resources, self.connection)
            values = {**self.parameters, **_partition_values(context)}
            # Without parameters a per cent sign stands for itself.
            bound = values if values else None
            with failing_fast(), lakebase.get_connection() as connection:
                affected = _execute(connection, text, bound)
                found = list(tables.values())
                facts = fetch_table_facts(connection, found) if found else {}
                counts = count_rows(connection, list(facts)) if self.count_rows else {}
            context.log.info("%d rows affected", affected)
            for spec in self.assets:
                metadata: dict[str, Any] = {"lakebase/rows_affected": affected}
                table = tables.get(spec.key)
                if table in facts:
                    metadata["dagster/column_schema"] = facts[table].column_schema()
                if table in counts:
                    metadata["dagster/row_count"] = counts[table]
                yield dg.MaterializeResult(asset_key=spec.key, metadata=metadata)

        return dg.Definitions(assets=[lakebase_sql])

    def _text(self, context: dg.ComponentLoadContext) -> str:
        if isinstance(self.sql, str):
            text, where = self.sql, "sql"
        else:
            path = context.path / self.sql.path
            if not path.is_file():
                raise dg.DagsterInvalidDefinitionError(
                    f"sql.path names no file: {self.sql.path!r} in {context.path}."
                )
            text, where = path.read_text(encoding="utf-8"), self.sql.path
        if not text.strip():
            raise dg.DagsterInvalidDefinitionError(f"{where} is empty. Write the SQL that makes the assets.")
        return text

    def _check_parameters(self) -> None:
        for name, value in self.parameters.items():
            if name.startswith(_PARTITION):
                raise dg.DagsterInvalidDefinitionError(
                    f"Parameter {name!r}: names that begin with {_PARTITION!r} are the partition's. "
                    "Give it another name."
                )
            if isinstance(value, Mapping):
                raise dg.DagsterInvalidDefinitionError(
                    f"Parameter {name!r} is a mapping, which has no type in SQL. Give it as JSON text and "
                    f"write %({name})s::jsonb."
                )

    def _op_name(self) -> str:
        keys = "\n".join(sorted(spec.key.to_string() for spec in self.assets))
        return f"lakebase_sql_{hashlib.sha256(keys.encode()).hexdigest()[:8]}"


def _execute(connection: psycopg.Connection[Any], text: str, values: Mapping[str, Any] | None) -> int:
    """Run the statements, and say how many rows they have written together."""
    import psycopg

    affected = 0
    # Bound by libpq's quoting on this side: the server takes no parameters with several statements.
    with psycopg.ClientCursor(connection) as cursor:
        cursor.execute(text.encode(), values)
        while True:
            verb = (cursor.statusmessage or "").split(" ")[0]
            if verb in _WRITES or (verb == "SELECT" and cursor.description is None):
                affected += cursor.rowcount
            if not cursor.nextset():
                return affected


def _partition_values(context: dg.AssetExecutionContext) -> dict[str, Any]:
    if not context.has_partition_key and not context.has_partition_key_range:
        return {}
    keys = list(context.partition_keys)
    values: dict[str, Any] = {"partition_keys": [str(key) for key in keys]}
    if len(keys) == 1:
        values["partition_key"] = str(keys[0])
        if isinstance(keys[0], dg.MultiPartitionKey):
            for dimension, key in keys[0].keys_by_dimension.items():
                values[_PARTITION + dimension] = key
    if _is_by_time(context.assets_def.partitions_def):
        window = context.partition_time_window
        values["partition_start"], values["partition_end"] = window.start, window.end
    return values


def _is_by_time(definition: dg.PartitionsDefinition[Any] | None) -> bool:
    if isinstance(definition, dg.MultiPartitionsDefinition):
        by_time = [one for one in definition.partitions_defs if _is_by_time(one.partitions_def)]
        return len(by_time) == 1
    return isinstance(definition, dg.TimeWindowPartitionsDefinition)
