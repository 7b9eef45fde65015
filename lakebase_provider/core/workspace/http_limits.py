"""Limits of one HTTP exchange: total seconds, and bytes of the answer.

urllib3's timeouts each apply to one wait: an answer that arrives byte by byte never exceeds one. Here the
sockets themselves know the deadline and the size, from connecting to the last byte, so nothing above them has
to.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.base.threads import glance
from lakebase_provider.core.errors import ControlPlaneTimeoutError

# Whoever logs in with a password sends no request, and does not pay for the import.
if TYPE_CHECKING:
    import urllib3
    from urllib3.connection import HTTPConnection

#: Bytes of an answer, headers included. The longest, a token, has a few thousand.
LARGEST_ANSWER = 1_048_576
#: Seconds to connect to one address, and for the TLS handshake.
CONNECT_SECONDS = 5.0


class Limit:
    """What is left of an exchange's seconds and bytes.

    Args:
        seconds: How long it may take from now.
        size: How many bytes each answer may have, headers included.
    """

    def __init__(self, seconds: float, size: int = LARGEST_ANSWER) -> None:
        self.seconds = seconds
        self.size = size
        self._end = time.monotonic() + seconds
        self._bytes_left = size

    def remaining(self) -> float:
        """Seconds that are left.

        Raises:
            TimeoutError: None are left.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"not done within {self.seconds:.1f} s")
        return left

    def begin_answer(self) -> None:
        """Count the bytes of another answer."""
        self._bytes_left = self.size

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self._end

    @property
    def is_full(self) -> bool:
        """Whether more bytes arrived than allowed."""
        return self._bytes_left < 0

    def spend(self, size: int) -> None:
        """Record bytes that have arrived.

        Raises:
            OSError: They are too many.
        """
        self._bytes_left -= size
        if self.is_full:
            raise OSError(f"an answer of more than {self.size} bytes")


_current = threading.local()


@contextmanager
def within(limit: Limit) -> Iterator[None]:
    """Apply a limit to this thread's exchanges over this module's sockets."""
    before, _current.limit = current_limit(), limit
    try:
        yield
    finally:
        _current.limit = before


def current_limit() -> Limit | None:
    """This thread's limit."""
    found: Limit | None = getattr(_current, "limit", None)
    return found


def at_most(seconds: float) -> float:
    """Those seconds, or what is left of this thread's limit if that is less.

    Raises:
        ControlPlaneTimeoutError: Nothing is left of it.
    """
    limit = current_limit()
    if limit is None:
        return seconds
    if limit.is_over:
        raise ControlPlaneTimeoutError(f"The workspace did not answer within {limit.seconds:.1f} s.")
    return min(seconds, limit.remaining())


def _receive(sock: socket.socket, receive: Callable[..., int], arguments: tuple[Any, ...]) -> int:
    limit = current_limit()
    if limit is None:
        return receive(*arguments)
    while True:
        left = limit.remaining()
        sock.settimeout(stretch := glance(left))
        try:
            size = receive(*arguments)
        except TimeoutError:
            if stretch == left:
                raise
        else:
            limit.spend(size)
            return size


class _Socket(socket.socket):
    def recv_into(self, *arguments: Any) -> int:
        return _receive(self, super().recv_into, arguments)


class _TlsSocket(ssl.SSLSocket):
    # Python applies the timeout to a handshake, and to a record that arrives byte by byte, as a whole.
    def recv_into(self, *arguments: Any) -> int:
        return _receive(self, super().recv_into, arguments)


def _connected(connection: HTTPConnection) -> socket.socket:
    """A socket to the first address that answers; all of them share one time limit."""
    from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

    try:
        addresses = socket.getaddrinfo(connection._dns_host, connection.port, 0, socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise NameResolutionError(connection.host, connection, error) from error
    last: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in addresses:
        candidate = _Socket(family, kind, protocol)
        try:
            for option in connection.socket_options or ():
                candidate.setsockopt(*option)
            limit = current_limit()
            candidate.settimeout(min(CONNECT_SECONDS, limit.remaining()) if limit else CONNECT_SECONDS)
            candidate.connect(address)
        except OSError as error:
            last = error
            candidate.close()
        else:
            return candidate
    if isinstance(last, TimeoutError):
        raise ConnectTimeoutError(connection, f"Connection to {connection.host} timed out.") from last
    raise NewConnectionError(connection, f"Failed to establish a new connection: {last}") from last


@cache
def _pools() -> dict[str, Any]:
    """urllib3's pools by scheme, with this module's sockets."""
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
    from urllib3.util.ssl_ import create_urllib3_context, resolve_cert_reqs

    class Connection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _connected(self)

    class TlsConnection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _connected(self)

        def connect(self) -> None:
            if self.ssl_context is None:
                self.ssl_context = create_urllib3_context(cert_reqs=resolve_cert_reqs(self.cert_reqs))
            self.ssl_context.sslsocket_class = _TlsSocket
            super().connect()

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = TlsConnection

    return {"http": Pool, "https": TlsPool}


def limit_sockets(manager: urllib3.PoolManager) -> urllib3.PoolManager:
    """Make a pool manager without connections open them as this module's sockets."""
    manager.pool_classes_by_scheme = dict(_pools())
    return manager
