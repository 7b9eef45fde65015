"""An unload as a component: a query's rows as a Delta table, or a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import dagster as dg

from dagster_lakebase.components.connection import Connection
from dagster_lakebase.components.load import (
    delta_table,
    fields_of,
    filled,
    landed_files,
    require_known,
    texts_of,
)
from dagster_lakebase.components.partition_values import each_partition, partition_names
from dagster_lakebase.components.scaffolding import UnloadScaffolder
from dagster_lakebase.resource.failures import failing_fast
from dagster_lakebase.resource.hidden_inputs import HiddenInputs
from dagster_lakebase.tables.op_names import op_name
from lakebase_provider.core.bulk.sources.delta.delta import Delta
from lakebase_provider.core.bulk.sources.delta.opened import is_delta
from lakebase_provider.core.bulk.unload.options import WriteMode, check_unload_options
from lakebase_provider.core.connect.parameters.placeholders import missing_values, parse
from lakebase_provider.core.errors import ConfigError

if TYPE_CHECKING:
    from dagster_lakebase.resource.resource import LakebaseResource
    from lakebase_provider.core import UnloadResult


@dg.scaffold_with(UnloadScaffolder)
class LakebaseUnloadComponent(dg.Component, HiddenInputs):
    """An asset that is written from a query's rows: a Delta table, in one commit of it, or a file.

    A parameter in the query is written ``%(name)s``. Its value comes from the partition that is materialized,
    as for ``LakebaseSqlComponent``; ``{partition_key}`` in ``to`` stands for it in a path. The data version
    is the version of the Delta table that has the rows.
    """

    connection: Connection = "lakebase"
    sql: Annotated[str, dg.Resolver.default(description="The query.")]
    to: Annotated[
        str,
        dg.Resolver.default(
            description="The Delta table, delta: and its path or URI, which is made if it is missing; or the "
            "path or URI of a file, which is replaced. Relative to the component's folder.",
            examples=["delta:s3://lake/orders", "orders/{partition_key}.parquet"],
        ),
    ]
    asset: Annotated[dg.ResolvedAssetSpec, dg.Resolver.default(description="The asset.")]
    mode: Annotated[
        WriteMode | None,
        dg.Resolver.default(
            description="For a Delta table: append (if left out) adds the rows; overwrite puts them in place "
            "of all others; merge updates rows with the same key and adds the others."
        ),
    ] = None
    keys: Annotated[
        list[str] | None,
        dg.Resolver.default(description="For merge: names of the columns that identify a row."),
    ] = None
    unload_id: Annotated[
        str | None,
        dg.Resolver.default(
            description="For a Delta table: what is written once; {run_id} with the asset and its partition "
            "by default, so that a retry in the same run writes nothing twice. null to write at each attempt."
        ),
    ] = None
    name: Annotated[
        str | None, dg.Resolver.default(description="The op's name; the asset's if left out.")
    ] = None
    pool: Annotated[
        str | None, dg.Resolver.default(description="The concurrency pool that limits how many run at once.")
    ] = None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The asset.

        Raises:
            DagsterInvalidDefinitionError: Options contradict each other, or a name in braces or a parameter
                is unknown.
        """
        self._check()
        folder = context.path
        spec = self.asset.replace_attributes(metadata={"lakebase/to": self.to, **self.asset.metadata})

        @dg.multi_asset(
            name=self.name or op_name([spec.key]),
            specs=[spec],
            required_resource_keys={self.connection},
            op_tags={"dagster/kind": "lakebase"},
            pool=self.pool,
        )
        def lakebase_unload(context) -> Iterator[dg.MaterializeResult[Any]]:  # type: ignore[no-untyped-def] # Dagster reads annotations as objects
            lakebase: LakebaseResource = getattr(context.resources, self.connection)
            with failing_fast():
                results = [
                    self._unloaded(lakebase, folder, context.run.run_id, values)
                    for values in each_partition(context)
                ]
            if skipped := sum(result.skipped for result in results):
                context.log.info("Skipped: %d of %d had been written.", skipped, len(results))
            version = results[-1].version
            metadata = {
                "lakebase/rows_written": sum(result.rows for result in results),
                "lakebase/bytes_written": sum(result.bytes for result in results),
                "lakebase/skipped": skipped,
                **({} if version is None else {"lakebase/delta_version": version}),
            }
            known = None if version is None else dg.DataVersion(str(version))
            yield dg.MaterializeResult(asset_key=spec.key, metadata=metadata, data_version=known)

        return dg.Definitions(assets=[lakebase_unload])

    def _unloaded(
        self, lakebase: LakebaseResource, folder: Path, run_id: str, values: Mapping[str, Any]
    ) -> UnloadResult:
        # Without values, a percent sign stands for itself.
        text, bound = parse(self.sql).bind(values) if values else (self.sql, None)
        texts = texts_of(values)
        of_delta = is_delta(self.to)
        return lakebase.client.unload(
            text.encode(),
            delta_table(self.to, folder, texts)
            if of_delta
            else landed_files(self.to, folder, texts)[0].source,
            params=bound,
            mode=self.mode,
            keys=self.keys,
            unload_id=self._id(run_id, values) if of_delta else None,
        )

    def _check(self) -> None:
        values = partition_names([self.asset.partitions_def])
        texts = texts_of(dict.fromkeys(values))
        require_known("to", fields_of(self.to), set(texts))
        require_known("unload_id", fields_of(self.unload_id or ""), {*texts, "run_id"})
        if missing := parse(self.sql).missing(values):
            raise dg.DagsterInvalidDefinitionError(f"sql: {missing_values(missing, values)}")
        given = {name: getattr(self, name) for name in ("to", "mode", "keys", "unload_id")}
        try:
            check_unload_options(given)
            if is_delta(self.to):
                Delta.parse(self.to)
            elif set(self.to) & set("*?["):
                raise ConfigError(f"to is the pattern {self.to!r}.", remedy="Name one file.")
        except ConfigError as error:
            raise dg.DagsterInvalidDefinitionError(str(error)) from error

    def _id(self, run_id: str, values: Mapping[str, Any]) -> str | None:
        if "unload_id" not in self.model_fields_set:
            parts = (run_id, self.asset.key.to_user_string(), values.get("partition_key"))
            return "/".join(filter(None, parts))
        return self.unload_id and filled(self.unload_id, {**texts_of(values), "run_id": run_id})
