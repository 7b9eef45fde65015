"""A hook of ops and jobs that says why a step failed, and how the database is now."""

# No "from __future__ import annotations": Dagster reads a hook's annotations as objects, not as text.

from collections.abc import Callable
from typing import TYPE_CHECKING

import dagster as dg

from lakebase_provider.core.upkeep.telling.diagnosis import Diagnosis, diagnose

if TYPE_CHECKING:
    from lakebase_provider.core.client import LakebaseClient

Tell = Callable[[dg.HookContext, Diagnosis], object]


def build_lakebase_failure_hook(
    tell: Tell | None = None,
    *,
    timeout: float = 10.0,
    resource_key: str = "lakebase",
    name: str = "lakebase_failure",
) -> dg.HookDefinition:
    """A hook that diagnoses a step that failed: in the run's log, and to whom you tell.

    The diagnosis has what the step failed with and what to do about it, who held the lock that it waited for,
    whether the database is reachable now and which stage fails if not, and what holds up others in it.

    Args:
        tell: Called with the hook's context and the diagnosis, whose ``to_markdown()`` is for people, such as
            to send it to Slack. Its error is logged, and does not change the run.
        timeout: Seconds that a stage of the health check may take.
        resource_key: Where the :class:`~dagster_lakebase.LakebaseResource` is bound.
        name: The hook's name.

    Returns:
        A definition to pass on as ``define_asset_job(hooks={…})``, ``@job(hooks={…})`` or
        ``op.with_hooks({…})``.

    Example:
        .. code-block:: python

            def to_slack(context, diagnosis):
                context.resources.slack.get_client().chat_postMessage(
                    channel="#data", text=diagnosis.to_markdown()
                )

            job = dg.define_asset_job("nightly", hooks={build_lakebase_failure_hook(to_slack)})
    """

    @dg.failure_hook(name=name, required_resource_keys={resource_key})
    def lakebase_failure(context: dg.HookContext) -> None:
        def client() -> "LakebaseClient":
            found: LakebaseClient = getattr(context.resources, resource_key).client
            return found

        step = context.step_key
        found = diagnose(client, f"Step {step} of {context.job_name}", context.op_exception, timeout=timeout)
        context.log.error(found.to_markdown())
        if tell is not None:
            try:
                tell(context, found)
            except Exception as error:
                context.log.error("The diagnosis of %s was not told: %s", step, error, exc_info=error)

    return lakebase_failure
