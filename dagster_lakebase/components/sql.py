"""SQL as a component: assets that are made where the data is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import dagster as dg

from dagster_lakebase.components.connection import Connection
from dagster_lakebase.components.partition_values import PREFIX, partition_names, partition_values
from dagster_lakebase.components.scaffolding import SqlScaffolder
from dagster_lakebase.resource.failures import failing_fast
from dagster_lakebase.resource.hidden_inputs import HiddenInputs
from dagster_lakebase.tables.assets import TABLE_NAME, column_schema, require_database, table_of
from dagster_lakebase.tables.op_names import op_name
from lakebase_provider.core.base.plain_text import code_block
from lakebase_provider.core.base.sql.sql_text import ends_transaction, first_word, statements
from lakebase_provider.core.connect.parameters.placeholders import Statement, missing_values, parse
from lakebase_provider.core.database.facts import TableRef, count_rows, fetch_table_facts
from lakebase_provider.core.errors import ConfigError, TableNotFoundError

if TYPE_CHECKING:
    import psycopg

    from dagster_lakebase.resource.resource import LakebaseResource

#: Statements whose result tells how many rows they wrote; so does CREATE TABLE AS, a SELECT that returns
#: none.
_WRITES = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "COPY"})


class SqlFile(dg.Model):
    """SQL in a file, named relative to the component's folder."""

    path: str


@dg.scaffold_with(SqlScaffolder)
class LakebaseSqlComponent(dg.Component, HiddenInputs):
    """Assets that SQL makes in Lakebase, in one transaction, with values bound, never inserted into the text.

    A parameter is written ``%(name)s``. Its value comes from ``parameters``, or from the partition that is
    materialized: ``partition_key``, ``partition_keys`` (an array, for ``= ANY(…)``), for time partitions
    ``partition_start`` and ``partition_end`` (timestamptz; the end is not part of it), and for
    multi-partitions one ``partition_<dimension>`` for each. A placeholder in a comment or in quotes is plain
    text and needs no value, and a percent sign that begins no parameter stands for itself.

    The transaction begins and ends around the SQL, which holds no COMMIT or ROLLBACK of its own, except to a
    savepoint.

    The step is named after the asset. Its metadata shows the SQL and its file (``lakebase/sql``,
    ``lakebase/sql_file``).
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
            "table, which must exist after the SQL has run, and whose columns are then shown.",
        ),
    ]
    parameters: Annotated[
        Mapping[str, Any], dg.Resolver.default(description="Values of bind parameters, by name.")
    ] = {}
    count_rows: Annotated[
        bool,
        dg.Resolver.default(
            description="Whether to count the rows of each asset's table for dagster/row_count, which reads "
            "the whole table.",
        ),
    ] = False
    restore_point: Annotated[
        bool,
        dg.Resolver.default(
            description="Whether to note in the metadata, before the SQL runs, the moment as of which rows "
            "can be put back."
        ),
    ] = False
    lsn: Annotated[
        bool,
        dg.Resolver.default(
            description="Whether to note in the metadata the position in the server's log after the commit "
            "(lakebase/lsn), which Lakehouse sync has to reach."
        ),
    ] = False
    name: Annotated[
        str | None,
        dg.Resolver.default(description="The op's name; the asset's if left out."),
    ] = None
    pool: Annotated[
        str | None, dg.Resolver.default(description="The concurrency pool that limits how many run at once.")
    ] = None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The assets.

        Raises:
            DagsterInvalidDefinitionError: The SQL is empty, ends its transaction, or its file is missing; a
                parameter's name or value cannot be used; or the SQL uses an unknown one.
        """
        if not self.assets:
            raise dg.DagsterInvalidDefinitionError("assets is empty. Name the assets that the SQL makes.")
        source = self._source(context)
        self._check_parameters(source)
        shown = source.metadata()
        specs = [spec.replace_attributes(metadata={**shown, **spec.metadata}) for spec in self.assets]
        tables = {
            spec.key: table_of(spec.key, spec.metadata) for spec in self.assets if TABLE_NAME in spec.metadata
        }

        @dg.multi_asset(
            name=self.name or op_name([spec.key for spec in self.assets]),
            specs=specs,
            required_resource_keys={self.connection},
            op_tags={"dagster/kind": "lakebase"},
            pool=self.pool,
        )
        def lakebase_sql(context) -> Iterator[dg.MaterializeResult[Any]]:  # type: ignore[no-untyped-def] # Dagster reads annotations as objects
            lakebase: LakebaseResource = getattr(context.resources, self.connection)
            values = {**self.parameters, **partition_values(context)}
            with failing_fast():
                for spec in self.assets:
                    require_database(spec.key, spec.metadata, lakebase.client.config.database)
                text, bound = source.bind(values)
                point = lakebase.restore_point_metadata(context.log) if self.restore_point else {}
            with failing_fast(), lakebase.get_connection() as connection:
                affected = _execute(connection, text, bound)
                found = list(tables.values())
                facts = fetch_table_facts(connection, found) if found else {}
                for key, table in tables.items():
                    if table not in facts:
                        raise _not_made(connection, key, table, source.name)
                counts = count_rows(connection, list(facts)) if self.count_rows else {}
            context.log.info("%d rows affected", affected)
            position = {"lakebase/lsn": lakebase.log_position()} if self.lsn else {}
            branch = {**lakebase.branch_metadata(), **position, **point}
            for spec in self.assets:
                metadata: dict[str, Any] = {"lakebase/rows_affected": affected, **shown, **branch}
                if spec.key in tables:
                    table = tables[spec.key]
                    metadata["dagster/column_schema"] = column_schema(facts[table])
                    if table in counts:
                        metadata["dagster/row_count"] = counts[table]
                yield dg.MaterializeResult(asset_key=spec.key, metadata=metadata)

        return dg.Definitions(assets=[lakebase_sql])

    def _source(self, context: dg.ComponentLoadContext) -> _Source:
        if isinstance(self.sql, str):
            source = _Source(self.sql, None)
        else:
            path = context.path / self.sql.path
            if not path.is_file():
                raise dg.DagsterInvalidDefinitionError(
                    f"sql.path is not a file: {self.sql.path!r} in {context.path}."
                )
            source = _Source(path.read_text(encoding="utf-8"), _shown(path, context.project_root))
        if not source.text.strip():
            raise dg.DagsterInvalidDefinitionError(
                f"{source.name} is empty. Write the SQL that makes the assets."
            )
        for number, statement in enumerate(statements(source.text, placeholders=True), 1):
            if ends_transaction(statement):
                raise dg.DagsterInvalidDefinitionError(
                    f"{source.name}: statement {number} is {first_word(statement)}, which would end the "
                    "transaction in the middle: all of the SQL is one, committed when the tables are found. "
                    "Leave it out, and a BEGIN too, or make several assets."
                )
        return source

    def _check_parameters(self, source: _Source) -> None:
        for name, value in self.parameters.items():
            if name.startswith(PREFIX):
                raise dg.DagsterInvalidDefinitionError(
                    f"Parameter {name!r}: names that begin with {PREFIX!r} are reserved for the partition. "
                    "Give it another name."
                )
            if isinstance(value, Mapping):
                raise dg.DagsterInvalidDefinitionError(
                    f"Parameter {name!r} is a mapping, which has no type in SQL. Give it as JSON text and "
                    f"write %({name})s::jsonb."
                )

        given = {*self.parameters, *partition_names(spec.partitions_def for spec in self.assets)}
        if missing := source.statement.missing(given):
            raise dg.DagsterInvalidDefinitionError(
                f"{source.name}: {missing_values(missing, given)} Add it to parameters, or correct its name; "
                "those of a partition exist only for an asset with partitions."
            )


