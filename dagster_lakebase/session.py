"""Whose a session is: what pg_stat_activity shows, run and step, and what errors say, the resource."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster import DagsterInvariantViolationError, InitResourceContext, OpExecutionContext

from lakebase_provider.core.config import LakebaseConfig, setting

if TYPE_CHECKING:
    from lakebase_provider.core.connection import AsyncLakebaseConnection, LakebaseConnection

#: What Postgres keeps of an application name.
MAX_BYTES = 63


def step_name(run_id: str, step_key: str | None) -> str:
    """The application name of a step's sessions, such as ``dagster:1f0c62d1:orders``.

    Args:
        run_id: The run's id, of which the first eight characters are shown, as in Dagster's web interface.
        step_key: The step's key, if it is known.

    Returns:
        At most 63 bytes.
    """
    name = ":".join(["dagster", run_id[:8], *([step_key] if step_key else [])])
    return name.encode()[:MAX_BYTES].decode(errors="ignore")


def current_step_name(run_id: str | None) -> str | None:
    """The application name for the step that this thread or task executes, or None outside of a run.

    Args:
        run_id: The run that the resource was set up for, for what Dagster runs without naming the step.
    """
    try:
        context = OpExecutionContext.get()
    except DagsterInvariantViolationError:
        return None if run_id is None else step_name(run_id, None)
    return step_name(context.run_id, context.get_step_execution_context().step.key)


def resource_name(context: InitResourceContext) -> str | None:
    """What errors call the resource that is being set up, by its key or that of the one it is nested in."""
    keys = context.all_resource_defs
    # Not `resource_def`, which raises where there is none, as in a test without a run.
    own = context._resource_def
    key = next((key for key, definition in keys.items() if definition is own), None)
    return None if key is None else f"Dagster resource '{key}'"


def name_session(connection: LakebaseConnection, config: LakebaseConfig, name: str | None) -> None:
    """Show the name, unless the user has chosen another one."""
    if name is not None and _is_default(config):
        connection.name_session(name)


async def aname_session(
    connection: AsyncLakebaseConnection, config: LakebaseConfig, name: str | None
) -> None:
    """Show the name, unless the user has chosen another one."""
    if name is not None and _is_default(config):
        await connection.name_session(name)


def _is_default(config: LakebaseConfig) -> bool:
    return bool(config.application_name == setting("application_name").default)
