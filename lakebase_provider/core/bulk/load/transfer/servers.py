"""The server that a transfer's query runs on, by the driver that its connection is of."""

from __future__ import annotations

import queue
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import psycopg

from lakebase_provider.core.base.threads import start_for_caller
from lakebase_provider.core.bulk.read.statement import Parameters, query_text
from lakebase_provider.core.bulk.read.stream import copy_out
from lakebase_provider.core.bulk.types.postgres_types import BY_OID
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.connect.session import settings
from lakebase_provider.core.errors import ConfigError

#: The oldest server whose binary form is today's everywhere: times are integers from this one on.
OLDEST_VERSION = 100_000
#: Bytes that are handed on at once, and how many such blocks wait where two threads work.
BLOCK = 1 << 18
_BLOCKS = 8
#: Seconds that a request to cancel may take.
_CANCEL_TIMEOUT = 3.0
_PSYCOPG2_IDLE = 0  # libpq's PQTRANS_IDLE

#: Data as COPY sends it, with the messages in it: rows, but for what binary COPY sends about them.
Block = tuple[bytes | bytearray, int]


class Server(ABC):
    """A connection to read from, in one transaction.

    Attributes:
        version: The server's, as libpq gives it: 160004 for 16.4.
    """

    version: int

    @abstractmethod
    def text(self, query: Any, params: Parameters) -> bytes:
        """The query with its parameters in place, as the driver writes them."""

    @abstractmethod
    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What a statement without parameters returns."""

    @abstractmethod
    def describe(self, statement: bytes) -> list[tuple[str, int, int]]:
        """Name, OID of the type and its modifier of each column; -1 for a modifier that is unknown."""

    @abstractmethod
    def settings(self, wanted: Mapping[str, str]) -> AbstractContextManager[None]:
        """Give settings other values for the transaction."""

    @abstractmethod
    def copy_out(self, statement: bytes) -> AbstractContextManager[Iterator[Block]]:
        """Run a COPY TO STDOUT; leaving the context early ends it."""

    @abstractmethod
    def end(self) -> bool:
        """End the transaction; False where it is the caller's, and goes on."""


def gives_copy(connection: Any) -> bool:
    """Whether a driver's connection leads to a Postgres whose COPY can be had as a stream.

    CockroachDB and Redshift speak the protocol, and have a COPY of their own.

    Args:
        connection: A DB-API connection.
    """
    if isinstance(connection, psycopg.Connection):
        version, status = connection.info.server_version, connection.info.parameter_status
    elif _is_psycopg2(connection) and not connection.async_:
        version, status = connection.server_version, connection.get_parameter_status
    else:
        return False
    return version >= OLDEST_VERSION and not status("crdb_version")


def server_of(connection: Any) -> Server:
    """The server behind a driver's connection.

    Args:
        connection: A DB-API connection.

    Raises:
        ConfigError: COPY cannot be had of it as a stream.
    """
    if not gives_copy(connection):
        raise ConfigError(
            f"A connection of {type(connection).__module__.partition('.')[0]} to this server cannot stream "
            "COPY.",
            remedy="Use a psycopg connection to Postgres 10 or newer, or give a cursor as the source.",
        )
    return _Psycopg(connection) if isinstance(connection, psycopg.Connection) else _Psycopg2(connection)


def cancel(connection: Any) -> None:
    """Cancel what a connection's server runs; safe in a signal handler, and from another thread.

    Args:
        connection: A DB-API connection; nothing is done with one of another driver.
    """
    if isinstance(connection, psycopg.Connection):
        if connection.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
            connection.cancel_safe(timeout=_CANCEL_TIMEOUT)
    elif _is_psycopg2(connection) and not connection.closed:
        connection.cancel()


def _is_psycopg2(connection: Any) -> bool:
    # By its bases: the class may be a user's own.
    return any(base.__module__.partition(".")[0] == "psycopg2" for base in type(connection).__mro__)


class _Psycopg(Server):
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self.version = connection.info.server_version
        self._own: bool = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        self._autocommit = connection.autocommit
        if connection.autocommit and self._own:
            # What the types were found to be holds as long as the transaction.
            connection.autocommit = False

    def text(self, query: Any, params: Parameters) -> bytes:
        return query_text(self._connection, query, params)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return plain_cursor(self._connection).execute(statement.encode()).fetchall()

    def describe(self, statement: bytes) -> list[tuple[str, int, int]]:
        with plain_cursor(self._connection) as cursor:
            cursor.execute(statement)
            result = cursor.pgresult
            columns = cursor.description or ()
            assert result is not None
            return [(c.name, c.type_code, result.fmod(number)) for number, c in enumerate(columns)]

    def settings(self, wanted: Mapping[str, str]) -> AbstractContextManager[None]:
        return settings(self._connection, wanted)

    @contextmanager
    def copy_out(self, statement: bytes) -> Iterator[Iterator[Block]]:
        with copy_out(self._connection, statement) as copy:
            yield copy.blocks(BLOCK)

    def end(self) -> bool:
        # A link that is lost has ended it, too.
        with suppress(psycopg.Error):
            if self._own and not self._connection.closed:
                self._connection.rollback()
                self._connection.autocommit = self._autocommit
        return self._own


