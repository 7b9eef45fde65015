"""Keeps what pg_stat_statements knows in a table: a suspended compute forgets it."""

from __future__ import annotations

from psycopg import sql

from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.catalog import TableName, ensure_schema
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.upkeep.maintenance.own_session import OwnSession

_EXTENSION = "pg_stat_statements"
_WHERE = """
SELECT (SELECT n.nspname FROM pg_catalog.pg_extension e
        JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = %(name)s),
    EXISTS (SELECT FROM pg_catalog.pg_available_extensions WHERE name = %(name)s)
"""
_CREATE = """
CREATE TABLE IF NOT EXISTS {table} (
    taken_at timestamptz NOT NULL, counted_since timestamptz, role text, query_id bigint, query text,
    calls bigint NOT NULL, total_ms float8 NOT NULL, mean_ms float8 NOT NULL, rows bigint NOT NULL,
    blocks_hit bigint NOT NULL, blocks_read bigint NOT NULL
)
"""
# Constants of what reads and writes rows are not kept by the server; a CREATE ROLE may hold a password.
_TAKE = """
INSERT INTO {table} (taken_at, counted_since, role, query_id, query, calls, total_ms, mean_ms, rows,
    blocks_hit, blocks_read)
SELECT pg_catalog.now(), (SELECT stats_reset FROM {source_info}),
    pg_catalog.pg_get_userbyid(s.userid), s.queryid,
    CASE WHEN s.query ~* '^\\s*(select|insert|update|delete|merge|with)\\y' THEN s.query
        ELSE upper(substring(s.query FROM '^\\s*([A-Za-z]+)')) END,
    s.calls, s.total_exec_time, s.mean_exec_time, s.rows, s.shared_blks_hit, s.shared_blks_read
FROM {source} s
WHERE s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
ORDER BY s.total_exec_time DESC LIMIT {top}
"""
_FORGET = "DELETE FROM {table} WHERE taken_at < pg_catalog.now() - pg_catalog.make_interval(days => {days})"


def take(session: OwnSession, table: TableName, *, top: int, keep_days: int | None) -> None:
    """Add a digest to the table; see ``client.maintenance.digest_statements``."""
    ((schema, is_offered),) = session.ask(_WHERE, name=_EXTENSION)
    if schema is None:
        raise ConfigError(
            f"The database has no {_EXTENSION}.",
            remedy=f"Run CREATE EXTENSION {_EXTENSION} as the database's owner."
            if is_offered
            else f"The server does not offer {_EXTENSION}: leave this out.",
        )
    names = {
        "table": table.sql(),
        "source": sql.Identifier(schema, _EXTENSION),
        "source_info": sql.Identifier(schema, f"{_EXTENSION}_info"),
        "top": sql.Literal(top),
        "days": sql.Literal(keep_days),
    }

    def work() -> tuple[int, int]:
        cursor = plain_cursor(session.connection)
        if table.schema is not None:
            ensure_schema(session.connection, table.schema)
        cursor.execute(sql.SQL(_CREATE).format(**names))
        taken = cursor.execute(sql.SQL(_TAKE).format(**names)).rowcount
        if keep_days is None:
            return taken, 0
        return taken, cursor.execute(sql.SQL(_FORGET).format(**names)).rowcount

    (taken, forgotten), seconds = session.transaction(f"Taking a digest of {_EXTENSION}", work)
    session.did(str(table), f"{taken} statements added, {forgotten} rows removed that were too old", seconds)