class _Source:
    """The SQL and its place.

    Args:
        text: The SQL.
        file: The file's path within the project; None for SQL in the definition itself.
    """

    def __init__(self, text: str, file: str | None) -> None:
        self.text = text
        self.name = file or "sql"
        self._file = file

    @property
    def statement(self) -> Statement:
        return parse(self.text)

    def bind(self, values: Mapping[str, Any]) -> tuple[str, Any]:
        """The text and the values in psycopg's form.

        Raises:
            ConfigError: A value is missing, or its placeholder is where no value can be inserted.
        """
        if not values:
            # Without parameters, a percent sign stands for itself.
            return self.text, None
        if missing := self.statement.missing(values):
            raise ConfigError(
                f"{self.name}: {missing_values(missing, values)}",
                remedy="Materialize one partition: partition_key exists only for a single one. For several, "
                "use partition_keys or, for time partitions, partition_start and partition_end.",
            )
        import psycopg

        try:
            return self.statement.bind(values)
        except psycopg.ProgrammingError as error:
            raise ConfigError(f"{self.name}: {error}", remedy="Correct the SQL.") from None

    def metadata(self) -> dict[str, Any]:
        """The part of it that is shown."""
        shown: dict[str, Any] = {"lakebase/sql": dg.MetadataValue.md(code_block("sql", self.text.strip()))}
        if self._file is not None:
            shown["lakebase/sql_file"] = self._file
        return shown


def _shown(path: Path, project: Path) -> str:
    """The path within the project: the project's own location differs between machines."""
    return path.relative_to(project).as_posix() if path.is_relative_to(project) else path.name


def _not_made(
    connection: psycopg.Connection[Any], key: dg.AssetKey, table: TableRef, source: str
) -> TableNotFoundError:
    from lakebase_provider.core.database.catalog import TableName, read_table

    remedy = f"Create it in the SQL, or correct {TABLE_NAME} in the asset's metadata."
    try:
        read_table(connection, TableName(table.name, table.schema))
    except TableNotFoundError as error:
        if error.remedy != TableNotFoundError.default_remedy:
            remedy = error.remedy
    return TableNotFoundError(
        f"{source} has run, but there is no table {table}, which {TABLE_NAME} of asset "
        f"{key.to_user_string()} names; its changes are rolled back.",
        remedy=remedy,
    )


def _execute(connection: psycopg.Connection[Any], text: str, values: Any) -> int:
    """Run the statements, and return how many rows they wrote together."""
    import psycopg

    affected = 0
    # Bound on the client by libpq's quoting: the server accepts no parameters with several statements.
    with psycopg.ClientCursor(connection) as cursor:
        cursor.execute(text.encode(), values)
        while True:
            verb = (cursor.statusmessage or "").split(" ")[0]
            if verb in _WRITES or (verb == "SELECT" and cursor.description is None):
                affected += cursor.rowcount
            if not cursor.nextset():
                return affected
