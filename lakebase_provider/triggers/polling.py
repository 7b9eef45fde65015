"""Polling the database from the triggerer until a condition holds."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger

from lakebase_provider._airflow.task.arguments import conn_id_of
from lakebase_provider._airflow.task.events import failed, succeeded
from lakebase_provider._airflow.task.polls import keeps_session
from lakebase_provider.core.errors import LakebaseError
from lakebase_provider.core.upkeep.health.limits import FailOn, HealthLimits
from lakebase_provider.triggers._clients import client_of

if TYPE_CHECKING:
    from airflow.triggers.base import TriggerEvent

    from lakebase_provider.core.client import LakebaseClient


class PollingTrigger(BaseTrigger):
    """Polls until there is a result or an error; between two polls it holds no connection.

    No session stays on the server either, so that the compute can be suspended, unless polls follow each
    other within :data:`lakebase_provider._airflow.task.polls.SELDOM` seconds; then the last one ends it.

    Args:
        conn_id: Id of the Airflow connection; nothing else of the connection is sent.
        lakebase_conn_id: An alias of `conn_id`.
        settings: Settings of the connection that are replaced, without secrets.
        poke_interval: Seconds between the end of a poll and the next.
        silent_fail: Whether a failed poll is only logged.
    """

    def __init__(
        self,
        *,
        conn_id: str | None,
        lakebase_conn_id: str | None,
        settings: Mapping[str, Any] | None,
        poke_interval: float,
        silent_fail: bool,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow annotates it not
        self.conn_id: str = conn_id_of(conn_id, lakebase_conn_id)
        self.settings = dict(settings or {})
        self.poke_interval = poke_interval
        self.silent_fail = silent_fail

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """How Airflow recreates this trigger in the triggerer."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "conn_id": self.conn_id,
            "settings": self.settings,
            "poke_interval": self.poke_interval,
            "silent_fail": self.silent_fail,
            **self._arguments(),
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll; the only event says ``success``, with what was found, or ``error``."""
        yield await self._event()

    async def _event(self) -> TriggerEvent:
        import psycopg

        client: LakebaseClient | None = None
        try:
            while True:
                try:
                    client = await client_of(self.conn_id, self.settings)
                    found = await self._poll(client)
                except (LakebaseError, psycopg.Error) as error:
                    if not self.silent_fail:
                        return failed(error)
                    self.log.error("Sensor poke failed: %s", error)
                    found = None
                if found is not None:
                    return succeeded(**found)
                if client is not None and not keeps_session(self.poke_interval):
                    await client.aclose_idle()
                await asyncio.sleep(self.poke_interval)
        finally:
            # However it ends: with a result, an error or a cancellation.
            if client is not None:
                await client.aclose_idle()

    @abstractmethod
    def _arguments(self) -> dict[str, Any]:
        """What the subclass serializes in addition."""

    @abstractmethod
    async def _poll(self, client: LakebaseClient) -> dict[str, Any] | None:
        """What was found, in JSON types; None to continue."""


class LakebaseSqlSensorTrigger(PollingTrigger):
    """Waits until a query's first cell is true: it exists and is not null, zero, empty or ``"0"``.

    Args:
        conn_id: As above.
        lakebase_conn_id: As above.
        sql: The query.
        parameters: Its parameters, of JSON types.
        session: Session settings, by their Postgres names.
        fail_on_empty: Whether a query without rows is an error.
        poke_interval: As above.
        settings: As above.
        silent_fail: As above.
    """

    def __init__(
        self,
        *,
        conn_id: str | None = None,
        lakebase_conn_id: str | None = None,
        sql: str,
        poke_interval: float,
        parameters: Any = None,
        session: Mapping[str, str] | None = None,
        fail_on_empty: bool = False,
        settings: Mapping[str, Any] | None = None,
        silent_fail: bool = False,
    ) -> None:
        super().__init__(
            conn_id=conn_id,
            lakebase_conn_id=lakebase_conn_id,
            settings=settings,
            poke_interval=poke_interval,
            silent_fail=silent_fail,
        )
        self.sql = sql
        self.parameters = parameters
        self.session = dict(session or {})
        self.fail_on_empty = fail_on_empty

    def _arguments(self) -> dict[str, Any]:
        return {
            "sql": self.sql,
            "parameters": self.parameters,
            "session": self.session,
            "fail_on_empty": self.fail_on_empty,
        }

    async def _poll(self, client: LakebaseClient) -> dict[str, Any] | None:
        # These bring the driver; making a trigger must not.
        from psycopg.rows import tuple_row

        from lakebase_provider._airflow.statements.cursors import AsyncHookCursor
        from lakebase_provider._airflow.task.polls import is_true

        self.log.info("Poking: %s", self.sql)
        async with client.aconnection() as connection:
            for name, value in self.session.items():
                await connection.execute("SELECT set_config(%s, %s, false)", (name, value))
            async with AsyncHookCursor(connection, row_factory=tuple_row) as cursor:
                await cursor.execute(self.sql, self.parameters)
                row = await cursor.fetchone() if cursor.description is not None else None
        if row is None:
            # The task judges it: it is not a database error.
            return {"empty": True} if self.fail_on_empty else None
        return {"empty": False} if is_true(row[0]) else None


class LakebaseHealthTrigger(PollingTrigger):
    """Waits until a connection is healthy.

    Args:
        conn_id: As above.
        lakebase_conn_id: As above.
        checks: Names of the stages; all by default.
        limits: Limits by name.
        fail_on: The least severity that makes the connection unhealthy.
        stage_timeout: Timeout of each stage in seconds.
        poke_interval: As above.
        settings: As above.
        silent_fail: As above.
    """

    def __init__(
        self,
        *,
        conn_id: str | None = None,
        lakebase_conn_id: str | None = None,
        poke_interval: float,
        checks: list[str] | None = None,
        limits: Mapping[str, float | None] | None = None,
        fail_on: FailOn = "warn",
        stage_timeout: float | None = None,
        settings: Mapping[str, Any] | None = None,
        silent_fail: bool = False,
    ) -> None:
        super().__init__(
            conn_id=conn_id,
            lakebase_conn_id=lakebase_conn_id,
            settings=settings,
            poke_interval=poke_interval,
            silent_fail=silent_fail,
        )
        self.checks = checks
        self.limits = dict(limits or {})
        self.fail_on = fail_on
        self.stage_timeout = stage_timeout

    def _arguments(self) -> dict[str, Any]:
        return {
            "checks": self.checks,
            "limits": self.limits,
            "fail_on": self.fail_on,
            "stage_timeout": self.stage_timeout,
        }

    async def _poll(self, client: LakebaseClient) -> dict[str, Any] | None:
        # The stages block, so they run off the loop.
        report = await asyncio.to_thread(client.health, self.checks, timeout=self.stage_timeout)
        limits = HealthLimits(**self.limits)
        self.log.info("Health of %s:\n%s", self.conn_id, report.to_text())
        healthy = limits.healthy(report, self.fail_on)
        return {"report": limits.to_dict(report)} if healthy else None
