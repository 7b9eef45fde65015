"""Rows of a table put back from an earlier moment, by an op that a person launches."""

# No "from __future__ import annotations": Dagster reads an op's annotations as objects, not as text.

from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from dagster_lakebase.resource.failures import failing_fast
from dagster_lakebase.upkeep.rehearsal import run_id_of

if TYPE_CHECKING:
    from lakebase_provider.core.upkeep.restoring.restore_report import RestoreReport

_TAGS = {"dagster/kind": "lakebase"}


class LakebaseRestoreRowsConfig(dg.Config):
    """What :data:`lakebase_restore_rows_op` puts back."""

    table: str = Field(description="The table, as table or schema.table, case-sensitive.")
    at: str = Field(
        description="The moment: a time in ISO 8601 with its zone, or a position in the log, as a restore "
        "point's metadata have them."
    )
    keys: list[str] = Field(
        default=[], description="Columns by which a row is the same one; the primary key by default."
    )
    where: str | None = Field(
        default=None, description="Condition of the rows that are looked at, in SQL; all by default."
    )
    dry_run: bool = Field(default=True, description="Change nothing, and say what would be.")
    overwrite: bool = Field(
        default=False, description="Give rows that have changed since their former values, too."
    )
    examples: int = Field(
        default=5, description="How many rows of each kind the metadata show, 100 at most; 0 shows no values."
    )
    lock_timeout: float = Field(default=5.0, description="Seconds that a statement waits for a lock.")
    timeout: float = Field(default=3600.0, description="Seconds that no attempt begins after.")


def restore_point_op(name: str, resource_key: str) -> dg.OpDefinition:
    """:data:`lakebase_restore_point_op` under another name, with the resource of that key."""

    @dg.op(name=name, required_resource_keys={resource_key}, tags=_TAGS)
    def restore_point(context: dg.OpExecutionContext) -> None:
        """Note the moment that the branch has reached, to come back to; it costs nothing.

        The metadata have its position in the log and its time, each of which is an ``at`` of
        ``lakebase_restore_rows_op``.
        """
        with failing_fast():
            context.add_output_metadata(getattr(context.resources, resource_key).restore_point_metadata())

    return restore_point


def restore_rows_op(name: str, resource_key: str) -> dg.OpDefinition:
    """:data:`lakebase_restore_rows_op` under another name, with the resource of that key."""

    @dg.op(name=name, required_resource_keys={resource_key}, tags=_TAGS)
    def restore_rows(context: dg.OpExecutionContext, config: LakebaseRestoreRowsConfig) -> None:
        """Put rows of a table back from an earlier moment, in one transaction; by default say what would be.

        Rows that were deleted since are inserted as they were; those that have changed since are listed, and
        kept unless the configuration says ``overwrite``; new ones are left alone.
        """
        options = config.model_dump(exclude={"table", "at"})
        with failing_fast():
            report = getattr(context.resources, resource_key).client.restore_rows(
                config.table, at=config.at, run_id=run_id_of(context), **options
            )
        context.log.info("%s", report.to_markdown())
        context.add_output_metadata(_metadata(report))

    return restore_rows


lakebase_restore_point_op = restore_point_op("lakebase_restore_point_op", "lakebase")
lakebase_restore_rows_op = restore_rows_op("lakebase_restore_rows_op", "lakebase")


def _metadata(report: "RestoreReport") -> dict[str, Any]:
    moved = [
        dg.TableRecord({"sequence": one.name, "before": one.before, "after": one.after})
        for one in report.sequences
    ]
    return {
        "lakebase/restored": dg.MetadataValue.md(report.to_markdown()),
        "lakebase/table": report.table,
        "lakebase/dry_run": report.dry_run,
        "lakebase/put_back": report.put_back,
        "lakebase/overwritten": report.overwritten,
        "lakebase/changed_since": report.rows.changed,
        **({"lakebase/sequences": dg.MetadataValue.table(moved)} if moved else {}),
    }
