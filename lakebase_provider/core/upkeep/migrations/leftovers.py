"""What a change that was made concurrently, and killed, left behind: found, and put right before it is made.

A build that fails leaves an invalid index, which every write goes on to maintain; a rebuild leaves one that
ends in ``_ccnew`` or ``_ccold``; a detachment stays pending.
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import Any

import psycopg
from psycopg import sql

from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.errors import MigrationError
from lakebase_provider.core.upkeep.migrations.statement_kinds import Concurrent

logger = logging.getLogger(__name__)


class Next(Enum):
    """What is to be done about a change."""

    MAKE = "it is to be made"
    FINALIZE = "it is to be finalized"
    NOTHING = "it is made"


_INDEX = """
SELECT n.nspname, c.relname, i.indisvalid,
    (SELECT p.pid FROM pg_catalog.pg_stat_progress_create_index p WHERE p.index_relid = c.oid LIMIT 1)
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'i' AND i.indrelid = pg_catalog.to_regclass(%s)
    AND c.relname = (pg_catalog.parse_ident(%s))[1]::name
"""
_OF_A_REBUILD = """
SELECT n.nspname, c.relname, i.indisvalid,
    (SELECT p.pid FROM pg_catalog.pg_stat_progress_create_index p
     WHERE p.index_relid = c.oid OR p.relid = i.indrelid LIMIT 1)
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'i' AND NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$'
    AND n.nspname <> 'pg_toast' AND CASE %s
        WHEN 'INDEX' THEN EXISTS (
            SELECT FROM pg_catalog.pg_index o JOIN pg_catalog.pg_class b ON b.oid = o.indexrelid
            WHERE o.indrelid = i.indrelid
                AND (b.oid = pg_catalog.to_regclass(%s)
                    OR b.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass(%s))))
                AND pg_catalog.regexp_replace(c.relname, '_cc(new|old)[0-9]*$', '') = pg_catalog.left(
                    b.relname,
                    pg_catalog.length(pg_catalog.regexp_replace(c.relname, '_cc(new|old)[0-9]*$', ''))))
        WHEN 'TABLE' THEN i.indrelid = pg_catalog.to_regclass(%s)
            OR i.indrelid IN (SELECT relid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass(%s)))
        WHEN 'SCHEMA' THEN n.nspname = (pg_catalog.parse_ident(%s))[1]::name
        ELSE true END
ORDER BY 1, 2
"""
_PARTITION = """
SELECT inhdetachpending FROM pg_catalog.pg_inherits
WHERE inhparent = pg_catalog.to_regclass(%s) AND inhrelid = pg_catalog.to_regclass(%s)
"""


def put_right(connection: psycopg.Connection[Any], change: Concurrent, *, begun: bool) -> Next:
    """Remove what an earlier attempt at a change left, and say what is to be done.

    Args:
        connection: An idle connection that commits by itself.
        change: The change.
        begun: Whether a run began it and was killed before it could note how it ended.

    Raises:
        MigrationError: Another session is building that index just now.
        psycopg.Error: The server refused to drop what was left.
    """
    if change.action == "build":
        return _before_build(connection, change, begun)
    if change.action == "rebuild":
        name = change.target or '""'
        _drop(connection, _rows(connection, _OF_A_REBUILD, change.part, *[name] * 5))
        return Next.MAKE
    if change.action == "drop":
        [[there]] = _rows(connection, "SELECT pg_catalog.to_regclass(%s) IS NOT NULL", change.target)
        return Next.NOTHING if begun and not there else Next.MAKE
    attached = _rows(connection, _PARTITION, change.target, change.part)
    if attached:
        return Next.FINALIZE if attached[0][0] else Next.MAKE
    return Next.NOTHING if begun else Next.MAKE


def _before_build(connection: psycopg.Connection[Any], change: Concurrent, begun: bool) -> Next:
    found = _rows(connection, _INDEX, change.target, change.part)
    if not found:
        return Next.MAKE
    if found[0][2]:
        # One that was there before this file is for the server to refuse, or to skip (IF NOT EXISTS).
        return Next.NOTHING if begun else Next.MAKE
    _drop(connection, found)
    return Next.MAKE


def _drop(connection: psycopg.Connection[Any], indexes: list[tuple[Any, ...]]) -> None:
    for schema, name, _, builder in indexes:
        if builder is not None:
            raise MigrationError(
                f"The index {schema}.{name} is being built by another session, pid {builder}.",
                remedy="Run again when it is done.",
                retryable=True,
            )
        logger.warning("Dropping the invalid index %s.%s, which a failed build left.", schema, name)
        plain_cursor(connection).execute(
            sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(schema, name))
        )


def _rows(connection: psycopg.Connection[Any], query: str, *parameters: str) -> list[tuple[Any, ...]]:
    return plain_cursor(connection).execute(query.encode(), parameters).fetchall()
