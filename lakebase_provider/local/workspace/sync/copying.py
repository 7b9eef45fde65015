"""What a pipeline does in Postgres: the table of a synced table, its rows replaced, its changes applied."""

# ruff: noqa: S608 # all names in statements are quoted

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg

from lakebase_provider.local.postgres.databricks_auth import create_database, list_databases, quote
from lakebase_provider.local.postgres.postgres import SUPERUSER, Postgres
from lakebase_provider.local.workspace.sync.delta import Column, SyncError

_TABLE = """
SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""


@dataclass(frozen=True)
class Target:
    """Where the rows of a synced table go.

    Attributes:
        database: Name of the database.
        schema: Name of its schema.
        table: Name of the table.
        key: Columns of its primary key.
        timeseries_key: Column whose greatest value wins among rows of one key; None: there may be one only.
        extra: What the spec has as `extra_columns`.
    """

    database: str
    schema: str
    table: str
    key: tuple[str, ...]
    timeseries_key: str | None = None
    extra: tuple[dict[str, Any], ...] = field(default=())

    @property
    def name(self) -> str:
        """Schema and table, as a statement has them."""
        return f"{quote(self.schema)}.{quote(self.table)}"


def prepare(postgres: Postgres, target: Target, *, create: bool) -> str | None:
    """Make the database and the schema; what stands in the way of the table, or None.

    Args:
        postgres: Where.
        target: Of the synced table.
        create: Whether to make what is missing.
    """
    if target.database not in [name for name, _ in list_databases(postgres)]:
        if not create:
            return f"Database '{target.database}' does not exist."
        create_database(postgres, target.database, None)
    with postgres.session(target.database) as session:
        writer = _writer(session)
        schemas = session.execute(
            "SELECT 1 FROM pg_namespace WHERE nspname = %s", (target.schema,)
        ).fetchall()
        if not schemas and not create:
            return f"Schema '{target.schema}' does not exist."
        if not schemas:
            session.execute(f"CREATE SCHEMA {quote(target.schema)} AUTHORIZATION {quote(writer)}".encode())
        if session.execute(_TABLE, (target.schema, target.table)).fetchall():
            return "orphan"
    return None


def replace(
    postgres: Postgres, target: Target, columns: list[Column], rows: Iterable[tuple[Any, ...]]
) -> int:
    """Put rows in place of those that are there, in one transaction; their number. Grants stay."""
    with _session(postgres, target) as session:
        if not session.execute(_TABLE, (target.schema, target.table)).fetchall():
            _create(session, target, columns)
        staged = _stage(session, columns, rows)
        session.execute(f"TRUNCATE {target.name}".encode())
        return _insert(session, target, columns, _latest(target, staged, columns))


def apply(postgres: Postgres, target: Target, columns: list[Column], rows: Iterable[tuple[Any, ...]]) -> int:
    """Apply changes as :meth:`.Source.changes` gives them, in one transaction; their number."""
    meta = [Column("_change_type", "text", "string"), Column("_commit_version", "bigint", "long")]
    with _session(postgres, target) as session:
        if not session.execute(_TABLE, (target.schema, target.table)).fetchall():
            raise SyncError(f"TABLE_OR_VIEW_NOT_FOUND: {target.name} is not there.")
        staged = _stage(session, [*meta, *columns], rows)
        key = ", ".join(map(quote, target.key))
        # In one commit a key may be deleted and inserted again.
        last = (
            f"SELECT DISTINCT ON ({key}) * FROM {staged} WHERE _change_type <> 'update_preimage' "
            f"AND ({key}) IS NOT NULL ORDER BY {key}, _commit_version DESC, (_change_type = 'delete')"
        )
        same = " AND ".join(f"t.{quote(one)} = s.{quote(one)}" for one in target.key)
        session.execute(f"DELETE FROM {target.name} t USING ({last}) s WHERE {same}".encode())
        names = ", ".join(quote(column.name) for column in columns)
        kept = f"SELECT {names} FROM ({last}) s WHERE _change_type <> 'delete'"
        _insert(session, target, columns, kept)
        ((count,),) = session.execute(f"SELECT count(*) FROM {staged}".encode()).fetchall()
        return int(count)


def drop(postgres: Postgres, target: Target) -> None:
    """Drop the table."""
    postgres.execute(f"DROP TABLE IF EXISTS {target.name}", database=target.database)


@contextlib.contextmanager
def _session(postgres: Postgres, target: Target) -> Iterator[psycopg.Connection[Any]]:
    try:
        with postgres.session(target.database) as session, session.transaction():
            yield session
    except psycopg.errors.UniqueViolation as error:
        detail = error.diag.message_detail or str(error)
        raise SyncError(f"PRIMARY_KEY_CONSTRAINT_VIOLATION: {detail}") from None
    except psycopg.Error as error:
        raise SyncError(" ".join(str(error).split())) from None


def _writer(session: psycopg.Connection[Any]) -> str:
    """The role that owns synced tables; the owner of the database may do what it may."""
    ((oid, owner),) = session.execute(
        "SELECT oid, pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
    ).fetchall()
    writer = f"databricks_writer_{oid}"
    if not session.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (writer,)).fetchall():
        session.execute(f"CREATE ROLE {quote(writer)} NOLOGIN".encode())
        if owner != SUPERUSER:
            session.execute(f"GRANT {quote(writer)} TO {quote(owner)}".encode())
    return writer


def _create(session: psycopg.Connection[Any], target: Target, columns: list[Column]) -> None:
    missing = [one for one in target.key if one not in [column.name for column in columns]]
    if missing:
        raise SyncError(f"Primary key columns {', '.join(missing)} are not in the source table.")
    parts = [f"{quote(column.name)} {column.type}" for column in columns]
    for one in target.extra:
        parts.append(
            f"{quote(str(one['column_name']))} {one['column_type']} "
            f"GENERATED ALWAYS AS ({one['compute']}) STORED"
        )
    parts.append(f"PRIMARY KEY ({', '.join(map(quote, target.key))})")
    session.execute(f"CREATE TABLE {target.name} ({', '.join(parts)})".encode())
    session.execute(f"ALTER TABLE {target.name} OWNER TO {quote(_writer(session))}".encode())


def _stage(session: psycopg.Connection[Any], columns: list[Column], rows: Iterable[tuple[Any, ...]]) -> str:
    staged = quote(f"staged_{uuid.uuid4().hex}")
    made = ", ".join(f"{quote(column.name)} {column.type}" for column in columns)
    session.execute(f"CREATE TEMP TABLE {staged} ({made}) ON COMMIT DROP".encode())
    with session.cursor().copy(f"COPY {staged} FROM STDIN".encode()) as copy:
        for row in rows:
            copy.write_row(row)
    return staged


def _latest(target: Target, staged: str, columns: list[Column]) -> str:
    """A query of staged rows, less those without a key, which are skipped."""
    names = ", ".join(quote(column.name) for column in columns)
    key = ", ".join(map(quote, target.key))
    found = f"SELECT {names} FROM {staged} WHERE ({key}) IS NOT NULL"
    if target.timeseries_key is None:
        return found
    return found.replace("SELECT", f"SELECT DISTINCT ON ({key})", 1) + (
        f" ORDER BY {key}, {quote(target.timeseries_key)} DESC"
    )


def _insert(session: psycopg.Connection[Any], target: Target, columns: list[Column], query: str) -> int:
    names = ", ".join(quote(column.name) for column in columns)
    return session.execute(f"INSERT INTO {target.name} ({names}) {query}".encode()).rowcount
