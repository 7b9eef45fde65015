"""The connections that users hold: psycopg's own, with a little more state."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
from psycopg.abc import ConnDict, Params, Query
from psycopg.adapt import AdaptersMap
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGconn
from psycopg.rows import Row, TupleRow, tuple_row

from lakebase_provider.core.connect.cancel import Holder, require_may_begin, statement_was_canceled
from lakebase_provider.core.connect.cursor import (
    AsyncLakebaseServerCursor,
    InertComments,
    LakebaseServerCursor,
)
from lakebase_provider.core.connect.harmless import is_read, is_stale, only_reads
from lakebase_provider.core.connect.parameters.adaptation import new_adapters, register
from lakebase_provider.core.connect.pools.lending import (
    PREPARE_THRESHOLD,
    PREPARED_MAX,
    closed_connection,
    forget_session,
)
from lakebase_provider.core.connect.pools.sessions import (
    RESET_SESSION,
    exchange,
    interrupted,
    name_statement,
    noting,
    set_silently,
)
from lakebase_provider.core.connect.pools.streams import Streaming, StreamingCursor
from lakebase_provider.core.errors.server_ends import strike_out, typed_end

if TYPE_CHECKING:
    from typing_extensions import Self

#: What a borrower may have set on a connection without a word to the server, and what it was before.
_SETTINGS: dict[str, Any] = {
    "row_factory": tuple_row,
    "_adapters": None,
    "_autocommit": False,
    "_blocks": 0,
    "_lender": None,
    "_pool": None,
    "_streams": (),
}
#: And what it becomes otherwise.
_WORK: dict[str, Any] = {
    "_begin_statement": b"",
    "_cut": False,
    "_deferrable": None,
    "_harmless": None,
    "_isolation_level": None,
    "_num_transactions": 0,
    "_pipeline": None,
    "_read_only": None,
    "_streams": (),
    "_touched": False,
    "_tpc": None,
    "_used": False,
}
#: Seconds for the server to answer; after that, the connection is not worth keeping.
_RESET_TIMEOUT = 5.0
#: Seconds; Airflow kills a task 5 seconds after asking it to end.
CANCEL_TIMEOUT = 3.0
#: Deadline of the connect under way in this thread, on the monotonic clock.
_connect_end: ContextVar[float] = ContextVar("_connect_end", default=math.inf)


class _Reading(StreamingCursor, InertComments):
    """A cursor whose `execute` tells the connection when it only reads; nothing else counts as harmless."""

    __slots__ = ()

    def _execute_gen(
        self, query: Query, params: Params | None = None, **kwargs: Any
    ) -> Generator[Any, Any, None]:
        # execute() makes these steps and passes them to wait() while it holds the connection's lock.
        connection = self._conn  # type: ignore[attr-defined]
        if not isinstance(connection, _Tracked):
            return self._steps(query, params, **kwargs)
        steps = self._again_if_stale(connection, query, params, **kwargs)
        if not connection._used and only_reads(query, connection):
            return connection._without_trace(steps)
        return steps

    def _steps(self, query: Query, *args: Any, **kwargs: Any) -> Generator[Any, Any, None]:
        steps: Generator[Any, Any, None] = super()._execute_gen(query, *args, **kwargs)  # type: ignore[misc]
        return steps

    def _again_if_stale(
        self, connection: _Tracked, query: Query, *args: Any, **kwargs: Any
    ) -> Generator[Any, Any, None]:
        """The statement's steps, run again if it is a read whose prepared form the server refuses.

        It does so after what it reads was altered. Only the first statement of a transaction is run again,
        since earlier work would be lost.
        """
        first = (
            connection.pgconn.transaction_status == TransactionStatus.IDLE and connection._pipeline is None
        )
        try:
            yield from self._steps(query, *args, **kwargs)
            return
        except psycopg.errors.FeatureNotSupported as error:
            # It was refused before any of it ran, and so was what a function in it would do.
            if not (is_stale(error) and first and is_read(query, connection)):
                raise
        connection._prepared.clear()
        if connection.pgconn.transaction_status != TransactionStatus.IDLE:
            # It began with this statement.
            yield from psycopg.BaseConnection._rollback_gen(connection)
        yield from self._steps(query, *args, **kwargs)


class LakebaseCursor(_Reading, psycopg.Cursor[Row]):
    """psycopg's cursor, which saves its connection the reset after statements that leave no trace."""

    __slots__ = ()


