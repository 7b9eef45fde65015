"""Whether synced tables are synced: asset checks."""

# No "from __future__ import annotations": Dagster reads the annotation of `context` as an object.

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_lakebase.resource.failures import failing_fast
from dagster_lakebase.tables.asset_keys import Asset
from dagster_lakebase.tables.synced.state import SyncState, in_use, synced_name, synced_specs
from lakebase_provider.core.errors import NotFoundError

if TYPE_CHECKING:
    from dagster_lakebase.resource.resource import LakebaseResource
    from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects


def build_lakebase_sync_checks(
    assets: Iterable[Asset],
    *,
    max_age: float | None = None,
    blocking: bool = False,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    resource_key: str = "lakebase",
    name: str = "lakebase_sync",
) -> Sequence[dg.AssetChecksDefinition]:
    """Asset checks of synced tables: ``<name>_succeeded`` and, with `max_age`, ``<name>_fresh``.

    The first one fails if the last update of the table's pipeline has failed, with the text of its event,
    although the table is online and the pipeline idle then. The second one fails if the newest sync that
    ended well began longer ago than `max_age`; one that had nothing to do counts. They ask the workspace
    alone, and wake no compute.

    Args:
        assets: The assets, or their keys, as for :func:`build_lakebase_synced_table_observation`.
        max_age: Seconds. For a ``CONTINUOUS`` table, whose status tells of no sync while its source has
            nothing new, leave it out.
        blocking: Whether a failed check blocks downstream assets of the same run.
        severity: Of a failed check.
        resource_key: Where the :class:`~dagster_lakebase.LakebaseResource` is bound.
        name: What the checks' names begin with.

    Returns:
        Definitions to pass on as ``Definitions(asset_checks=…)``. Their results have the metadata of an
        observation and, as a number that Dagster plots, the seconds since that sync began
        (``lakebase/age_seconds``).

    Raises:
        DagsterInvalidDefinitionError: There are no assets, or one is no synced table.

    Example:
        .. code-block:: python

            checks = build_lakebase_sync_checks([trips], max_age=3600)
    """
    specs = synced_specs(assets, "build_lakebase_sync_checks")
    kinds = {f"{name}_succeeded": "Whether the last sync succeeded."}
    if max_age is not None:
        kinds[f"{name}_fresh"] = f"Whether a sync began within {max_age:g} seconds that ended well."

    @dg.multi_asset_check(
        name=check_op_name(name, specs),
        specs=[
            dg.AssetCheckSpec(kind, asset=key, blocking=blocking, description=description)
            for key in specs
            for kind, description in kinds.items()
        ],
        can_subset=True,
        required_resource_keys={resource_key},
        op_tags={"dagster/kind": "lakebase"},
    )
    def lakebase_sync_checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        lakebase: LakebaseResource = getattr(context.resources, resource_key)
        workspace = lakebase.client_for_branches.workspace
        for key, spec in specs.items():
            every = [dg.AssetCheckKey(key, kind) for kind in kinds]
            asked = [check for check in every if check in context.selected_asset_check_keys]
            if not asked:
                continue
            with failing_fast():
                found = in_use(context.instance, key, synced_name(key, spec.metadata))
                seen = _Seen.of(workspace, found)
            for check in asked:
                problem = seen.problem if check.name == f"{name}_succeeded" else seen.is_late(max_age)
                yield dg.AssetCheckResult(
                    passed=problem is None,
                    asset_key=key,
                    check_name=check.name,
                    severity=severity,
                    metadata=seen.metadata,
                    description=problem,
                )

    return [lakebase_sync_checks]


def check_op_name(name: str, keys: Iterable[dg.AssetKey]) -> str:
    """The name of an op of checks, which tells apart those of different assets, in any order.

    Args:
        name: The checks' name.
        keys: The assets.
    """
    text = "\n".join(sorted(key.to_string() for key in keys))
    return f"{name}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class _Seen:
    """What is told of a synced table, and what is wrong with it."""

    def __init__(self, metadata: dict[str, Any], age: float | None, problem: str | None) -> None:
        self.metadata, self._age, self.problem = metadata, age, problem

    @classmethod
    def of(cls, workspace: "WorkspaceObjects", name: str) -> "_Seen":
        try:
            state = SyncState.read(workspace, name)
        except NotFoundError as error:
            return cls({}, None, error.message)
        age = None if state.as_of is None else (datetime.now(timezone.utc) - state.as_of).total_seconds()
        metadata = state.metadata() | ({} if age is None else {"lakebase/age_seconds": round(age, 3)})
        return cls(metadata, age, _problem(workspace, state))

    def is_late(self, max_age: float | None) -> str | None:
        if self._age is None:
            return self.problem or "No sync has ended well."
        if max_age is None or self._age <= max_age:
            return None
        return f"The newest sync that ended well began {self._age:.0f} seconds ago."


def _problem(workspace: "WorkspaceObjects", state: SyncState) -> str | None:
    """Why the last sync counts as failed; None if it does not."""
    table, ended = state.table, state.last_ended
    if table.is_continuous and state.updates and state.updates[0].is_active:
        return None
    if ended is not None and ended.state != "COMPLETED" and table.pipeline_id is not None:
        return workspace.pipelines.failure(ended, table.pipeline_id).message
    if table.has_failed:
        return f"The synced table {table.id} is {table.state or table.uc_state}: {table.message}"
    return None if table.is_online else f"The synced table {table.id} has not been synced yet: {table.state}."
