"""Rows that cannot be loaded, set aside with the reason in a table or a file."""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg
from psycopg import sql

from lakebase_provider.core.base.files.plain_files import open_new, require_replaceable
from lakebase_provider.core.bulk.files.locations import locate
from lakebase_provider.core.bulk.load.copy_in import RejectedRow
from lakebase_provider.core.bulk.load.plan import RejectTo
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.catalog import TableName
from lakebase_provider.core.errors import CommitUnknownError, ConfigError

logger = logging.getLogger(__name__)

#: Bytes of rejected rows that are kept in memory; more go to a temporary file.
_IN_MEMORY = 1 << 20

# json, not jsonb: text with NUL is the most common fault, and json can hold it.
_CREATE = """
CREATE TABLE IF NOT EXISTS {} (
    rejected_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    table_name text NOT NULL,
    load_id text,
    row_number bigint NOT NULL,
    column_name text,
    reason text NOT NULL,
    row json NOT NULL
)
"""


class Rejects:
    """Collects the rejected rows of one load; called with each.

    Their file gets its name when the ``with`` block ends, in which the load is committed: it never describes
    a load that did not take place, and its previous content stays until then.

    Args:
        to: A table's name, or a file's path.

    Raises:
        ConfigError: The path is not a regular file's, or is in a folder that does not exist.
    """

    def __init__(self, to: RejectTo) -> None:
        self._path = _writable(to) if isinstance(to, os.PathLike) else None
        self._table = None if isinstance(to, os.PathLike) else TableName.parse(to)
        self._spool = tempfile.SpooledTemporaryFile(  # noqa: SIM115 # closed with this object
            _IN_MEMORY, mode="w+", encoding="utf-8"
        )
        #: The file that is yet to get its name.
        self._unnamed: Path | None = None

    def __enter__(self) -> Rejects:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._spool.close()
        if self._unnamed is None or self._path is None:
            return
        # If the load did take place, the next attempt is skipped and rejects nothing.
        if error is not None and not isinstance(error, CommitUnknownError):
            self._unnamed.unlink(missing_ok=True)
            return
        try:
            self._unnamed.replace(self._path)
        except OSError as failed:  # an error would say that the load failed
            logger.warning("The rejected rows remain in %s: %s.", self._unnamed, failed)

    def __call__(self, rejected: RejectedRow) -> None:
        """Set one row aside."""
        values = [_plain(value) for value in rejected.row]
        entry = [rejected.number, rejected.column, rejected.reason, values]
        self._spool.write(json.dumps(entry, default=str) + "\n")

    def write(
        self,
        connection: psycopg.Connection[Any],
        meant_for: TableName,
        columns: Sequence[str],
        load_id: str | None,
    ) -> None:
        """Write them to their destination, a table within the load's own transaction.

        Args:
            connection: The load's connection.
            meant_for: The table that they were meant for.
            columns: Names of the rows' columns.
            load_id: The load's id.
        """
        self._spool.seek(0)
        if self._path is not None:
            self._write_file(self._path, meant_for, columns, load_id)
        elif self._table is not None:
            self._write_table(connection, self._table, meant_for, columns, load_id)

    def _entries(self, columns: Sequence[str]) -> Any:
        for line in self._spool:
            number, column, reason, values = json.loads(line)
            named = len(values) == len(columns)
            yield number, column, reason, dict(zip(columns, values, strict=True)) if named else values

    def _write_file(
        self, path: Path, meant_for: TableName, columns: Sequence[str], load_id: str | None
    ) -> None:
        self._unnamed = path.with_name(f"{path.name}.{secrets.token_hex(6)}.tmp")
        with open_new(self._unnamed, require_replaceable(path, "reject_to")) as file:
            for number, column, reason, row in self._entries(columns):
                entry = {
                    "table_name": str(meant_for),
                    "load_id": load_id,
                    "row_number": number,
                    "column_name": column,
                    "reason": reason,
                    "row": row,
                }
                file.write(json.dumps(entry).encode() + b"\n")

    def _write_table(
        self,
        connection: psycopg.Connection[Any],
        table: TableName,
        meant_for: TableName,
        columns: Sequence[str],
        load_id: str | None,
    ) -> None:
        cursor = plain_cursor(connection)
        cursor.execute(sql.SQL(_CREATE).format(table.sql()))
        statement = sql.SQL(
            "COPY {} (table_name, load_id, row_number, column_name, reason, row) FROM STDIN"
        ).format(table.sql())
        with cursor.copy(statement) as copy:
            for number, column, reason, row in self._entries(columns):
                copy.write_row((str(meant_for), load_id, number, column, reason, json.dumps(row)))


def _writable(to: Any) -> Path:
    """The path, if a file may be written there: better checked before the rows are moved than after."""
    path = locate(to, "reject_to").local
    if path is None:
        raise ConfigError("reject_to is not a local file.", remedy="Give a local path, or a table's name.")
    require_replaceable(path, "reject_to")
    if not path.parent.is_dir():
        raise ConfigError(
            f"reject_to: {str(path)!r} lies in a folder that does not exist.",
            remedy="Give the path of a file.",
        )
    return path


def _plain(value: Any) -> Any:
    """A value that JSON can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
