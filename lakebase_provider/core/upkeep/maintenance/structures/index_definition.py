"""An index as it is declared, and how the server writes that."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from lakebase_provider.core.base.sql.names import MAX_NAME_BYTES, identifier
from lakebase_provider.core.base.sql.sql_text import tokens
from lakebase_provider.core.config import arguments
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.catalog import TableName
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.upkeep.maintenance.own_session import OwnSession

#: A copy of the table without rows, on which the server itself says how it writes the declaration.
_COPY = "lakebase_declared"
_WRITTEN = """
SELECT i.indisunique, pg_catalog.pg_get_indexdef(i.indexrelid)
FROM pg_catalog.pg_index i WHERE i.indrelid = pg_catalog.to_regclass(%s)
"""


@dataclass(frozen=True)
class IndexDefinition:
    """What an index is to be.

    Attributes:
        name: Its name, without a schema: it is where its table is.
        on: What stands in its parentheses, as SQL.
        unique: Whether it refuses a second row of the same.
        method: Its access method.
        include: Columns that it holds besides.
        where: Condition of the rows that it holds, in SQL; None for all.
    """

    name: str
    on: sql.Composable
    unique: bool = False
    method: str = "btree"
    include: tuple[str, ...] = ()
    where: str | None = None

    @classmethod
    def of(
        cls,
        table: TableName,
        on: str | Sequence[str],
        *,
        name: str | None,
        unique: bool,
        method: str,
        include: Sequence[str],
        where: str | None,
    ) -> IndexDefinition:
        """The arguments, checked.

        Raises:
            ConfigError: One is malformed, or a name is missing.
        """
        if where is not None:
            _require_sql("'where'", where)
        if isinstance(include, str):
            raise arguments.wrong(
                "'include'", include, "be a list", 'Give a list of columns, such as ["total"].'
            )
        if isinstance(on, str):
            _require_sql("'on'", on)
            if name is None:
                raise ConfigError(
                    "The index has no name.", remedy="Give a name: one follows from columns alone."
                )
            parts: sql.Composable = sql.SQL(on)
        else:
            columns = [identifier(column) for column in on]
            if not columns:
                raise ConfigError("'on' names no column.", remedy='Give a list of columns, such as ["day"].')
            name = name or "_".join([table.table, *columns, "idx"])
            parts = sql.SQL(", ").join(map(sql.Identifier, columns))
        included = tuple(identifier(column) for column in include)
        return cls(identifier(name, what="index"), parts, unique, identifier(method), included, where)

    def create(self, name: str, table: sql.Composable, how: str = "") -> sql.Composed:
        """The statement that makes it.

        Args:
            name: The index's name.
            table: Its table, with ``ONLY`` where that is meant.
            how: ``"CONCURRENTLY "``, or nothing.
        """
        return sql.SQL("CREATE {}INDEX {}{} ON {} USING {} ({}){}{}").format(
            sql.SQL("UNIQUE " if self.unique else ""),
            sql.SQL(how),
            sql.Identifier(name),
            table,
            sql.Identifier(self.method),
            self.on,
            self._included(),
            sql.SQL("" if self.where is None else f" WHERE {self.where}"),
        )

    def _included(self) -> sql.Composable:
        if not self.include:
            return sql.SQL("")
        return sql.SQL(" INCLUDE ({})").format(sql.SQL(", ").join(map(sql.Identifier, self.include)))

    def as_written(self, session: OwnSession, table: TableName) -> tuple[bool, str]:
        """How the server writes it: whether it is unique, and all that follows the table's name.

        Raises:
            LockTimeoutError: The table was locked by others in each of the attempts.
            StatementError: The server refuses the declaration.
        """
        what = f"Declaring the index {self.name} on {table}"
        return session.attempt(what, lambda: self._written(session.connection, table))[0]

    def _written(self, connection: LakebaseConnection, table: TableName) -> tuple[bool, str]:
        copy = sql.Identifier("pg_temp", _COPY)
        with connection.transaction(force_rollback=True):
            cursor = plain_cursor(connection)
            cursor.execute(sql.SQL("CREATE TABLE {} (LIKE {})").format(copy, table.sql()))
            cursor.execute(self.create(f"{_COPY}_index", copy))
            found = cursor.execute(_WRITTEN, (f"pg_temp.{_COPY}",)).fetchall()
        ((unique, text),) = found
        return unique, tail(text)


def tail(definition: str) -> str:
    """Of what the server writes of an index, all that does not name it or its table."""
    return definition.partition(" USING ")[2]


def index_of_partition(name: str, table: str) -> str:
    """The name of a partition's own index of a partitioned table's index, always the same."""
    full = f"{table}_{name}"
    if len(full.encode()) <= MAX_NAME_BYTES:
        return full
    digest = hashlib.sha256(full.encode()).hexdigest()[:10]
    cut = full.encode()[: MAX_NAME_BYTES - 11].decode(errors="ignore")
    return f"{cut}_{digest}"


def _require_sql(argument: str, text: str) -> None:
    """Refuse what would end the statement, or what stands around it."""
    arguments.text(argument, text, 'Give SQL, such as "lower(email)".')
    depth = 0
    for kind, at, end in tokens(text):
        piece = text[at:end]
        depth += {"(": 1, ")": -1}.get(piece, 0) if kind == "symbol" else 0
        if depth < 0 or kind in ("open", "comment") or (kind == "symbol" and piece == ";"):
            depth = -1
            break
    if depth:
        raise ConfigError(
            f"{argument} is no expression of SQL.", remedy="Check its parentheses, quotes and semicolons."
        )
