from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import socket
import ssl
import subprocess
import sys
import threading

import psycopg
import pytest

from tests.eventually import eventually

from .conftest import Lake

#: Bytes: many times what any buffer on the way holds.
SIZE = 48 << 20


def test_copy_in_and_out_keeps_every_byte(lake: Lake) -> None:
    source = random.Random(7)  # noqa: S311
    sent, received = hashlib.sha256(), hashlib.sha256()
    with lake.connect() as connection:
        connection.execute("CREATE TEMPORARY TABLE big (line text)")
        with connection.cursor() as cursor:
            with cursor.copy("COPY big FROM STDIN") as copy:
                for _ in range(SIZE >> 20):
                    lines = source.randbytes(1 << 18).hex("\n", 97).encode() + b"\n"
                    sent.update(lines)
                    copy.write(lines)
            with cursor.copy("COPY big TO STDOUT") as copy:
                for block in copy:
                    received.update(block)
    assert received.digest() == sent.digest()


def test_a_slow_reader_holds_the_server_back(lake: Lake) -> None:
    with lake.connect() as connection, connection.cursor() as cursor:
        pid = connection.info.backend_pid
        with cursor.copy("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT") as copy:
            first = copy.read()
            # Nobody reads: the backend must come to wait for its client, instead of the relay taking all in.
            eventually(
                lambda: (
                    lake.admin.execute("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", (pid,))
                    == [("ClientWrite",)]
                )
            )
            total = len(first) + sum(len(block) for block in copy)
    assert total == 100_000 * 1001


def test_cancel_in_plaintext_and_in_tls(lake: Lake) -> None:
    for method in ("cancel", "cancel_safe"):
        with lake.connect(autocommit=True) as connection:
            pid = connection.info.backend_pid

            def stop(
                name: str = method, one: psycopg.Connection[object] = connection, pid: int = pid
            ) -> None:
                eventually(
                    lambda: (
                        lake.admin.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", (pid,))
                        == [("active",)]
                    )
                )
                getattr(one, name)()

            thread = threading.Thread(target=stop)
            thread.start()
            with pytest.raises(psycopg.errors.QueryCanceled):
                connection.execute("SELECT pg_sleep(600)")
            thread.join()
    assert lake.admin.counters().cancels == 2


def test_async_clients(lake: Lake) -> None:
    token = lake.mint()

    async def one(number: int) -> int:
        connection = await psycopg.AsyncConnection.connect(**lake.parameters(token))
        async with connection:
            row = await (await connection.execute("SELECT %s::int", (number,))).fetchone()
        assert row is not None
        return int(row[0])

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(one(number) for number in range(40)))

    assert asyncio.run(all_of_them()) == list(range(40))


def test_listen_and_notify(lake: Lake) -> None:
    token = lake.mint()
    with lake.connect(token, autocommit=True) as listener, lake.connect(token, autocommit=True) as speaker:
        listener.execute("LISTEN news")
        speaker.execute("NOTIFY news, 'hello'")
        assert [note.payload for note in listener.notifies(timeout=15, stop_after=1)] == ["hello"]


def test_a_vanished_client_leaves_no_backend(lake: Lake) -> None:
    program = (
        "import json, sys, psycopg; c = psycopg.connect(**json.loads(sys.stdin.readline())); "
        "print(c.info.backend_pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        print(json.dumps(lake.parameters()), file=client.stdin, flush=True)
        pid = int(client.stdout.readline())
        assert lake.admin.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,))
        client.kill()
    eventually(lambda: not lake.admin.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)))
    eventually(lambda: lake.admin.counters().open_connections == 0)


@pytest.mark.parametrize(
    "first_bytes",
    [b"", b"\0", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\0\0\0\x08\0\0\0\0"],
)
def test_nonsense_does_not_disturb_the_others(lake: Lake, first_bytes: bytes) -> None:
    with socket.create_connection(("127.0.0.1", lake.server.port), timeout=10) as stranger:
        stranger.sendall(first_bytes)
        with contextlib.suppress(OSError):
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(4096):
                pass
    lake.connect().close()


def test_direct_tls_needs_the_postgresql_protocol(lake: Lake) -> None:
    context = ssl.create_default_context(cafile=lake.server.ca_path)
    with (
        socket.create_connection(("127.0.0.1", lake.server.port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
        contextlib.suppress(ConnectionError, ssl.SSLError),
    ):
        assert tls.recv(1) == b""
