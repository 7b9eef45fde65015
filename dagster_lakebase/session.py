"""What pg_stat_activity shows of a session: which run and step it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster import DagsterInvariantViolationError, OpExecutionContext

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
