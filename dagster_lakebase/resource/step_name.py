"""Whose a session is: what pg_stat_activity shows, run and step or storage's process, and what errors say."""

from __future__ import annotations

import multiprocessing
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dagster import DagsterInvariantViolationError, InitResourceContext, OpExecutionContext

from lakebase_provider.core.config import LakebaseConfig, setting

if TYPE_CHECKING:
    from lakebase_provider.core.connect.connection import AsyncLakebaseConnection, LakebaseConnection

#: How much of an application name Postgres keeps.
MAX_BYTES = 63
#: Sessions of Dagster's own storage.
_STORAGE = "dagster:storage"
WEB_SERVER = "webserver"
#: Dagster's processes by program, or by program and first arguments; with ``python -m`` the program is the
#: module.
_PROCESSES = (
    (("dagster-webserver",), WEB_SERVER),
    (("dagster_webserver",), WEB_SERVER),
    (("dagster-daemon",), "daemon"),
    (("_daemon",), "daemon"),
    (("dagster", "api", "grpc"), "code-server"),
    (("dagster", "code-server"), "code-server"),
    (("dagster", "api", "execute_run"), "run"),
    (("dagster", "api", "resume_run"), "run"),
    (("dagster", "api", "execute_step"), "run"),
)
#: In what Dagster passes to the process of a run.
_RUN_ID = re.compile(r'"run_id": *"([0-9a-f]{8})')


def storage_name(process: str | None) -> str:
    """The application name of the sessions of Dagster's storage, such as ``dagster:storage:daemon``.

    Args:
        process: What the process is, if it is known; see :func:`current_process`.
    """
    return _STORAGE if process is None else f"{_STORAGE}:{process}"


def with_storage_name(config: LakebaseConfig, process: str | None) -> LakebaseConfig:
    """The configuration with that name, unless the user has chosen another one."""
    if _is_default(config) or config.application_name.startswith(_STORAGE):
        return config.replace(application_name=storage_name(process))
    return config


def current_process() -> str | None:
    """Which of Dagster's processes this is, if its command line shows it."""
    return process_of(sys.argv, is_child=multiprocessing.parent_process() is not None)


def process_of(argv: Sequence[str], *, is_child: bool) -> str | None:
    """Which of Dagster's processes has that command line.

    Args:
        argv: As ``sys.argv`` is.
        is_child: Whether :mod:`multiprocessing` started it, which gives it its parent's command line.

    Returns:
        ``webserver``, ``daemon``, ``code-server``, or ``run``, with the beginning of the run's id if the
        command line has it (``run:1f0c62d1``); None for anything else, such as a script.
    """
    if not argv:
        return None
    program = Path(argv[0])
    words = (program.parent.name if program.stem == "__main__" else program.stem, *argv[1:])
    process = next((name for beginning, name in _PROCESSES if _begins_with(words, beginning)), None)
    if process == "code-server" and is_child:
        # It starts runs in its own child processes.
        return "run"
    found = _RUN_ID.search(" ".join(argv)) if process == "run" else None
    return f"run:{found[1]}" if found else process


def _begins_with(words: Sequence[str], beginning: Sequence[str]) -> bool:
    # The last one by its prefix: execute_run also appears as execute_run_with_structured_logs.
    *first, last = beginning
    at = len(first)
    return list(words[:at]) == first and len(words) > at and words[at].startswith(last)


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
        run_id: The run that the resource was set up for, used if Dagster does not name the step.
    """
    try:
        context = OpExecutionContext.get()
    except DagsterInvariantViolationError:
        return None if run_id is None else step_name(run_id, None)
    return step_name(context.run_id, context.get_step_execution_context().step.key)


def resource_name(context: InitResourceContext) -> str | None:
    """What errors call the resource being set up: its key, or that of the resource it is nested in."""
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