class _Psycopg2(Server):
    """psycopg2 gives COPY's data to a function, row by row: a thread reads, some blocks ahead at most."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.version = connection.server_version
        idle = connection.info.transaction_status == _PSYCOPG2_IDLE
        self._own: bool = idle
        self._autocommit = connection.autocommit
        if connection.encoding != "UTF8":
            # The driver, too, has to know it. It does not hear of one that is set by SQL.
            connection.set_client_encoding("UTF8")
        if connection.autocommit and idle:
            connection.autocommit = False

    def text(self, query: Any, params: Parameters) -> bytes:
        with self._cursor() as cursor:
            text = cursor.mogrify(query, params)
        return text if isinstance(text, bytes) else str(text).encode()

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with self._cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def describe(self, statement: bytes) -> list[tuple[str, int, int]]:
        with self._cursor() as cursor:
            cursor.execute(statement)
            return [(c.name, c.type_code, _typmod(c)) for c in cursor.description]

    @contextmanager
    def settings(self, wanted: Mapping[str, str]) -> Iterator[None]:
        with self._cursor() as cursor:
            for name, value in wanted.items():
                if self._connection.get_parameter_status(name) != value:
                    cursor.execute("SELECT pg_catalog.set_config(%s, %s, true)", (name, value))
        yield

    @contextmanager
    def copy_out(self, statement: bytes) -> Iterator[Iterator[Block]]:
        reader = _Reader(self._connection, self._cursor, statement)
        try:
            yield reader.blocks()
        finally:
            reader.close()

    def end(self) -> bool:
        import psycopg2  # type: ignore[import-untyped]

        with suppress(psycopg2.Error):
            if self._own and not self._connection.closed:
                self._connection.rollback()
                self._connection.autocommit = self._autocommit
        return self._own

    def _cursor(self) -> Any:
        from psycopg2.extensions import cursor  # type: ignore[import-untyped]

        # Of the plain class: the connection's own may give rows as dicts.
        return self._connection.cursor(cursor_factory=cursor)


def _typmod(column: Any) -> int:
    """psycopg2 keeps of the modifier what DB-API has a name for."""
    kind = BY_OID.get(column.type_code)
    modifier = "" if kind is None else kind.modifier
    if modifier == "digits" and column.precision not in (None, 0xFFFF):
        return int(((column.precision << 16) | ((column.scale or 0) & 0x7FF)) + 4)
    if modifier == "length" and (column.internal_size or -1) > 0:
        return int(column.internal_size) + 4
    return -1


class _Reader:
    """A COPY that a thread reads."""

    def __init__(self, connection: Any, cursor: Any, statement: bytes) -> None:
        self._connection = connection
        self._blocks: queue.Queue[Block | BaseException | None] = queue.Queue(_BLOCKS)
        self._data, self._messages = bytearray(), 0
        self._closed = False
        self._thread = start_for_caller(self._read, cursor, statement, name="lakebase-transfer")

    def blocks(self) -> Iterator[Block]:
        while (block := self._blocks.get()) is not None:
            if isinstance(block, BaseException):
                self._thread.join()
                raise block
            yield block
        self._thread.join()

    def write(self, data: bytes) -> None:
        """Called by the driver with each message."""
        if self._closed:
            raise _ClosedError
        self._data += data
        self._messages += 1
        if len(self._data) >= BLOCK:
            self._hand_on()

    def read(self, size: int = -1) -> bytes:
        """psycopg2 wants its file to have it, and in a COPY to STDOUT never calls it."""
        raise NotImplementedError

    def close(self) -> None:
        """End the COPY where it is under way, and wait for the thread."""
        self._closed = True
        while self._thread.is_alive():
            self._connection.cancel()
            while True:
                try:
                    self._blocks.get_nowait()
                except queue.Empty:
                    break
            self._thread.join(0.2)

    def _read(self, cursor: Any, statement: bytes) -> None:
        end: BaseException | None = None
        try:
            with cursor() as opened:
                opened.copy_expert(statement, self, BLOCK)
            self._hand_on()
        except BaseException as error:  # the one who takes the blocks is to know
            if self._messages:
                self._hand_on()
            end = error
        self._blocks.put(end)

    def _hand_on(self) -> None:
        if not self._closed:
            self._blocks.put((self._data, self._messages))
        self._data, self._messages = bytearray(), 0


class _ClosedError(Exception):
    """Nobody wants the rest."""
