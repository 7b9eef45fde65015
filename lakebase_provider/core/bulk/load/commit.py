"""The commit: what happens when nobody knows whether it took place."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg

from lakebase_provider.core.base.clock import SYSTEM_CLOCK, Clock
from lakebase_provider.core.bulk.load.ledger import STALLED_AFTER, Ledger
from lakebase_provider.core.bulk.load.ledger import TABLE as LEDGER
from lakebase_provider.core.bulk.load.load import load_rows, named, rejects_of
from lakebase_provider.core.bulk.load.plan import LoadOptions, LoadPlan
from lakebase_provider.core.bulk.load.rejects import Rejects
from lakebase_provider.core.bulk.load.result import LoadResult
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.catalog import TableName
from lakebase_provider.core.database.refusals import connection_lost, load_error, quotable, typed_errors
from lakebase_provider.core.errors import CommitUnknownError, LakebaseError, LoadInterruptedError

if TYPE_CHECKING:
    from typing_extensions import Unpack

logger = logging.getLogger(__name__)

#: Lends a connection.
Connections = Callable[[], AbstractContextManager[psycopg.Connection[Any]]]
#: Seconds between two checks of a transaction that is still under way.
_POLL = 0.25

# The server ends a lost client's session only once it notices the loss; nobody else uses this transaction.
_END = """
SELECT pg_catalog.pg_terminate_backend(pid, 5000) FROM pg_catalog.pg_stat_activity
WHERE backend_xid = (%s::xid8)::xid
"""


def load_and_commit(
    connections: Connections,
    source: Any,
    table: str | tuple[str, str] | TableName,
    *,
    clock: Clock = SYSTEM_CLOCK,
    **options: Unpack[LoadOptions],
) -> LoadResult:
    """:func:`~lakebase_provider.core.bulk.load.load.load` in its own transaction.

    If the connection is lost while the commit is under way, the server is asked through another one whether
    it took place: from the ledger if the load has an id, otherwise from the transaction's status.

    Args:
        connections: Lends a connection, at most two.
        source: Rows.
        table: The table's name.
        clock: Where the time comes from.
        options: The fields of :class:`~lakebase_provider.core.bulk.load.plan.LoadPlan`.

    Raises:
        ConfigError: Options contradict each other; nothing was sent.
        LoadInterruptedError: The connection was lost, and nothing was written.
        CommitUnknownError: The connection was lost during the commit, and the server could not be asked.
        LoadError: The load failed, and nothing was written.
    """
    plan = LoadPlan(**options)
    with rejects_of(plan) as rejects:
        return _load_and_commit(connections, source, table, plan, rejects, clock)


def _load_and_commit(
    connections: Connections,
    source: Any,
    table: str | tuple[str, str] | TableName,
    plan: LoadPlan,
    rejects: Rejects | None,
    clock: Clock,
) -> LoadResult:
    lost: psycopg.Error
    with connections() as connection:
        connection.autocommit = False
        _create_ledger(connection, table, plan)
        result = load_rows(connection, source, table, plan, rejects, clock=clock)
        if result.skipped:
            result = _placed(connection, result, plan)
            connection.rollback()
            return result
        transaction = _transaction_id(connection)
        try:
            connection.commit()
        except psycopg.Error as error:
            if not connection_lost(error):
                # Such as a deferred constraint: the server has answered, and rolled back.
                raise load_error(error, f"Commit of the load into {result.table}") from quotable(error)
            lost = error
            # libpq may not know yet, and the end of the block would send another COMMIT.
            connection.pgconn.finish()
        else:
            return _placed(connection, result, plan)
    logger.warning(
        "The connection was lost while committing a load into %s: asking the server.", result.table
    )
    try:
        with connections() as connection:
            committed = _took_place(connection, result, transaction, plan, clock)
            result = _placed(connection, result, plan)
    except (LakebaseError, psycopg.Error) as error:
        unknown = CommitUnknownError(
            f"The connection was lost during the commit of a load into {result.table}, and the server"
            f" could not be asked whether it took place: {error}",
            remedy=_remedy_of_doubt(plan),
            # With an id a second load is skipped if the first one took place.
            retryable=plan.bears_repetition,
        )
        raise unknown from error
    if committed:
        logger.info("The load into %s was committed.", result.table)
        return result
    raise LoadInterruptedError(
        f"The connection was lost during the commit of a load into {result.table}; it did not take place."
    ) from lost


def _placed(connection: psycopg.Connection[Any], result: LoadResult, plan: LoadPlan) -> LoadResult:
    """The result with the position that the server's log has by now, if it is asked for."""
    if not plan.lsn:
        return result
    try:
        row = plain_cursor(connection).execute("SELECT pg_catalog.pg_current_wal_lsn()::text").fetchone()
    except psycopg.Error as error:
        # Nobody may take a load that took place for one that failed.
        logger.warning(
            "%s was loaded, but the server did not tell the position of its log: %s.",
            result.table,
            type(error).__name__,
        )
        return result
    return replace(result, lsn=str(row[0]) if row else None)


def _remedy_of_doubt(plan: LoadPlan) -> str | None:
    if plan.since is not None:
        return "Load again: the ledger tells whether it took place."
    if plan.bears_repetition:
        return "Load again with the same load_id."
    if plan.load_id is None:
        return None
    return "Check whether the rows are there before you load again; give forced loads forced_by."


def _create_ledger(
    connection: psycopg.Connection[Any], table: str | tuple[str, str] | TableName, plan: LoadPlan
) -> None:
    """Create a missing ledger in its own transaction, so that nobody waits for a whole load to get it."""
    if plan.needs_ledger:
        with typed_errors(f"Create the ledger {LEDGER}"):
            name = named(connection, table, plan)
            if Ledger.of(connection, name, plan.ledger_schema).ensure():
                connection.commit()


def _transaction_id(connection: psycopg.Connection[Any]) -> str:
    row = plain_cursor(connection).execute("SELECT pg_catalog.pg_current_xact_id()::text").fetchone()
    return str(row[0] if row else "")


def _took_place(
    connection: psycopg.Connection[Any],
    result: LoadResult,
    transaction: str,
    plan: LoadPlan,
    clock: Clock,
) -> bool:
    name = TableName.parse(result.table)
    # A forced load's id may be an earlier one's.
    if result.load_id is not None and not plan.force:
        ledger = Ledger.of(connection, name, plan.ledger_schema, clock=clock)
        ledger.wait(name, result.load_id)
        return ledger.find(name, result.load_id) is not None
    cursor, began, ended = plain_cursor(connection), clock.elapsed(), False
    while True:
        row = cursor.execute("SELECT pg_catalog.pg_xact_status(%s::xid8)", (transaction,)).fetchone()
        if row is None or row[0] is None:
            raise CommitUnknownError(f"The server no longer knows transaction {transaction}.")
        if row[0] != "in progress":
            return bool(row[0] == "committed")
        if not ended and clock.elapsed() - began >= STALLED_AFTER:
            cursor.execute(_END, (transaction,))
            ended = True
        clock.sleep(_POLL)