class AsyncLakebaseCursor(_Reading, psycopg.AsyncCursor[Row]):
    """psycopg's cursor for asyncio, which also saves its connection needless resets."""

    __slots__ = ()


class _Tracked(Streaming):
    """What both kinds of connections share: whether anything may have changed the session.

    All that talks to the server goes through ``wait``, as steps, or past it, by libpq's object itself. What
    is not known to leave the session as it was makes it a used one.
    """

    last_used: float = 0.0
    #: Seconds to wait at most for any answer from the server; None for no limit.
    answer_timeout: float | None
    #: Whether anything went through ``wait``, and whether anything did that may have changed the session.
    _touched = _used = False
    #: The pool that lent it, if any; whether it has been returned; how many `with` blocks it is in.
    _lender: Any = None
    _ended = False
    _blocks = 0
    #: Statements for what its opener has set for all of its borrowers, each after a semicolon.
    _restored: bytes = b""
    #: Shared by all connections that have the session one after another.
    _holder: Holder
    #: libpq's object that the session was opened with.
    _opened_with: PGconn
    _settings: ClassVar[dict[str, Any]]
    _state_size: ClassVar[int]

    def __init__(self, pgconn: PGconn, *args: Any, **kwargs: Any) -> None:
        super().__init__(pgconn, *args, **kwargs)
        self._holder = Holder(self)
        self.answer_timeout = self._lender = self._harmless = None
        self._touched = self._used = self._cut = False
        self._blocks, self._streams = 0, ()
        pgconn.notice_handler = self._holder.tell_notice
        pgconn.notify_handler = self._holder.tell_notify
        # libpq tells notices to the object that the session was opened with, which has it no more.
        self.pgconn, self._opened_with = noting(pgconn, self._holder), pgconn

    @property
    def adapters(self) -> AdaptersMap:
        """psycopg's adapters with the rules of :mod:`.adaptation`."""
        if self._adapters is None:
            self._adapters = new_adapters()
        return self._adapters

    def _note(self, steps: Generator[Any, Any, Any]) -> Holder:
        self._require_lent()
        self._touched = True
        if steps is self._harmless:
            self._harmless = None
        else:
            self._used = True
        return self._holder

    def _start_query(self) -> Generator[Any, Any, None]:
        # Every cursor starts a statement through this, but nothing ends a transaction through it.
        self._require_lent()
        require_may_begin()
        return super()._start_query()

    def _exec_command(self, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        # psycopg logs some of these errors itself, and raises them not.
        try:
            return (yield from super()._exec_command(*args, **kwargs))
        except psycopg.Error as error:
            strike_out(error)
            raise

    # What ends a transaction, or sets how the next one begins, changes the session no further.

    def _commit_gen(self) -> Generator[Any, Any, None]:
        return self._without_trace(super()._commit_gen())

    def _rollback_gen(self) -> Generator[Any, Any, None]:
        return self._without_trace(super()._rollback_gen())

    def _set_autocommit_gen(self, value: bool) -> Generator[Any, Any, None]:
        return self._without_trace(super()._set_autocommit_gen(value))

    def _set_isolation_level_gen(self, value: psycopg.IsolationLevel | None) -> Generator[Any, Any, None]:
        return self._without_trace(super()._set_isolation_level_gen(value))

    def _set_read_only_gen(self, value: bool | None) -> Generator[Any, Any, None]:
        return self._without_trace(super()._set_read_only_gen(value))

    def _set_deferrable_gen(self, value: bool | None) -> Generator[Any, Any, None]:
        return self._without_trace(super()._set_deferrable_gen(value))

    def _statements_to_reset(self) -> bytes:
        """Statements that undo what a borrower did; empty if there is no trace."""
        statements = [] if self.pgconn.transaction_status == TransactionStatus.IDLE else [b"ROLLBACK"]
        if self._used:
            statements.append(RESET_SESSION + self._restored)
        elif self._prepared._names or self._prepared._to_flush:
            # Prepared because the borrower read with it often. For the next borrower it would only help with
            # that one statement, and altering what it reads would break it in the middle of a transaction.
            statements.append(b"DEALLOCATE ALL")
        return b"; ".join(statements)

    def _told(self, error: psycopg.Error, why_lost: psycopg.Error | None) -> psycopg.Error | None:
        """What to raise in place of the server's error; None for the error itself."""
        strike_out(error)
        if isinstance(error, psycopg.errors.QueryCanceled):
            statement_was_canceled(error)
        elif isinstance(error, psycopg.errors.FeatureNotSupported) and is_stale(error):
            # psycopg would keep using the same prepared statement, and keep failing.
            self._prepared.clear()
        return why_lost or typed_end(error)

    def _forget_additions(self, state: dict[str, Any]) -> None:
        """Restore psycopg's initial state for the next borrower: attributes that are rarely set."""
        prepared = state["_prepared"]
        prepared.prepare_threshold, prepared.prepared_max = PREPARE_THRESHOLD, PREPARED_MAX
        state.update(_notice_handlers=[], _notify_handlers=[])
        for name in state.keys() - _STATE:
            del state[name]

    def _forget_work(self, state: dict[str, Any]) -> None:
        """And state from talking to the server, which has forgotten it too."""
        state.update(_WORK)
        forget_session(self)

    def _require_resettable(self) -> None:
        if self.pgconn.pipeline_status != PipelineStatus.OFF:
            raise psycopg.OperationalError("a pipeline was not left")

    def _forget_notifies(self) -> None:
        if self._used:
            # Notifications on the borrower's channels that wait to be fetched.
            while self.pgconn.notifies() is not None:
                pass
            set_silently(self.pgconn, "notify_handler", self._holder.tell_notify)

    # The end of a loan.

    def lent_at(self) -> str | None:
        """Where it was borrowed, as file and line; None if it is not lent, or no longer."""
        where: str | None = None if self._ended or self._lender is None else self._lender.lent_at(self)
        return where

    def _check_connection_ok(self) -> None:
        self._require_lent()
        self._holder.require_not_lost()
        super()._check_connection_ok()

    def _require_lent(self) -> None:
        if self._ended:
            raise psycopg.OperationalError(
                "the connection is closed: it was returned to its pool.\n"
                "Remedy: borrow another one, or return it later."
            )

    def __getattr__(self, name: str) -> Any:
        # Nothing is left of a returned connection. It looks like a closed one.
        if not vars(self).get("_ended") or name.startswith("__"):
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self
            )
        kind: Any = type(self)
        return getattr(closed_connection(kind), name)

    def __del__(self) -> None:  # type: ignore[override] # Python gives it nothing
        if self._ended:
            return
        if self._lender is None or not self._lender._note_dropped(self):
            super().__del__()
            return
        # Nobody knows of it, but its session still goes back, through a thread that may wait.
        self._lender._take_back_dropped(self)


