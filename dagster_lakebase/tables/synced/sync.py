"""Synced tables that are synced by runs: as an asset, and by an op."""

# No "from __future__ import annotations": Dagster reads an op's annotations as objects, not as text.

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from dagster_lakebase.resource.branch_deployment import LakebaseBranchDeployment
from dagster_lakebase.resource.failures import failing_fast
from dagster_lakebase.tables.op_names import op_name
from dagster_lakebase.tables.synced.state import SyncState, synced_specs
from dagster_lakebase.tables.synced.state import synced_name as name_of
from lakebase_provider.core.base.clock import Deadline
from lakebase_provider.core.config import arguments
from lakebase_provider.core.config.addresses import require_own_project
from lakebase_provider.core.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    from dagster_lakebase.resource.resource import LakebaseResource
    from lakebase_provider.core.workspace.objects.sync.pipelines import StartedUpdate
    from lakebase_provider.core.workspace.objects.sync.synced_tables import SyncedTableOptions
    from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects

#: Where the version comes from that is to be reached: a Delta table's path, or a function.
Source = str | os.PathLike[str] | Callable[[], int]

#: Seconds that a sync may take unless the caller says otherwise, as in the core.
SYNC_TIMEOUT = 1800.0
#: What the run's tag begins with that says which update a step has begun.
_BEGUN = "lakebase/update/"


class LakebaseSyncConfig(dg.Config):
    """What :data:`lakebase_sync_op` syncs."""

    synced_table: str = Field(description="Name of the synced table, <catalog>.<schema>.<table>.")
    version: int | None = Field(
        default=None,
        description="Version of the source whose rows must be there. An update that runs already is enough "
        "if it brings them; without a version, another one follows it.",
    )
    full_refresh: bool = Field(default=False, description="Whether to copy all rows anew.")
    timeout: float = Field(default=SYNC_TIMEOUT, description="Seconds that it may take.")


def sync_op(name: str, resource_key: str) -> dg.OpDefinition:
    """:data:`lakebase_sync_op` under another name, with the resource of that key."""

    @dg.op(name=name, required_resource_keys={resource_key}, tags={"dagster/kind": "lakebase"})
    def sync(context: dg.OpExecutionContext, config: LakebaseSyncConfig) -> None:
        """Copy what has changed into a synced table, and wait until all is there that its source had.

        It fails with the text of the pipeline's event if the update fails. A retry of the step goes on with
        the update that the step has begun.
        """
        lakebase: LakebaseResource = getattr(context.resources, resource_key)
        with failing_fast():
            client = lakebase.client_for_branches
            # Who starts a run is trusted with the project that the definitions name.
            found = client.workspace.synced_tables.get(config.synced_table)
            require_own_project((found.project,), (client.config.project,))
            metadata, _ = _synced(
                context, lakebase, config.synced_table, config.version, config.full_refresh, config.timeout
            )
        context.add_output_metadata(metadata)

    return sync


lakebase_sync_op = sync_op("lakebase_sync_op", "lakebase")


