"""Keeps what one borrower of a SQLAlchemy engine did to a session from the next one.

SQLAlchemy rolls back what is handed back to its pool, and leaves the rest: prepared statements, temporary
tables, settings, locks, channels. Here the session is reset, too, as the package's own pool does, and so is
what psycopg's object knows of it: isolation levels, row factories, adapters, handlers. And the session moves
on: a cursor or a driver's connection that a borrower keeps has none (:mod:`.lending`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from psycopg import OperationalError, generators
from psycopg.adapt import AdaptersMap
from psycopg.pq import ExecStatus, TransactionStatus

from lakebase_provider.core.connect.connection import AsyncLakebaseConnection, LakebaseConnection
from lakebase_provider.core.connect.pools.lending import forget_session, hand_over

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import PoolResetState

#: Where SQLAlchemy keeps data of a connection: what `connect` listeners have set.
_OF_LISTENERS = "lakebase_set_at_connect"
#: The same of psycopg's object.
_OBJECT = "lakebase_object_at_connect"
#: What a borrower may set on it.
_SET = (
    "_autocommit",
    "_deferrable",
    "_isolation_level",
    "_read_only",
    "answer_timeout",
    "cursor_factory",
    "row_factory",
    "server_cursor_factory",
)
#: Statements that set again what is set, one for each setting; RESET ALL goes back to what the server had.
_ASK_SETTINGS = b"""
SELECT pg_catalog.string_agg(
    pg_catalog.format('; SELECT pg_catalog.set_config(%L, %L, false)', name, setting), ''
)
FROM (
    SELECT name, setting FROM pg_catalog.pg_settings
    WHERE source = 'session' AND name NOT LIKE 'transaction\\_%'
    UNION ALL
    SELECT 'role', role FROM pg_catalog.current_setting('role') AS role WHERE role <> 'none'
) AS settings
"""


def reset_on_return(engine: Engine) -> None:
    """Make an engine reset its sessions between borrowers, in one round trip, if anything was done.

    What ``connect`` listeners have set with ``SET`` or ``SET ROLE`` stays. Custom settings, with a dot in
    their names, belong in ``checkout`` listeners, since the server does not list them. Other packages'
    connections are left alone, and so are all of an engine made with ``pool_reset_on_return=None``,
    SQLAlchemy's way to turn it off.
    """
    from sqlalchemy import event
    from sqlalchemy.pool import NullPool, StaticPool, reset_commit, reset_none
    from sqlalchemy.util import await_only

    how = engine.pool._reset_on_return
    # The other one closes what is returned to it.
    if how is reset_none or isinstance(engine.pool, NullPool):
        return

    def finish(driver: LakebaseConnection | AsyncLakebaseConnection, call: Callable[[], Any]) -> Any:
        return await_only(call()) if isinstance(driver, AsyncLakebaseConnection) else call()

    def checkout(connection: Any, record: Any, _fairy: object) -> None:
        driver = _ours(connection)
        if driver is not None and _OF_LISTENERS not in record.info:
            # The first time, when only the listeners have used it.
            record.info[_OF_LISTENERS] = b""
            record.info[_OBJECT] = _restorer(driver)
            if driver._used and driver.pgconn.transaction_status in (
                TransactionStatus.IDLE,
                TransactionStatus.INTRANS,
            ):
                steps = driver._without_trace(_settings(driver))
                record.info[_OF_LISTENERS] = finish(driver, lambda: driver.wait(steps))

    def reset(connection: Any, record: Any, state: PoolResetState) -> None:
        driver = _ours(connection)
        if driver is None or not state.asyncio_safe:
            return
        restore = record.info.get(_OBJECT)
        if not driver._touched:
            if restore is not None:
                restore()
            return
        if how is reset_commit:
            finish(driver, driver.commit)
        driver._restored = record.info.get(_OF_LISTENERS, b"")
        try:
            finish(driver, driver.reset_session)
        finally:
            driver._restored = b""
        if driver.pgconn.transaction_status == TransactionStatus.IDLE:
            forget_session(driver)
            if restore is not None:
                restore()
            # Should it be a loan of the package's pool, that resets what is restored for the engine, too.
            driver._touched = driver._used = driver._lender is not None

    def checkin(connection: Any, record: Any) -> None:
        driver = _ours(connection)
        # A loan has its own end, and what has been closed has no session.
        if driver is None or driver._lender is not None or driver.closed:
            return
        heir = hand_over(driver)
        if (restore := record.info.get(_OBJECT)) is not None:
            restore()
        if connection is driver:
            record.dbapi_connection = heir
        else:
            # SQLAlchemy's own object around one for asyncio, which somebody may also keep.
            record.dbapi_connection = copy.copy(connection)
            record.dbapi_connection._connection = heir

    event.listen(engine, "checkout", checkout)
    event.listen(engine, "reset", reset)
    # All borrowers of that one hold the same connection at once.
    if not isinstance(engine.pool, StaticPool):
        event.listen(engine, "checkin", checkin)


def _ours(connection: Any) -> LakebaseConnection | AsyncLakebaseConnection | None:
    driver = getattr(connection, "driver_connection", connection)
    return driver if isinstance(driver, (LakebaseConnection, AsyncLakebaseConnection)) else None


def _restorer(driver: LakebaseConnection | AsyncLakebaseConnection) -> Callable[[], None]:
    """What makes psycopg's object of a session as it is now."""
    state = vars(driver)
    names = set(state)
    values = {name: state[name] for name in _SET}
    # Copies share what they hold until somebody registers something.
    adapters = AdaptersMap(driver.adapters)
    handlers = (tuple(driver._notice_handlers), tuple(driver._notify_handlers))
    limits = (driver._prepared.prepare_threshold, driver._prepared.prepared_max)

    def restore() -> None:
        # The state goes from object to object, and this one may be one of the past.
        state.update(values, _begin_statement=b"", _adapters=AdaptersMap(adapters))
        state["_notice_handlers"][:], state["_notify_handlers"][:] = handlers
        prepared = state["_prepared"]
        prepared.prepare_threshold, prepared.prepared_max = limits
        for name in state.keys() - names:
            del state[name]

    return restore


def _settings(driver: LakebaseConnection | AsyncLakebaseConnection) -> Generator[Any, Any, bytes]:
    driver.pgconn.send_query(_ASK_SETTINGS)
    (result,) = yield from generators.execute(driver.pgconn)
    if result.status != ExecStatus.TUPLES_OK:
        raise OperationalError(result.get_error_message())
    return result.get_value(0, 0) or b""
