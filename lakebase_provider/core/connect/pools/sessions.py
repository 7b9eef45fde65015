"""libpq's sessions: one that passes from object to object, and notes what reaches it past psycopg.

``connection.pgconn`` is libpq's object itself, which runs statements of which psycopg hears nothing. A pool
has to, or it would lend the session as if nobody had used it.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Generator
from typing import Any

import psycopg
from psycopg import generators, pq, sql
from psycopg.pq import ExecStatus

logger = logging.getLogger(__name__)

#: What a borrower may have left behind in the session. DISCARD ALL does not run beside a ROLLBACK.
RESET_SESSION = (
    b"SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *;"
    b" SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES; DEALLOCATE ALL"
)
#: Whether psycopg reaches libpq by ctypes, and not by its compiled module.
_IN_PYTHON: bool = pq.__impl__ == "python"
#: What sends a statement, or changes how the next ones are sent.
_SENDING = (
    "change_password",
    "enter_pipeline_mode",
    "exec_",
    "exec_params",
    "exec_prepared",
    "prepare",
    "reset",
    "reset_start",
    "send_prepare",
    "send_query",
    "send_query_params",
    "send_query_prepared",
)
_Kind: Any = pq.PGconn


class Session(_Kind):  # type: ignore[misc] # of one of two classes, which have one protocol
    """A session that tells its holder of what is sent outside of the connection's ``wait``."""

    __slots__ = ("_holder",)

    def __setattr__(self, name: str, value: object) -> None:
        # Such as a handler of notifications, which would hear the next borrower's.
        holder = getattr(self, "_holder", None)
        if holder is not None:
            holder.note_raw_use()
        super().__setattr__(name, value)

    def get_cancel(self) -> Any:
        """What cancels the session's statement, as long as the session is here."""
        return _Cancel(self, super().get_cancel())


class _Cancel:
    """libpq's own knows the server's process, whoever has the session by then."""

    def __init__(self, session: Session, cancel: Any) -> None:
        self._session, self._cancel = session, cancel

    def cancel(self) -> None:
        """Ask the server to cancel the statement.

        Raises:
            psycopg.OperationalError: It could not be asked, or the session is somebody else's.
        """
        if self._session.pgconn_ptr is None:
            raise psycopg.OperationalError("the connection is closed")
        self._cancel.cancel()

    def free(self) -> None:
        """Forget it."""
        self._cancel.free()


def _noting(name: str) -> Callable[..., Any]:
    call = getattr(_Kind, name)

    def send(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self._holder.in_steps:
            self._holder.note_raw_use()
        return call(self, *args, **kwargs)

    send.__name__, send.__doc__ = name, call.__doc__
    return send


for _name in _SENDING:
    setattr(Session, _name, _noting(_name))


def noting(pgconn: Any, holder: Any) -> Any:
    """The session of `pgconn` in an object that tells `holder` of its use; the old one has none any more.

    Args:
        pgconn: libpq's object, as psycopg opened it.
        holder: Who has the session at the moment.
    """
    return pgconn if pgconn.pgconn_ptr is None else _move(pgconn, holder)


def moved(pgconn: Any) -> Any:
    """The same session in a new object; the old one is as if it had been finished."""
    return pgconn if pgconn.pgconn_ptr is None else _move(pgconn, pgconn._holder)


def closed_session() -> Any:
    """An object of libpq's that has no session."""
    return _closed(_Kind)


def set_silently(pgconn: Any, name: str, value: object) -> None:
    """Set an attribute of a session, of which its holder need not be told."""
    _Kind.__setattr__(pgconn, name, value)


def _closed(kind: Any) -> Any:
    if not _IN_PYTHON:
        return kind.__new__(kind)
    closed: Any = object.__new__(kind)
    closed._pgconn_ptr = closed.notice_handler = closed.notify_handler = None
    closed._procpid = 0
    return closed


def _move(pgconn: Any, holder: Any) -> Any:
    heir = _closed(Session)
    if _IN_PYTHON:
        heir = Session(pgconn._pgconn_ptr)
        set_silently(pgconn, "_pgconn_ptr", None)
    # psycopg's compiled class has no way to make one of a session that is there, only where it keeps it.
    elif not _swap(pgconn, heir, pgconn.pgconn_ptr):
        # A psycopg of another build. Nobody gets the session then, which is dear but safe.
        logger.warning("This build of psycopg (%s) cannot move a session; it is closed.", pq.__impl__)
        pgconn.finish()
        return pgconn
    heir.notice_handler, heir.notify_handler = pgconn.notice_handler, pgconn.notify_handler
    heir._holder = holder
    return heir


def _swap(pgconn: Any, heir: Any, session: int) -> bool:
    before, after = _words(pgconn), _words(heir)
    kept_at = [index for index, word in enumerate(before) if word == session]
    if len(kept_at) != 1 or after[kept_at[0]]:
        return False
    after[kept_at[0]], before[kept_at[0]] = session, None
    found = (heir.pgconn_ptr, pgconn.pgconn_ptr)
    if found != (session, None):
        after[kept_at[0]], before[kept_at[0]] = None, session
    return found == (session, None)


def _words(pgconn: Any) -> Any:
    """What a compiled object consists of, to read and write."""
    size = type(pgconn).__basicsize__ // ctypes.sizeof(ctypes.c_void_p)
    return (ctypes.c_void_p * size).from_address(id(pgconn))


def interrupted() -> psycopg.OperationalError:
    """What is raised where a session is handed back amid a statement."""
    return psycopg.OperationalError("a statement was interrupted and is cancelled")


def exchange(connection: psycopg.BaseConnection[Any], statements: bytes) -> Generator[Any, Any, None]:
    """Statements past psycopg's transaction handling, as a generator that ``wait`` of either kind drives."""
    connection.pgconn.send_query(statements)
    for result in (yield from generators.execute(connection.pgconn)):
        if result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.OperationalError(result.get_error_message())


def name_statement(connection: psycopg.BaseConnection[Any], name: str) -> bytes:
    """What sets the name that pg_stat_activity shows."""
    return sql.SQL("SET application_name = {}").format(name).as_bytes(connection)