def build_lakebase_sync_asset(
    asset: dg.AssetSpec | dg.AssetKey | str | Sequence[str],
    *,
    source: Source | None = None,
    full_refresh: bool = False,
    declared: "SyncedTableOptions | None" = None,
    view: str | None = None,
    drop_orphans: bool = False,
    timeout: float = SYNC_TIMEOUT,
    retry_policy: dg.RetryPolicy | None = None,
    pool: str | None = None,
    resource_key: str = "lakebase",
) -> dg.AssetsDefinition:
    """An asset that is a synced table: to materialize it is to sync it, and to wait until the rows are there.

    All is there then that the source had when the step began: neither a table that is online nor a pipeline
    that is idle counts as a sync. If the update fails, so does the step, with the text of the pipeline's
    event. A retry of the step, also after its process was killed, goes on with the update that the step has
    begun; so does a run that is retried from its failure. An update that somebody else has begun is awaited,
    and is followed by another one unless it has brought the version of `source`.

    The data version is the version of the Delta table whose rows are in Postgres. The metadata are those of
    :func:`build_lakebase_synced_table_observation`.

    Args:
        asset: The asset, or its key. The metadata ``lakebase/synced_table`` name the synced table; otherwise
            a key of three parts does.
        source: The Delta table, whose newest version must be reached: its path or URI, which the package
            deltalake reads, or a function that returns the version. A ``CONTINUOUS`` synced table needs it.
        full_refresh: Whether to copy all rows anew each time.
        declared: What the synced table is declared with, as for ``client.synced_tables.reconcile``: before
            it is synced, it is made so. This needs a session in its database.
        view: Name of a view, ``schema.view``, that shows the table in use; for `declared`.
        drop_orphans: Whether to drop what is no longer filled; for `declared`.
        timeout: Seconds that it may take.
        retry_policy: When Dagster tries the step again.
        pool: The concurrency pool that limits how many run at once.
        resource_key: Where the :class:`~dagster_lakebase.LakebaseResource` is bound. A
            :class:`~dagster_lakebase.LakebaseBranchDeployment` in a branch deployment syncs nothing: the
            synced table is that of its parent.

    Returns:
        A definition to pass on as ``Definitions(assets=[…])``.

    Raises:
        DagsterInvalidDefinitionError: The asset is no synced table, or options contradict each other.

    Example:
        .. code-block:: python

            trips = build_lakebase_sync_asset(
                dg.AssetSpec(["main", "pub", "trips"], deps=["raw_trips"]),
                source="s3://lake/raw_trips",
                retry_policy=dg.RetryPolicy(max_retries=2),
            )
    """
    [(key, spec)] = synced_specs([asset], "build_lakebase_sync_asset").items()
    name = name_of(key, spec.metadata)
    if declared is None and (view is not None or drop_orphans):
        raise dg.DagsterInvalidDefinitionError(
            "view and drop_orphans have no meaning without declared. Leave them out, or declare the table."
        )
    _check_declared(declared)

    @dg.multi_asset(
        name=op_name([key]),
        specs=[spec],
        required_resource_keys={resource_key},
        op_tags={"dagster/kind": "lakebase"},
        retry_policy=retry_policy,
        pool=pool,
    )
    def lakebase_sync(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        lakebase: LakebaseResource = getattr(context.resources, resource_key)
        deadline, table, is_made = Deadline(timeout), name, False
        with failing_fast():
            wanted = _version(source)
            if declared is not None:
                _require_production(lakebase)
                report = lakebase.client.synced_tables.reconcile(
                    name, view=view, drop_orphans=drop_orphans, timeout=timeout, **declared
                )
                context.log.info("%s is %s.", report.table.id, report.action)
                table, is_made = report.table.id, report.action in ("created", "replaced")
            if is_made:
                # With the rows that the source had, for which it has waited.
                found = SyncState.read(lakebase.client_for_branches.workspace, table)
                metadata, version = found.metadata(), found.data_version
            else:
                left = max(1.0, deadline.remaining())
                metadata, version = _synced(
                    context.op_execution_context, lakebase, table, wanted, full_refresh, left
                )
        known = None if version is None else dg.DataVersion(version)
        yield dg.MaterializeResult(asset_key=key, metadata=metadata, data_version=known)

    return lakebase_sync


def _check_declared(declared: Mapping[str, Any] | None) -> None:
    if declared is None:
        return
    # Not needed to load most code locations.
    from lakebase_provider.core.workspace.objects.sync.synced_tables import SyncedTableOptions

    if unknown := sorted(declared.keys() - SyncedTableOptions.__annotations__.keys()):
        raise dg.DagsterInvalidDefinitionError(
            f"declared has the unknown option {unknown[0]!r}. There are: "
            f"{', '.join(SyncedTableOptions.__annotations__)}."
        )
    for needed in ("source_table", "primary_key", "scheduling_policy"):
        if declared.get(needed) is None:
            raise dg.DagsterInvalidDefinitionError(
                f"declared lacks {needed}. Give source_table, primary_key and scheduling_policy."
            )


def _version(source: Source | None) -> int | None:
    if source is None or callable(source):
        return source if source is None else source()
    from lakebase_provider.core import delta_version

    return delta_version(source)


def _synced(
    context: dg.OpExecutionContext,
    lakebase: "LakebaseResource",
    name: str,
    version: int | None,
    full_refresh: bool,
    timeout: float,
) -> tuple[dict[str, Any], str | None]:
    """Sync; what metadata say of it, and the data version."""
    _require_production(lakebase)
    deadline = Deadline(arguments.timeout(timeout))
    workspace = lakebase.client_for_branches.workspace
    tables = workspace.synced_tables
    update = _begun_before(context, workspace)
    if update is None:
        if version is None and tables.get(name).is_continuous:
            raise ConfigError(
                f"The synced table {name} is CONTINUOUS: none of its updates ends, or says what it has "
                "brought.",
                remedy="Say which version of its source is to be there.",
            )
        # One that runs may have begun before the last commit. Without a version nobody would know.
        update = tables.trigger(name, full_refresh=full_refresh, adopt=version is not None, timeout=deadline)
        context.log.info("%s %s.", "Waiting for" if update.adopted else "Began", update.name)
    else:
        context.log.info("Waiting for %s, which an earlier try of this step has begun.", update.name)
    _note(context, update)
    tables.wait(name, version=version, update=update, timeout=max(1.0, deadline.remaining()))
    state = SyncState.read(workspace, tables.full_name(name))
    context.log.info("%s has the rows of version %s.", name, state.data_version)
    return state.metadata(), state.data_version


def _require_production(lakebase: "LakebaseResource") -> None:
    if isinstance(lakebase, LakebaseBranchDeployment) and lakebase.branch_id is not None:
        raise ConfigError(
            "This is a branch deployment, and synced tables are filled where they were made: in its parent.",
            remedy="Materialize it in production; on the branch the table has the rows of its parent.",
        )


def _note(context: dg.OpExecutionContext, update: "StartedUpdate") -> None:
    """Say in the run's tags which update the step waits for: they outlive its process."""
    began = {"run": context.run_id, **vars(update)}
    context.instance.add_run_tags(context.run_id, {_tag(context): json.dumps(began)})


def _begun_before(context: dg.OpExecutionContext, workspace: "WorkspaceObjects") -> "StartedUpdate | None":
    """The update that an earlier try of this step has begun, unless it has failed.

    Nothing upstream has run since: neither before a retry of the step, nor where a run is retried from its
    failure. Any other run's update may be older than what is to be synced.
    """
    from lakebase_provider.core.workspace.objects.sync.pipelines import StartedUpdate

    run = context.run
    tries = [run.run_id, *([run.parent_run_id] if run.is_resume_retry and run.parent_run_id else [])]
    for run_id in tries:
        found = context.instance.get_run_by_id(run_id)
        noted = json.loads(found.tags.get(_tag(context), "{}")) if found is not None else {}
        # A run may have its parent's tags.
        if noted.pop("run", None) not in tries:
            continue
        update = StartedUpdate(**noted)
        try:
            now = workspace.pipelines.update(update.pipeline_id, update.update_id)
        except NotFoundError:
            continue
        if now.is_active or now.state == "COMPLETED":
            return update
    return None


def _tag(context: dg.OpExecutionContext) -> str:
    return f"{_BEGUN}{context.get_step_execution_context().step.key}"
