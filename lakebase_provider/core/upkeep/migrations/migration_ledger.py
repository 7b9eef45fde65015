"""The ledger: which migrations have run, written by each in its own transaction where it has one.

A row of ``lakebase_migration`` commits together with what its file changed, or not at all. A file that cannot
run in one transaction has a row from its first statement on, which says how far it has come: a statement that
can run in a transaction commits together with that; of one that cannot, it is written that it begins, before
it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.catalog import TableName, ensure_schema
from lakebase_provider.core.upkeep.migrations.sql_folder import SqlFile

TABLE = "lakebase_migration"

_CREATE = """
CREATE TABLE IF NOT EXISTS {} (
    version bigint PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    state text NOT NULL CHECK (state IN ('done', 'part', 'baseline')),
    statement int NOT NULL,
    begun boolean NOT NULL DEFAULT false,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied_by text NOT NULL DEFAULT session_user,
    seconds double precision NOT NULL DEFAULT 0
)
"""
_READ = """
SELECT version, name, checksum, state, statement, begun, applied_at, applied_by, seconds
FROM {} ORDER BY version
"""


@dataclass(frozen=True)
class Entry:
    """What the ledger says about a file.

    Attributes:
        version: Its version.
        name: Its name when it ran.
        checksum: Of its text; of one that ran in part, of the statements that have run or begun.
        state: ``"done"``, ``"part"``, or ``"baseline"`` for one that was there before the ledger.
        statement: Number of the last statement that is done.
        begun: Whether the next one began and may have happened.
        applied_at: When it was done, or last came further.
        applied_by: By which role.
        seconds: How long it took.
    """

    version: int
    name: str
    checksum: str
    state: str
    statement: int
    begun: bool
    applied_at: datetime
    applied_by: str
    seconds: float

    def is_of(self, file: SqlFile) -> bool:
        """Whether the file is what ran, as far as it did."""
        if self.state == "part":
            return self.checksum == file.checksum_of_first(self.statement + self.begun)
        return self.checksum == file.checksum


class MigrationLedger:
    """The ledger of one database, on one connection.

    Args:
        connection: The connection that runs the migrations.
        name: Its name.
    """

    def __init__(self, connection: psycopg.Connection[Any], name: TableName) -> None:
        self._connection = connection
        self.name = name
        # For use in a query with parameters, where a percent sign begins one.
        self._quoted = sql.SQL(name.sql().as_string(connection).replace("%", "%%"))

    def exists(self) -> bool:
        """Whether there is one."""
        regclass = self.name.sql().as_string(self._connection)
        row = self._execute("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", (regclass,)).fetchone()
        return bool(row and row[0])

    def ensure(self) -> None:
        """Create it if it is missing; nobody else does so at the same time who has the lock of a run."""
        if not self.exists():
            ensure_schema(self._connection, self.name.schema or "public")
            self._execute(sql.SQL(_CREATE).format(self.name.sql()))

    def entries(self) -> Mapping[int, Entry]:
        """What it says, by version; nothing if there is none."""
        if not self.exists():
            return {}
        rows = self._execute(sql.SQL(_READ).format(self.name.sql()))
        return {row[0]: Entry(*row) for row in rows}

    def enter(self, file: SqlFile, state: str = "done") -> None:
        """Enter a file that is done with this transaction, or was there before the ledger."""
        query = sql.SQL(
            "INSERT INTO {} (version, name, checksum, state, statement) VALUES (%s, %s, %s, %s, %s)"
        ).format(self._quoted)
        self._execute(query, (file.version, file.name, file.checksum, state, len(file.statements)))

    def reached(self, file: SqlFile, statement: int, *, begun: bool, seconds: float) -> None:
        """Note how far a file has come that does not run in one transaction.

        Args:
            file: The file.
            statement: Number of the last statement that is done.
            begun: Whether the next one begins.
            seconds: How long this statement took, to be added.
        """
        done = statement == len(file.statements)
        query = sql.SQL(
            "INSERT INTO {0} AS l (version, name, checksum, state, statement, begun, seconds)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (version) DO UPDATE SET name = excluded.name,"
            " checksum = excluded.checksum, state = excluded.state, statement = excluded.statement,"
            " begun = excluded.begun, applied_at = clock_timestamp(), applied_by = session_user,"
            " seconds = l.seconds + excluded.seconds"
        ).format(self._quoted)
        checksum = file.checksum if done else file.checksum_of_first(statement + begun)
        state = "done" if done else "part"
        self._execute(query, (file.version, file.name, checksum, state, statement, begun, seconds))

    def took(self, file: SqlFile, seconds: float) -> None:
        """Note how long a file took that is about to be committed."""
        query = sql.SQL(
            "UPDATE {} SET seconds = %s, applied_at = clock_timestamp() WHERE version = %s"
        ).format(self._quoted)
        self._execute(query, (seconds, file.version))

    def _execute(self, query: Any, parameters: tuple[Any, ...] | None = None) -> psycopg.Cursor[Any]:
        return plain_cursor(self._connection).execute(query, parameters)
