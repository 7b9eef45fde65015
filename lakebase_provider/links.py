"""From a task in Airflow's interface to the database in Databricks'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from lakebase_provider.core.config import LakebaseConfig


class LakebaseEndpointLink(BaseOperatorLink):
    """The Databricks console's page of the database that a task used.

    Airflow asks for it when the task ends, in the task's process, and keeps it in XCom.
    """

    name = "Lakebase endpoint"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The page's URL; empty where the connection names no workspace or no endpoint."""
        # The hook brings the driver, which the task has by now and a DAG file does not need.
        from lakebase_provider.hooks.lakebase import LakebaseHook

        get_db_hook = getattr(operator, "get_db_hook", None)
        hook = get_db_hook() if get_db_hook else LakebaseHook(operator.lakebase_conn_id)
        return console_url(hook.config)


def console_url(config: LakebaseConfig) -> str:
    """Where the Databricks console shows the endpoint or the instance; empty where it cannot be told.

    Args:
        config: Its `workspace_host` is the console's.
    """
    if config.workspace_host is None:
        return ""
    if config.instance is not None:
        return f"{config.workspace_host}/compute/database-instances/{quote(config.instance)}"
    if config.endpoint is None:
        return ""
    _, project, _, branch, *_ = config.endpoint.split("/")
    return f"{config.workspace_host}/lakebase/projects/{quote(project)}/branches/{quote(branch)}"
