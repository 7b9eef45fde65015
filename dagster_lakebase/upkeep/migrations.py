"""Migrations as an asset: SQL files in their order, each run once."""

# No "from __future__ import annotations": Dagster reads an op's annotations as objects, not as text.

import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from dagster_lakebase.resource.failures import failing_fast
from dagster_lakebase.tables.op_names import op_name
from lakebase_provider.core.errors import LakebaseError

if TYPE_CHECKING:
    from dagster_lakebase.resource.resource import LakebaseResource


class LakebaseMigrationConfig(dg.Config):
    """What one run of an asset of :func:`build_lakebase_migration_asset` may be told."""

    baseline: int | None = Field(
        default=None,
        description="Version up to which the files are entered as done without being run, for a database "
        "that was there before its ledger.",
    )
    out_of_order: bool = Field(
        default=False, description="Also run files whose version is below that of one that has run."
    )


def build_lakebase_migration_asset(
    folder: str | os.PathLike[str],
    *,
    asset: dg.AssetSpec | dg.AssetKey | str | Sequence[str] = "lakebase_migrations",
    lock_timeout: float = 5.0,
    statement_timeout: float | None = None,
    lint: bool = False,
    ledger: str | None = None,
    timeout: float = 3600.0,
    restore_point: bool = False,
    resource_key: str = "lakebase",
) -> dg.AssetsDefinition:
    """An asset that runs the SQL files of a folder that have not run yet, each of them once.

    Assets that need the tables name it among their ``deps``. Its code version follows from the files, so
    Dagster shows when some have come that have not been run. In a branch deployment with a
    :class:`~dagster_lakebase.LakebaseBranchDeployment` they run on its branch.

    Args:
        folder: The folder. Files are called ``0001_name.sql`` or ``V1__name.sql``.
        asset: The asset, or its key.
        lock_timeout: Seconds that a statement waits for a lock before its transaction is undone and tried
            again.
        statement_timeout: Seconds that a statement may take; the resource's by default.
        lint: Ask squawk about the files that have not run, and run nothing if it finds anything.
        ledger: Name of the table that says what has run; ``public.lakebase_migration`` by default.
        timeout: Seconds that all of it may take.
        restore_point: Whether to note in the metadata, before any file runs, the moment as of which rows can
            be put back.
        resource_key: Where the :class:`~dagster_lakebase.LakebaseResource` is bound.

    Returns:
        A definition to pass on as ``Definitions(assets=[…])``. Its metadata have the number of files that the
        run applied (``lakebase/migrations_applied``) and all files with what became of them.

    Raises:
        DagsterInvalidDefinitionError: There is no such folder, or a file in it is not well formed.

    Example:
        .. code-block:: python

            migrations = build_lakebase_migration_asset(Path(__file__).parent / "migrations")


            @dg.asset(deps=[migrations])
            def orders(lakebase: LakebaseResource) -> None: ...
    """
    spec = asset if isinstance(asset, dg.AssetSpec) else dg.AssetSpec(asset, kinds={"postgres"})
    if spec.code_version is None:
        spec = spec.replace_attributes(code_version=_code_version(folder))
    options: dict[str, Any] = {
        "lock_timeout": lock_timeout,
        "statement_timeout": statement_timeout,
        "lint": lint,
        "timeout": timeout,
        **({} if ledger is None else {"ledger": ledger}),
    }

    @dg.multi_asset(
        name=op_name([spec.key]),
        specs=[spec],
        required_resource_keys={resource_key},
        op_tags={"dagster/kind": "lakebase"},
    )
    def lakebase_migrations(
        context: dg.AssetExecutionContext, config: LakebaseMigrationConfig
    ) -> dg.MaterializeResult[Any]:
        lakebase: LakebaseResource = getattr(context.resources, resource_key)
        with failing_fast():
            point = lakebase.restore_point_metadata(context.log) if restore_point else {}
            report = lakebase.client.migrations.run(
                folder, baseline=config.baseline, out_of_order=config.out_of_order, **options
            )
        context.log.info("Migrations\n%s", report.to_text())
        rows = [
            dg.TableRecord(
                {
                    "file": file.name,
                    "state": file.state,
                    "seconds": file.seconds or 0.0,
                    "outside_transaction": "; ".join(file.outside),
                }
            )
            for file in report.files
        ]
        metadata: dict[str, Any] = {
            "lakebase/migrations_applied": len(report.applied),
            "lakebase/ledger": report.ledger,
            **point,
            **({"lakebase/migrations": dg.MetadataValue.table(rows)} if rows else {}),
        }
        return dg.MaterializeResult(asset_key=spec.key, metadata=metadata)

    return lakebase_migrations


def _code_version(folder: str | os.PathLike[str]) -> str:
    # Not needed by who has no migrations.
    from lakebase_provider.core.upkeep.migrations.sql_folder import read_folder

    try:
        files = read_folder(folder)
    except LakebaseError as error:
        raise dg.DagsterInvalidDefinitionError(str(error)) from error
    return hashlib.sha256("\n".join(file.checksum for file in files).encode()).hexdigest()[:12]