class LakebaseConnection(_Tracked, psycopg.Connection[TupleRow]):
    """A psycopg connection that knows whether its session may have changed since it was lent.

    Attributes:
        last_used: When it was returned, on the monotonic clock, in seconds.
    """

    _settings: ClassVar[dict[str, Any]] = {
        **_SETTINGS,
        "cursor_factory": LakebaseCursor,
        "server_cursor_factory": LakebaseServerCursor,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor_factory, self.server_cursor_factory = LakebaseCursor, LakebaseServerCursor

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> LakebaseConnection:
        """psycopg's ``connect``; given an `opener`, the connection that it opens.

        `within` limits it, in seconds, for all addresses of the host together.
        """
        opener: Callable[[], LakebaseConnection] | None = kwargs.pop("opener", None)
        if opener is not None:
            return opener()
        reset = _connect_end.set(time.monotonic() + kwargs.pop("within", math.inf))
        try:
            connection = super().connect(conninfo, **kwargs)
        finally:
            _connect_end.reset(reset)
        assert isinstance(connection, cls)
        if kwargs.get("context") is not None:  # whose adapters it copied
            register(connection)
        return connection

    @classmethod
    def _get_connection_params(cls, conninfo: str, **kwargs: Any) -> ConnDict:
        # Without a connection string, libpq need not be asked what an empty one means.
        if conninfo:
            return super()._get_connection_params(conninfo, **kwargs)
        return {name: value for name, value in kwargs.items() if value is not None}

    @classmethod
    def _connect_gen(cls, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        # psycopg's own limit is in whole seconds, at least two, and applies to each address separately.
        steps: Generator[Any, Any, Any] = super()._connect_gen(*args, **kwargs)
        answer = None
        while time.monotonic() < _connect_end.get():
            try:
                awaited = steps.send(answer)
            except StopIteration as done:
                return done.value
            answer = yield awaited
        steps.close()
        raise psycopg.errors.ConnectionTimeout("connection timeout expired")

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        """psycopg's ``wait``, by which everything goes that talks to the server."""
        holder = self._note(gen)
        asks = kwargs.pop("asks", True)  # why the session is lost, if it is; a pool gets another one anyway
        if self.answer_timeout is not None:
            kwargs.setdefault("timeout", self.answer_timeout)
        holder.in_steps = True
        try:
            return super().wait(gen, *args, **kwargs)
        except psycopg.Error as error:
            told = self._told(error, holder.why_lost() if asks else None)
            if told is None:
                raise
            raise told from error
        finally:
            holder.in_steps = False

    def set_autocommit(self, value: bool) -> None:
        """psycopg's ``set_autocommit``, without waiting if there is no transaction."""
        if self.pgconn.transaction_status == TransactionStatus.IDLE and self._pipeline is None:
            self._autocommit = bool(value)
        else:
            super().set_autocommit(value)

    def __enter__(self) -> Self:
        """Begin a block at whose end the connection is committed or rolled back, and closed."""
        self._require_lent()
        self._blocks += 1
        return self

    def __exit__(self, *exc_info: Any) -> None:
        """End the block as psycopg does; a borrowed connection is returned with the outermost one."""
        self._blocks -= 1
        try:
            for rows in self._left_streams():
                rows.close()
            if (cut := self._cut_off(exc_info[1])) is not None:
                super().__exit__(type(cut), cut, None)
                raise cut
            if self._pipeline is not None or self.pgconn.transaction_status != TransactionStatus.IDLE:
                super().__exit__(*exc_info)
            elif self._lender is None:
                self.close()
        finally:
            if self._lender is not None and not self._blocks:
                self.close()

    def close(self) -> None:
        """Return a borrowed connection, even a broken one, since it counts in its pool; close any other.

        A second call does nothing.
        """
        if self._lender is not None:
            self._lender.putconn(self)
        else:
            super().close()

    def check(self, timeout: float) -> None:
        """Ask the server for a sign of life, without leaving a trace in the session.

        Args:
            timeout: Seconds to wait at most; without a limit, a silent link would block forever.

        Raises:
            psycopg.OperationalError: The connection is broken, or the server did not answer in time.
        """
        self.wait(self._without_trace(exchange(self, b"")), timeout=timeout, asks=False)

    def name_session(self, name: str) -> None:
        """Make pg_stat_activity show a name until the connection is returned.

        No transaction begins, and nothing is sent if it is shown already.

        Args:
            name: The server keeps the first 63 bytes.

        Raises:
            psycopg.OperationalError: The connection is broken.
        """
        if self.info.parameter_status("application_name") != name:
            self.wait(exchange(self, name_statement(self, name)), timeout=_RESET_TIMEOUT, asks=False)

    def reset_session(self) -> None:
        """Undo what a borrower did to the session, in at most one round trip.

        Raises:
            psycopg.OperationalError: The connection is broken.
        """
        status = self.pgconn.transaction_status
        if status == TransactionStatus.UNKNOWN:
            return
        if status == TransactionStatus.ACTIVE:
            # psycopg cancels the statement for Ctrl-C, but not for other exceptions from a signal handler,
            # such as Airflow's task timeout; waiting here for the statement to end could take hours.
            self.cancel_safe(timeout=CANCEL_TIMEOUT)
            raise interrupted()
        if self._touched:
            self._require_resettable()
            if statements := self._statements_to_reset():
                self.wait(exchange(self, statements), timeout=_RESET_TIMEOUT, asks=False)
            self._forget_notifies()
        self.last_used = time.monotonic()


class AsyncLakebaseConnection(_Tracked, psycopg.AsyncConnection[TupleRow]):
    """A psycopg connection for asyncio that knows whether its session may have changed since it was lent.

    Attributes:
        last_used: When it was returned, on the monotonic clock, in seconds.
    """

    _settings: ClassVar[dict[str, Any]] = {
        **_SETTINGS,
        "cursor_factory": AsyncLakebaseCursor,
        "server_cursor_factory": AsyncLakebaseServerCursor,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor_factory = AsyncLakebaseCursor
        self.server_cursor_factory = AsyncLakebaseServerCursor

    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: Any) -> AsyncLakebaseConnection:
        """psycopg's ``connect``; given an `opener`, the connection that it opens."""
        opener: Callable[[], Awaitable[AsyncLakebaseConnection]] | None = kwargs.pop("opener", None)
        if opener is not None:
            return await opener()
        connection = await super().connect(conninfo, **kwargs)
        assert isinstance(connection, cls)
        if kwargs.get("context") is not None:  # whose adapters it copied
            register(connection)
        return connection

    async def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        """psycopg's ``wait``, by which everything goes that talks to the server."""
        holder = self._note(gen)
        asks = kwargs.pop("asks", True)  # why the session is lost, if it is; a pool gets another one anyway
        if self.answer_timeout is not None:
            kwargs.setdefault("timeout", self.answer_timeout)
        holder.in_steps = True
        try:
            return await super().wait(gen, *args, **kwargs)
        except psycopg.Error as error:
            told = self._told(error, await holder.awhy_lost() if asks else None)
            if told is None:
                raise
            raise told from error
        finally:
            holder.in_steps = False

    async def __aenter__(self) -> Self:
        """Begin a block at whose end the connection is committed or rolled back, and closed."""
        self._require_lent()
        self._blocks += 1
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        """End the block as psycopg does; a borrowed connection is returned with the outermost one."""
        self._blocks -= 1
        try:
            for rows in self._left_streams():
                await rows.aclose()
            if (cut := self._cut_off(exc_info[1])) is not None:
                await super().__aexit__(type(cut), cut, None)
                raise cut
            if self._pipeline is not None or self.pgconn.transaction_status != TransactionStatus.IDLE:
                await super().__aexit__(*exc_info)
            elif self._lender is None:
                await self.close()
        finally:
            if self._lender is not None and not self._blocks:
                await self.close()

    async def close(self) -> None:
        """Return a borrowed connection, even a broken one, since it counts in its pool; close any other.

        A second call does nothing.
        """
        if self._lender is not None:
            await self._lender.putconn(self)
        else:
            await super().close()

    async def check(self, timeout: float) -> None:
        """Ask the server for a sign of life, without leaving a trace in the session.

        Args:
            timeout: Seconds to wait at most; without a limit, a silent link would block forever.

        Raises:
            psycopg.OperationalError: The connection is broken, or the server did not answer in time.
        """
        await self.wait(self._without_trace(exchange(self, b"")), timeout=timeout, asks=False)

    async def name_session(self, name: str) -> None:
        """Make pg_stat_activity show a name until the connection is returned.

        No transaction begins, and nothing is sent if it is shown already.

        Args:
            name: The server keeps the first 63 bytes.

        Raises:
            psycopg.OperationalError: The connection is broken.
        """
        if self.info.parameter_status("application_name") != name:
            await self.wait(exchange(self, name_statement(self, name)), timeout=_RESET_TIMEOUT, asks=False)

    async def reset_session(self) -> None:
        """Undo what a borrower did to the session, in at most one round trip.

        Raises:
            psycopg.OperationalError: The connection is broken.
        """
        status = self.pgconn.transaction_status
        if status == TransactionStatus.UNKNOWN:
            return
        if status == TransactionStatus.ACTIVE:
            await self.cancel_safe(timeout=CANCEL_TIMEOUT)
            raise interrupted()
        if self._touched:
            self._require_resettable()
            if statements := self._statements_to_reset():
                await self.wait(exchange(self, statements), timeout=_RESET_TIMEOUT, asks=False)
            self._forget_notifies()
        self.last_used = time.monotonic()


#: What belongs to a session, whoever has it: what psycopg and its pool know of a connection, and what we do.
_STATE = frozenset(vars(closed_connection(LakebaseConnection))) | {
    "_created_at",
    "_expire_at",
    "last_used",
    *LakebaseConnection._settings,
    *_WORK,
}
_Tracked._state_size = len(_STATE)
