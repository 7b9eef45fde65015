"""The ledger: which loads have taken place, written by each load in its own transaction.

A row of ``lakebase_load`` commits together with the rows that it describes, or not at all: that is the
guarantee. An advisory lock on the same id, held until the transaction ends, serializes concurrent loads, and
shows which one blocks: a backend that has waited for its client without progress belongs to a zombie, and is
ended by the load that waits for it.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from lakebase_provider.core.base.clock import SYSTEM_CLOCK, Clock
from lakebase_provider.core.bulk.load.result import LoadResult, Mode
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.catalog import TableName
from lakebase_provider.core.errors import LoadInterruptedError

logger = logging.getLogger(__name__)

TABLE = "lakebase_load"
#: Seconds that the backend of another load of the same id may wait for its client before it is ended.
STALLED_AFTER = 15.0
#: Seconds between two checks of a load that is waited for.
_POLL = 0.25

_CREATE = """
CREATE TABLE IF NOT EXISTS {} (
    table_name text NOT NULL,
    load_id text NOT NULL,
    mode text NOT NULL,
    loaded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    rows bigint NOT NULL DEFAULT 0,
    inserted bigint NOT NULL DEFAULT 0,
    updated bigint NOT NULL DEFAULT 0,
    deleted bigint NOT NULL DEFAULT 0,
    unchanged bigint NOT NULL DEFAULT 0,
    rejected bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (table_name, load_id)
)
"""

# Statistics are a snapshot within the transaction unless it is discarded.
_TRY_LOCK = """
SELECT pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended(%s, 0)),
    pg_catalog.pg_stat_clear_snapshot()
