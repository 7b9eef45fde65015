"""Changes that are rehearsed on a branch before they run, by an op and as an asset."""

# No "from __future__ import annotations": Dagster reads an op's annotations as objects, not as text.

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from pydantic import Field

from dagster_lakebase.resource.failures import failing_fast
from dagster_lakebase.resource.resource import point_metadata
from dagster_lakebase.tables.op_names import op_name
from lakebase_provider.core.errors import ConfigError, RehearsalError

if TYPE_CHECKING:
    from dagster_lakebase.resource.resource import LakebaseResource
    from lakebase_provider.core import RehearsalReport
    from lakebase_provider.core.connect.connection import LakebaseConnection
    from lakebase_provider.core.upkeep.rehearsal.recorder import StatementRun
    from lakebase_provider.core.upkeep.rehearsal.rehearsal_options import Tables


class LakebaseRehearseConfig(dg.Config):
    """What :data:`lakebase_rehearse_op` rehearses."""

    statements: list[str] = Field(
        default=[],
        description="SQL, a statement in each entry: one transaction, unless one of them cannot run in any.",
    )
    folder: str | None = Field(
        default=None, description="A folder of migrations instead, of which those run that have not run yet."
    )
    checks: list[str] = Field(
        default=[], description="Queries whose values must all be true after the change."
    )
    tables: list[str] = Field(
        default=[], description="Tables whose rows are compared before and after, by their primary key."
    )
    then: str = Field(
        default="stop",
        description="What follows if the change and all checks succeed: stop, or run the same on the "
        "resource's own branch.",
    )
    approved: str | None = Field(
        default=None,
        description="Checksum of an earlier run's report that somebody has approved (lakebase/checksum): "
        "nothing runs but the same statements.",
    )
    examples: int = Field(
        default=5, description="How many rows of each kind the metadata show, 100 at most; 0 shows no values."
    )
    lock_timeout: float = Field(default=5.0, description="Seconds that a statement waits for a lock.")
    statement_timeout: float | None = Field(
        default=None, description="Seconds that a statement may take; the resource's by default."
    )
    timeout: float = Field(
        default=3600.0, description="Seconds that the change may take on the branch, and again afterwards."
    )


def rehearse_op(name: str, resource_key: str) -> dg.OpDefinition:
    """:data:`lakebase_rehearse_op` under another name, with the resource of that key."""

    @dg.op(name=name, required_resource_keys={resource_key}, tags={"dagster/kind": "lakebase"})
    def rehearse(context: dg.OpExecutionContext, config: LakebaseRehearseConfig) -> None:
        """Try a change on a branch that is purged afterwards; run it where it belongs if it is asked for.

        The metadata have each statement's milliseconds, rows and strongest lock, the checks, and the report.
        It fails, without a retry, if the change or a check does, and nothing runs where it belongs then.
        """
        with failing_fast():
            if bool(config.statements) == (config.folder is not None):
                raise ConfigError(
                    "A rehearsal needs statements or a folder, and not both.",
                    remedy="Give one of 'statements' and 'folder' in the op's configuration.",
                )
        options = config.model_dump(exclude={"statements", "folder"})
        work = config.statements if config.folder is None else Path(config.folder)
        context.add_output_metadata(_rehearsed(context, resource_key, work, options))

    return rehearse


lakebase_rehearse_op = rehearse_op("lakebase_rehearse_op", "lakebase")


