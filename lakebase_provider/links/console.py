"""From a task in Airflow's interface to the database, or the pipeline, in Databricks'."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from lakebase_provider.core.client import LakebaseClient
    from lakebase_provider.core.config import LakebaseConfig
    from lakebase_provider.hooks.lakebase import LakebaseHook

logger = logging.getLogger(__name__)


#: Seconds that asking for the console's ids of a branch may take.
_PATIENCE = 5.0


class LakebaseConsoleLink(BaseOperatorLink):
    """The Databricks console's page of the database that a task used; of its branch, if it names one.

    Airflow requests it when the task ends, in the task's process, and keeps it in XCom.
    """

    name = "Lakebase console"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The page's URL; empty if the connection names no workspace, is missing or is wrong."""
        url = ""
        try:
            hook = _hook(operator)
            url = console_url(hook.config)
            branch = getattr(operator, "branch", None)
            if url and branch:
                url = branch_url(hook.client, branch)
        except Exception as error:
            # The task has failed with the same error and said so: a link is not worth a second traceback. Or
            # the branch is gone.
            logger.debug("No link to the Lakebase console: %s", error)
        return url


class LakebasePipelineLink(BaseOperatorLink):
    """Databricks' page of the update that a task has triggered, or of the pipeline that fills its table.

    Airflow requests it when the task ends, in the task's process, and keeps it in XCom.
    """

    name = "Sync pipeline"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The page's URL; empty if the task got no update, or its connection is missing or wrong."""
        sync: dict[str, Any] = getattr(operator, "sync", None) or {}
        try:
            host = _hook(operator).config.workspace_host
        except Exception as error:
            logger.debug("No link to the pipeline: %s", error)
            return ""
        if host is None or not sync.get("pipeline_id"):
            return ""
        page = f"{host}/#joblist/pipelines/{quote(sync['pipeline_id'], safe='')}"
        update = sync.get("update_id")
        return f"{page}/updates/{quote(update, safe='')}" if update else page


def _hook(operator: Any) -> LakebaseHook:
    get_db_hook = getattr(operator, "get_db_hook", None)
    if get_db_hook is not None:
        hook: LakebaseHook = get_db_hook()
        return hook
    # The hook imports the driver, which the task has by now and a DAG file does not need.
    from lakebase_provider.hooks.lakebase import LakebaseHook

    return LakebaseHook(operator.conn_id)


def branch_url(client: LakebaseClient, branch: str) -> str:
    """Where the Databricks console shows a branch.

    Args:
        client: A client of the branch's project.
        branch: The branch's name or id.

    Raises:
        NotFoundError: There is none.
        LakebaseError: The workspace refused or could not be reached, or not within five seconds.
    """
    from lakebase_provider.core.config.resource_names import parent_of
    from lakebase_provider.core.workspace.http_limits import Limit, within

    with within(Limit(_PATIENCE)):
        found = client.workspace.branches.get(branch)
        project = client.workspace.projects.get(parent_of(found.name))
    return f"{client.config.workspace_host}/lakebase/projects/{project.uid}/branches/{found.uid}"


def console_url(config: LakebaseConfig) -> str:
    """Where the Databricks console shows the instance or the projects; empty if unknown.

    The console addresses a project and its branches by its own ids, which only the workspace knows. They are
    not worth two requests at the end of each task, which count against the rate limits; at the end of one
    that names a branch they are.

    Args:
        config: Its `workspace_host` is the console's.
    """
    if config.workspace_host is None:
        return ""
    if config.instance is not None:
        return f"{config.workspace_host}/compute/database-instances/{quote(config.instance, safe='')}"
    return f"{config.workspace_host}/lakebase/projects"
