"""From a task in Airflow's interface to the database in Databricks'."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from lakebase_provider.core.config import LakebaseConfig

logger = logging.getLogger(__name__)


class LakebaseConsoleLink(BaseOperatorLink):
    """The Databricks console's page of the database that a task used.

    Airflow requests it when the task ends, in the task's process, and keeps it in XCom.
    """

    name = "Lakebase console"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The page's URL; empty if the connection names no workspace, is missing or is wrong."""
        try:
            return console_url(_config(operator))
        except Exception as error:
            # The task has failed with the same error and said so: a link is not worth a second traceback.
            logger.debug("No link to the Lakebase console: %s", error)
            return ""


def _config(operator: Any) -> LakebaseConfig:
    get_db_hook = getattr(operator, "get_db_hook", None)
    if get_db_hook is not None:
        config: LakebaseConfig = get_db_hook().config
        return config
    # The hook imports the driver, which the task has by now and a DAG file does not need.
    from lakebase_provider.hooks.lakebase import LakebaseHook

    return LakebaseHook(operator.conn_id).config


def console_url(config: LakebaseConfig) -> str:
    """Where the Databricks console shows the instance or the projects; empty if unknown.

    The console addresses a project and its branches by its own ids, which only the workspace knows. They are
    not worth two requests at the end of each task, which count against the rate limits.

    Args:
        config: Its `workspace_host` is the console's.
    """
    if config.workspace_host is None:
        return ""
    if config.instance is not None:
        return f"{config.workspace_host}/compute/database-instances/{quote(config.instance, safe='')}"
    return f"{config.workspace_host}/lakebase/projects"
