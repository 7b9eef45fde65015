from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from lakebase_provider.local import FaultProxy
from tests.eventually import eventually

from .conftest import Lake


class Echo:
    """A server that sends back what it gets."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._echo, args=(connection,)))
                self._threads[-1].start()

    def _echo(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", echo.port) as proxy:
        yield proxy


@contextlib.contextmanager
def client(proxy: FaultProxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as connection:
        yield connection


def ask(connection: socket.socket, data: bytes = b"hello") -> bytes:
    connection.sendall(data)
    received = b""
    while len(received) < len(data) and (part := connection.recv(1 << 16)):
        received += part
    return received


def test_passes_bytes_on_and_counts_them(proxy: FaultProxy) -> None:
    with client(proxy) as one, client(proxy) as two:
        assert ask(one) == b"hello"
        assert ask(two, b"x" * 300_000) == b"x" * 300_000
        assert proxy.counters.open_connections == 2
    eventually(lambda: proxy.counters.open_connections == 0)
    counters = proxy.counters
    assert (counters.connections, counters.bytes_to_server, counters.bytes_to_client) == (2, 300_005, 300_005)


def test_delay_counts_each_way(proxy: FaultProxy) -> None:
    with client(proxy) as connection:
        proxy.delay(0.1)
        began = time.monotonic()
        assert ask(connection) == b"hello"
        assert 0.2 <= time.monotonic() - began < 5
        proxy.heal()
        assert ask(connection) == b"hello"


def test_a_silent_link_takes_all_and_gives_nothing(proxy: FaultProxy) -> None:
    with client(proxy) as old:
        assert ask(old) == b"hello"
        proxy.swallow()
        with client(proxy) as new:
            for connection in (old, new):
                connection.settimeout(0.05)
                with pytest.raises(TimeoutError):
                    ask(connection)
            eventually(lambda: proxy.counters.bytes_swallowed == 10)
            proxy.heal()
            # Bytes are lost, so neither could be trusted any more.
            for connection in (old, new):
                connection.settimeout(10)
                with pytest.raises(ConnectionResetError):
                    connection.recv(1)
    with client(proxy) as connection:
        assert ask(connection) == b"hello"


def test_only_old_or_only_new_connections_go_silent(proxy: FaultProxy) -> None:
    with client(proxy) as old:
        assert ask(old) == b"hello"
        proxy.swallow(existing=False)
        assert ask(old) == b"hello"
        proxy.heal()
        proxy.swallow(new=False)
        with client(proxy) as new:
            assert ask(new) == b"hello"
        old.settimeout(0.05)
        with pytest.raises(TimeoutError):
            ask(old)


def test_reset_is_no_polite_end(proxy: FaultProxy) -> None:
    with client(proxy) as connection:
        assert ask(connection) == b"hello"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with client(proxy) as connection:
        assert ask(connection) == b"hello"
    assert proxy.counters.cuts == 1


@pytest.mark.parametrize(
    ("direction", "passed"), [("to_server", (3, 3)), ("to_client", (5, 3))], ids=["to_server", "to_client"]
)
def test_cut_after_some_bytes(proxy: FaultProxy, direction: str, passed: tuple[int, int]) -> None:
    proxy.cut_after(3, direction=direction)  # type: ignore[arg-type]
    with client(proxy) as connection:
        connection.sendall(b"hel")
        assert connection.recv(3, socket.MSG_WAITALL) == b"hel"
        connection.sendall(b"lo")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    counters = proxy.counters
    assert (counters.bytes_to_server, counters.bytes_to_client) == passed
    assert counters.cuts == 1
    with client(proxy) as connection:
        assert ask(connection) == b"hello"


def test_refuse_and_heal_keep_the_port(proxy: FaultProxy) -> None:
    port = proxy.port
    with client(proxy) as old:
        assert ask(old) == b"hello"
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10)
        assert ask(old) == b"hello"
    proxy.heal()
    assert proxy.port == port
    with client(proxy) as connection:
        assert ask(connection) == b"hello"


def test_a_dead_server_is_a_closed_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with FaultProxy("127.0.0.1", port) as proxy, client(proxy) as connection:
        assert connection.recv(1) == b""


def test_leaves_no_thread_and_no_socket(echo: Echo) -> None:
    before = {thread.name for thread in threading.enumerate()}
    with FaultProxy("127.0.0.1", echo.port) as proxy, client(proxy) as connection:
        assert ask(connection) == b"hello"
        port = proxy.port
        proxy.swallow()
        proxy.stop()
        assert proxy.counters.connections == 1
        with pytest.raises(RuntimeError, match="not running"):
            proxy.heal()
        with pytest.raises(ConnectionError):
            socket.create_connection(("127.0.0.1", port), timeout=10)
    assert "fault-proxy" not in {thread.name for thread in threading.enumerate()} - before


def test_the_acknowledgement_of_a_commit_is_lost(lake: Lake) -> None:
    lake.admin.execute("CREATE TABLE IF NOT EXISTS public.acknowledged (n int)")
    lake.admin.execute("TRUNCATE public.acknowledged; GRANT ALL ON public.acknowledged TO public")
    with FaultProxy(lake.server.host, lake.server.port) as proxy:
        connection = lake.connect(port=proxy.port)
        connection.execute("INSERT INTO acknowledged VALUES (1)")
        proxy.cut_after(0, direction="to_client")
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
        connection.close()
    eventually(lambda: lake.admin.execute("SELECT n FROM acknowledged") == [(1,)])
    lake.admin.execute("DROP TABLE acknowledged")
