"""Looks from the API server: few at once, none longer than a person waits, kept where the deployment says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from airflow.configuration import conf

from lakebase_provider._airflow.connection.stored_connection import StoredConnection
from lakebase_provider.core.client import LakebaseClient
from lakebase_provider.core.database.sessions.running_sessions import cancel_statement, running_sessions
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.upkeep.looking.kept_looks import KeptLooks
from lakebase_provider.core.upkeep.looking.look import Look, empty_look, failed_look, look, told
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.plugins._access import TYPE

logger = logging.getLogger(__name__)

#: Seconds that a person waits for the page.
PATIENCE = 30.0
#: Seconds for a login, to cancel a statement.
_LOGIN = 10.0
#: What the page is called in pg_stat_activity.
_NAME = "airflow-page"
T = TypeVar("T")


class Looking:
    """Looks at connections for the page.

    Args:
        patience: Seconds after which the page is shown without what is not done.
        threads: How many connections are looked at at once.
    """

    def __init__(self, patience: float = PATIENCE, threads: int = 4) -> None:
        self._patience = patience
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="lakebase-page")
        self._busy: set[str] = set()

    @property
    def keeps(self) -> bool:
        """Whether looks are kept."""
        return _folder() is not None

    def last(self, conn_id: str) -> Look | None:
        """The latest look that was kept."""
        folder = _folder()
        return None if folder is None else KeptLooks(folder).last(conn_id)

    def latest(self, conn_id: str, most: int) -> list[Look]:
        """The latest looks that were kept, the newest first."""
        folder = _folder()
        return [] if folder is None else KeptLooks(folder).latest(conn_id, most)

    async def look(self, conn_id: str) -> tuple[Look | None, str]:
        """Look at a connection's database.

        Returns:
            What was seen, if it was in time; and what there is to say of it.
        """
        if conn_id in self._busy:
            return None, "It is being looked at just now. Load the page again in a moment."
        self._busy.add(conn_id)
        found = await self._within(lambda: self._look(conn_id))
        if found is not None:
            return found
        later = " The look goes on; load the page again in a moment." if self.keeps else ""
        return None, f"It was not done within {self._patience:g} s.{later}"

    def _look(self, conn_id: str) -> tuple[Look, str]:
        try:
            try:
                found = look(_client(conn_id))
            except Exception as error:  # a page shows it
                found = failed_look(error)
            return found, self._kept(conn_id, found)
        finally:
            self._busy.discard(conn_id)

    def _kept(self, conn_id: str, found: Look) -> str:
        folder = _folder()
        if folder is None:
            return "This is not kept: [lakebase] page_folder is not set."
        try:
            KeptLooks(folder).keep(conn_id, found)
        except OSError as error:
            logger.warning("A look cannot be kept in page_folder: %s", error)
            return f"This could not be kept in page_folder: {error.strerror}."
        return ""

    async def cancel(self, conn_id: str, pid: int, started: int, statement: int) -> tuple[Look | None, str]:
        """Cancel a statement.

        Returns:
            The latest look with the sessions as they are then, and what came of it.
        """
        found = await self._within(lambda: self._cancel(conn_id, pid, started, statement))
        return found or (self.last(conn_id), f"It was not done within {self._patience:g} s.")

    def _cancel(self, conn_id: str, pid: int, started: int, statement: int) -> tuple[Look | None, str]:
        try:
            with _client(conn_id).connect(_LOGIN, autocommit=True) as connection:
                done = cancel_statement(connection, pid, started, statement)
                sessions = running_sessions(connection)
        except Exception as error:  # a page shows it
            return self.last(conn_id), told(error)
        logger.info("Statement of pid %s of connection %s: cancelled: %s", pid, conn_id, done)
        said = f"The statement of pid {pid} was cancelled." if done else "That statement has ended already."
        return replace(self.last(conn_id) or empty_look(), sessions=sessions), said

    async def _within(self, work: Callable[[], T]) -> T | None:
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        # Not cancelled: a look that takes longer is kept when it is done.
        done, _ = await asyncio.wait({running}, timeout=self._patience)
        return running.result() if done else None


def _folder() -> Path | None:
    text = (conf.get("lakebase", "page_folder", fallback="") or "").strip()
    return Path(text).expanduser() if text else None


def _client(conn_id: str) -> LakebaseClient:
    """The client of a connection, if it is one of ours.

    Raises:
        LakebaseError: It is not, or one of its settings is wrong.
    """
    # Not as the connection calls itself, which may be what its tasks are known by.
    hook = LakebaseHook(conn_id, application_name=_NAME)
    kind = StoredConnection.read(hook.connection).conn_type
    if kind != TYPE:
        raise ConfigError(
            f"Connection '{conn_id}' is of type '{kind}'.", remedy=f"Name one of type '{TYPE}'."
        )
    return hook.client
