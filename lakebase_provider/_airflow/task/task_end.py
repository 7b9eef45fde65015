"""The end of a task: the connections that it used are closed, whatever the outcome.

A task usually has its own process, which ends with it. Under ``dag.test()`` all tasks share one, and the
task's callbacks and listeners still run before a process ends.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from airflow.listeners import hookimpl

from lakebase_provider.core.shared import close_shared_clients


class _TaskEnd:
    """An Airflow listener, called last and at every end: success, failure, retry, skip, deferral."""

    @hookimpl
    def before_stopping(self, component: object) -> None:
        """Close the pools; tokens stay for the next task of this process."""
        close_shared_clients()


_LISTENER = _TaskEnd()
_listens = False


def is_in_task() -> bool:
    """Whether this process runs a task."""
    return "AIRFLOW_CTX_TASK_ID" in os.environ


def close_pools_when_the_task_ends() -> None:
    """Close the shared pools when this process's task ends.

    Not a plugin: Airflow would load it in each of its processes, and by default ignores providers' plugins.
    """
    global _listens
    if _listens:
        return
    _listener_manager().add_listener(_LISTENER)
    _listens = True


def _listener_manager() -> Any:
    try:
        from airflow.sdk import listener
    except ImportError:
        # Before Airflow 3.2 there was one for all of Airflow.
        return import_module("airflow.listeners.listener").get_listener_manager()
    return listener.get_listener_manager()