def build_lakebase_rehearsal_asset(
    work: "str | Sequence[str] | os.PathLike[str] | Callable[[LakebaseConnection], object]",
    *,
    asset: dg.AssetSpec | dg.AssetKey | str | Sequence[str],
    checks: Sequence[str | Mapping[str, Any]] = (),
    tables: "Tables" = (),
    then: Literal["run", "stop"] = "run",
    examples: int = 5,
    lock_timeout: float = 5.0,
    statement_timeout: float | None = None,
    timeout: float = 3600.0,
    resource_key: str = "lakebase",
) -> dg.AssetsDefinition:
    """An asset that a change makes, which is rehearsed on a branch each time before it runs.

    The step fails, without a retry, if the change or a check does there, and nothing has run where the asset
    is then. A :class:`~dagster_lakebase.LakebaseBranchDeployment` in a branch deployment cannot rehearse: its
    own branch expires, and no branch can be made from such a one.

    Args:
        work: SQL; a list of statements; a function that does everything on the connection that it is given,
            and may be run again; or the ``Path`` of a folder of migrations. As for ``client.rehearse``.
        asset: The asset, or its key.
        checks: What must be true afterwards: queries whose values must all be true; or dicts with ``sql`` or
            ``table``, ``min_rows``, ``max_rows`` and perhaps a ``name``.
        tables: Tables whose rows are compared before and after; a dict gives the columns that tell rows
            apart, where it is not the primary key (None).
        then: ``"run"`` to run the same afterwards; ``"stop"`` to report alone.
        examples: How many rows of each kind the metadata show, 100 at most; 0 shows no values.
        lock_timeout: Seconds that a statement waits for a lock before its transaction is undone and tried
            again.
        statement_timeout: Seconds that a statement may take; the resource's by default.
        timeout: Seconds that the change may take on the branch, and again afterwards.
        resource_key: Where the :class:`~dagster_lakebase.LakebaseResource` is bound. Making a branch needs
            CAN MANAGE on the project.

    Returns:
        A definition to pass on as ``Definitions(assets=[…])``. Its metadata have the report
        (``lakebase/rehearsal``), each statement's milliseconds, rows and strongest lock
        (``lakebase/statements``), and the checks.

    Example:
        .. code-block:: python

            priced = build_lakebase_rehearsal_asset(
                ["UPDATE orders SET price = price * 1.02"],
                asset="orders_priced",
                checks=["SELECT min(price) > 0 FROM orders"],
                tables=["orders"],
            )
    """
    spec = asset if isinstance(asset, dg.AssetSpec) else dg.AssetSpec(asset, kinds={"postgres"})
    options: dict[str, Any] = {
        "checks": checks,
        "tables": tables,
        "then": then,
        "examples": examples,
        "lock_timeout": lock_timeout,
        "statement_timeout": statement_timeout,
        "timeout": timeout,
    }

    @dg.multi_asset(
        name=op_name([spec.key]),
        specs=[spec],
        required_resource_keys={resource_key},
        op_tags={"dagster/kind": "lakebase"},
    )
    def lakebase_rehearsal(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        metadata = _rehearsed(context.op_execution_context, resource_key, work, options)
        return dg.MaterializeResult(asset_key=spec.key, metadata=metadata)

    return lakebase_rehearsal


def run_id_of(context: dg.OpExecutionContext) -> str:
    """The id of a step of a run, from which its branch's follows: a retry meets the one that a kill left.

    A retry of the run is another run, whose root is the first.
    """
    return f"{context.run.root_run_id or context.run_id}/{context.get_step_execution_context().step.key}"


def _rehearsed(
    context: dg.OpExecutionContext, resource_key: str, work: Any, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Rehearse; what metadata say of it."""
    lakebase: LakebaseResource = getattr(context.resources, resource_key)
    with failing_fast():
        try:
            report = lakebase.client.rehearse(work, run_id=run_id_of(context), **options)
        except RehearsalError as error:
            if error.report is None:
                raise
            report = error.report
    context.log.info("%s", report.to_markdown())
    metadata = _metadata(report)
    if not report.ok:
        told = f"The rehearsal failed, and nothing has run elsewhere: {'; '.join(report.failures)}"
        raise dg.Failure(told, metadata=metadata, allow_retries=False)
    return metadata


def _metadata(report: "RehearsalReport") -> dict[str, Any]:
    checks = [
        dg.TableRecord({"check": check.name, "passed": check.passed, "found": check.found})
        for check in report.checks
    ]
    tables = {
        "lakebase/statements": [_record(run) for run in report.statements],
        "lakebase/checks": checks,
        "lakebase/statements_run": [_record(run) for run in report.ran or ()],
    }
    return {
        "lakebase/rehearsal": dg.MetadataValue.md(report.to_markdown()),
        "lakebase/milliseconds": round(report.seconds * 1000, 3),
        "lakebase/ran": report.ran is not None,
        "lakebase/checksum": report.checksum,
        **({} if report.restore_point is None else point_metadata(report.restore_point)),
        **{name: dg.MetadataValue.table(rows) for name, rows in tables.items() if rows},
    }


def _record(run: "StatementRun") -> dg.TableRecord:
    lock = run.strongest
    return dg.TableRecord(
        {
            "statement": run.title,
            "milliseconds": round(run.seconds * 1000, 3),
            "rows": "" if run.rows is None else str(run.rows),
            "lock": "" if lock is None else lock.mode,
            "on": "" if lock is None else lock.relation,
            "held_milliseconds": 0.0 if lock is None else round(run.held * 1000, 3),
            "outcome": run.outcome,
            "in_transaction": not run.outside,
        }
    )