"""
_HOLDER = """
SELECT l.pid, a.wait_event_type = 'Client', a.state, a.state_change, p.bytes_processed
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_catalog.pg_stat_progress_copy p ON p.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    AND (l.classid::bigint << 32) | l.objid::bigint = pg_catalog.hashtextextended(%s, 0)
"""


class _Holder(NamedTuple):
    pid: int
    waits_for_client: bool | None
    state: str | None
    since: Any
    bytes: int | None


class Ledger:
    """The ledger of one schema, in the transaction of one connection.

    Args:
        connection: The connection in whose transaction the load runs.
        schema: The ledger's schema.
        clock: Where the time comes from.
    """

    def __init__(
        self, connection: psycopg.Connection[Any], schema: str, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._connection = connection
        self._clock = clock
        self.name = TableName(TABLE, schema)
        # For use in a query with parameters, where a percent sign begins one.
        self._quoted = sql.SQL(self.name.sql().as_string(connection).replace("%", "%%"))

    @classmethod
    def of(
        cls,
        connection: psycopg.Connection[Any],
        table: TableName,
        schema: str | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Ledger:
        """The ledger of a table: in the table's schema, unless another is given."""
        return cls(connection, schema or table.schema or "public", clock=clock)

    def ensure(self) -> bool:
        """Create the ledger if it is missing; others who do so at the same time wait for this transaction.

        Returns:
            Whether it was missing.
        """
        regclass = self.name.sql().as_string(self._connection)
        if self._one("SELECT pg_catalog.to_regclass(%s)", regclass)[0] is not None:
            return False
        self._one("SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(%s, 0))", regclass)
        self._execute(sql.SQL(_CREATE).format(self.name.sql()))
        return True

    def claim(self, table: TableName, load_id: str, mode: Mode) -> LoadResult | None:
        """Enter a load, or return the earlier one; waits for one that is under way.

        Returns:
            None if the load is entered and should run; otherwise what the earlier one did.
        """
        self.wait(table, load_id)
        query = sql.SQL(
            "INSERT INTO {} (table_name, load_id, mode) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
        ).format(self._quoted)
        if self._execute(query, (str(table), load_id, mode)).rowcount:
            return None
        return self.find(table, load_id)

    def claim_anew(
        self, table: TableName, load_id: str, mode: Mode, forced_id: str | None
    ) -> LoadResult | None:
        """Enter a load in place of an earlier one with its id, unless `forced_id` was loaded already.

        Returns:
            None if the load is entered and should run; otherwise what the earlier one did.
        """
        self.wait(table, load_id)
        earlier = None if forced_id is None else self.find(table, forced_id)
        if earlier is not None:
            return replace(earlier, load_id=load_id)
        # Not DELETE, for which a role that loads may have no privilege.
        query = sql.SQL(
            "INSERT INTO {} (table_name, load_id, mode) VALUES (%s, %s, %s)"
            " ON CONFLICT (table_name, load_id) DO UPDATE SET mode = excluded.mode"
        ).format(self._quoted)
        for entry in (load_id, *([forced_id] if forced_id else [])):
            self._execute(query, (str(table), entry, mode))
        return None

    def record(self, result: LoadResult, forced_id: str | None = None) -> None:
        """Enter what the load did, under its id and under the one that tells who forced it."""
        query = sql.SQL(
            "UPDATE {} SET loaded_at = clock_timestamp(), rows = %s, inserted = %s, updated = %s,"
            " deleted = %s, unchanged = %s, rejected = %s WHERE table_name = %s AND load_id = ANY(%s)"
        ).format(self._quoted)
        counts = (result.rows, result.inserted, result.updated, result.deleted, result.unchanged)
        self._execute(query, (*counts, result.rejected, result.table, [result.load_id, forced_id]))

    def find(self, table: TableName, load_id: str) -> LoadResult | None:
        """What the ledger says about a load, or None."""
        query = sql.SQL(
            "SELECT mode, loaded_at, rows, inserted, updated, deleted, unchanged, rejected FROM {}"
            " WHERE table_name = %s AND load_id = %s"
        ).format(self._quoted)
        row = self._execute(query, (str(table), load_id)).fetchone()
        if row is None:
            return None
        return LoadResult(
            table=str(table),
            mode=row[0],
            load_id=load_id,
            skipped=True,
            rows=row[2],
            inserted=row[3],
            updated=row[4],
            deleted=row[5],
            unchanged=row[6],
            rejected=row[7],
            reason=f"loaded at {row[1]:%Y-%m-%d %H:%M:%S %Z}",
        )

    def newest_id(self, table: TableName, beginning: str, part: str) -> str | None:
        """The id of the newest load among those whose ids begin so or have such a part, or None."""
        query = sql.SQL(
            "SELECT load_id FROM {} WHERE table_name = %s"
            " AND (pg_catalog.starts_with(load_id, %s) OR pg_catalog.strpos(load_id, %s) > 0)"
            " ORDER BY loaded_at DESC LIMIT 1"
        ).format(self._quoted)
        row = self._execute(query, (str(table), beginning, part)).fetchone()
        return None if row is None else str(row[0])

    def wait(self, table: TableName, load_id: str) -> None:
        """Wait until no other transaction runs this load, then keep others out until this one ends.

        Raises:
            LoadInterruptedError: It took longer than the session's lock_timeout.
        """
        key = f"{self.name} {table} {load_id}"
        setting = "SELECT setting::float / 1000 FROM pg_catalog.pg_settings WHERE name = 'lock_timeout'"
        began, seen, since, limit = self._clock.elapsed(), None, 0.0, math.inf
        while not self._one(_TRY_LOCK, key)[0]:
            holder = self._execute(_HOLDER, (key,)).fetchone()
            now = self._clock.elapsed()
            if seen is None and holder is not None:
                limit = self._one(setting)[0] or math.inf
                logger.info("Another load of %s with load_id %r is under way; waiting.", table, load_id)
            if holder is not None and holder != seen:
                seen, since = holder, now
            elif holder is not None and _stalled(_Holder(*holder)) and now - since >= STALLED_AFTER:
                self._end(_Holder(*holder), table, load_id)
                seen = None
            if now - began >= limit:
                raise LoadInterruptedError(
                    f"Another load of {table} with load_id {load_id!r} was still under way after"
                    f" {limit:g} s (lock_timeout).",
                    remedy="Load again later: it is skipped if the other one succeeds.",
                )
            self._clock.sleep(_POLL)

    def _end(self, holder: _Holder, table: TableName, load_id: str) -> None:
        logger.warning(
            "The load of %s with load_id %r in backend %d has heard nothing from its client for %.0f s: "
            "ending it; its rows are rolled back.",
            table,
            load_id,
            holder.pid,
            STALLED_AFTER,
        )
        self._one("SELECT pg_catalog.pg_terminate_backend(%s, 5000)", holder.pid)

    def _execute(self, query: Any, parameters: tuple[Any, ...] | None = None) -> psycopg.Cursor[Any]:
        return plain_cursor(self._connection).execute(query, parameters)

    def _one(self, query: Any, *parameters: Any) -> Any:
        return self._execute(query, parameters or None).fetchone()


def _stalled(holder: _Holder) -> bool:
    # Another role's session shows neither state nor wait, and cannot be ended either.
    return bool(holder.waits_for_client)
