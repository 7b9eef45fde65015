"""What strangers on this machine, and web pages in its browsers, can send to a local Lakebase."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from lakebase_provider.local.frontend import frontend
from lakebase_provider.local.identity import certificates
from lakebase_provider.local.network import http_limits
from lakebase_provider.local.network.ports import bind_loopback
from lakebase_provider.local.network.waiting_room import WaitingRoom
from lakebase_provider.local.server import service
from lakebase_provider.local.workspace.state import Workspace
from tests.eventually import eventually


def exchange(port: int, data: bytes, *, timeout: float = 30.0) -> bytes:
    """Send bytes to the HTTP side, and return all that it answers until it hangs up or falls silent."""
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        answer = b""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65_536):
                answer += part
        return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def request(path: str, host: str | None, *, method: str = "GET", more: str = "", body: bytes = b"") -> bytes:
    named = "" if host is None else f"Host: {host}\r\n"
    head = f"{method} {path} HTTP/1.0\r\n{named}{more}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


CONFIG = "/.well-known/databricks-config"
#: Of a body of which less will come.
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n"
SSL_REQUEST = struct.pack("!ii", 8, 80877103)


@pytest.mark.parametrize(
    "path", [CONFIG, "/_local/ping", "/oidc/v1/token", "/api/2.0/postgres/projects", "/none"]
)
def test_a_request_for_another_host_is_refused(lakebase_env: LocalLakebase, path: str) -> None:
    port, key = lakebase_env.http_port, lakebase_env.running.admin_key
    here = f"127.0.0.1:{port}"
    foreign: list[str | None] = [
        f"evil.example:{port}", "evil.example", f"127.0.0.1.evil.example:{port}",
        f"localhost.evil.example:{port}", f"evil.example@{here}", f"{here}@evil.example",
        f"{here}.evil.example", f"{here}/x", f"127.0.0.1:{port + 1}", "127.0.0.1", f"0.0.0.0:{port}",
        f"[::2]:{port}", f"127.0.0.1 evil.example:{port}", "", None,
    ]  # fmt: skip
    for host in foreign:
        for method in ("GET", "POST"):
            sent = request(path, host, method=method, more=f"X-Local-Admin-Key: {key}\r\n", body=b"{}")
            answer = exchange(port, sent)
            assert status_of(answer) in (400, 421), host
            assert b"evil" not in answer
    both = request(path, f"127.0.0.1:{port}", more="Host: evil.example\r\n")
    assert status_of(exchange(port, both)) in (400, 421)
    assert not [entry for entry in lakebase_env.admin.requests() if entry.path == path]


def test_a_request_for_its_own_names_is_answered(lakebase_env: LocalLakebase) -> None:
    port = lakebase_env.http_port
    for host in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
        answer = exchange(port, request(CONFIG, f"{host}:{port}"))
        assert status_of(answer) == 200
        assert f"http://{host}:{port}/oidc".lower().encode() in answer.lower()
    with LocalLakebase(max_connections=20, host="lake.localhost") as lake:
        for name, status in (("lake.localhost", 200), ("sea.localhost", 421)):
            answer = exchange(lake.http_port, request(CONFIG, f"{name}:{lake.http_port}"))
            assert status_of(answer) == status


def test_a_forwarded_host_or_scheme_is_not_believed(lakebase_env: LocalLakebase) -> None:
    port = lakebase_env.http_port
    more = "X-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https\r\nForwarded: host=evil.example\r\n"
    answer = exchange(port, request(CONFIG, f"127.0.0.1:{port}", more=more))
    assert f'"http://127.0.0.1:{port}/oidc"'.encode() in answer


@pytest.mark.parametrize("path", ["/oidc/v1/token", "/_local/ping", "/api/2.0/postgres/credentials"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_refused(lakebase_env: LocalLakebase, path: str, chunked: bool) -> None:
    port = lakebase_env.http_port
    key, pat = lakebase_env.running.admin_key, lakebase_env.pat
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Local-Admin-Key: {key}\r\n"
        f"Authorization: Bearer {pat}\r\nConnection: close\r\n"
    )
    if chunked:
        piece = b"10000\r\n" + b" " * 65_536 + b"\r\n"
        sent = head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + piece * 32 + b"0\r\n\r\n"
    else:
        sent = head.encode() + b"Content-Length: 2000000\r\n\r\n" + b" " * 2_000_000
    answer = exchange(port, sent)
    # Who is still sending may find the connection closed before the answer.
    assert answer == b"" or status_of(answer) == 413
    log = [entry for entry in lakebase_env.admin.requests() if entry.path == path]
    assert [entry.status for entry in log] in ([], [413])


@pytest.mark.parametrize("line", ["X: {}", "{}: x", "Cookie: {}"])
def test_a_large_head_is_refused(lakebase_env: LocalLakebase, line: str) -> None:
    port = lakebase_env.http_port
    sent = request(CONFIG, f"127.0.0.1:{port}", more=line.format("a" * 100_000) + "\r\n")
    answer = exchange(port, sent)
    assert answer == b"" or status_of(answer) in (400, 431)
    assert lakebase_env.admin.requests() == []


def test_a_deep_body_is_a_bad_request(lakebase_env: LocalLakebase) -> None:
    port = lakebase_env.http_port
    # The log, too, looks into a body that is not long.
    for path, body in product(
        ("/_local/ping", "/api/2.0/postgres/credentials"), (b"[" * 8_000, b"[" * 200_000)
    ):
        more = f"X-Local-Admin-Key: {lakebase_env.running.admin_key}\r\n"
        more += f"Authorization: Bearer {lakebase_env.pat}\r\n"
        answer = exchange(port, request(path, f"127.0.0.1:{port}", method="POST", more=more, body=body))
        assert status_of(answer) == 400
    assert [entry.body for entry in lakebase_env.admin.requests()] == [None, None]


def test_the_log_keeps_little_of_a_request(lakebase_env: LocalLakebase) -> None:
    port = lakebase_env.http_port
    more = f"User-Agent: {'u' * 20_000}\r\nAuthorization: Bearer {lakebase_env.pat}\r\n"
    body = b'{"endpoint": "' + b"x" * 500_000 + b'"}'
    for path in ("/" + "p" * 8_000, "/api/2.0/postgres/credentials"):
        exchange(port, request(path, f"127.0.0.1:{port}", method="POST", more=more, body=body))
    assert [len(f"{entry}") < 2_000 for entry in lakebase_env.admin.requests()] == [True, True]


def open_fully(port: int, count: int, first: bytes) -> contextlib.ExitStack:
    """Connections that begin to say something, and then nothing more."""
    stack = contextlib.ExitStack()
    for _ in range(count):
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
        with contextlib.suppress(OSError):
            connection.sendall(first)
    return stack


def file_descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
@pytest.mark.parametrize(
    "first", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx"]
)
def test_many_unfinished_requests_keep_nobody(lakebase_env: LocalLakebase, first: bytes) -> None:
    before = file_descriptors(lakebase_env.pid)
    with open_fully(lakebase_env.http_port, 600, first):
        assert lakebase_env.admin.ping() == lakebase_env.pid
        assert file_descriptors(lakebase_env.pid) - before < 300
    eventually(lambda: file_descriptors(lakebase_env.pid) < before + 20)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"\0\0\0",
        struct.pack("!ii", 8, 80877103),
        b"\x16\x03\x01",
        struct.pack("!ii", 9_000, 196608) + b"x",
    ],
)
def test_many_unfinished_logins_keep_nobody(lakebase_env: LocalLakebase, first: bytes) -> None:
    before = file_descriptors(lakebase_env.pid)
    with open_fully(lakebase_env.port, 600, first):
        with LakebaseClient(lakebase_env.config()) as client, client.connection() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert file_descriptors(lakebase_env.pid) - before < 300
    eventually(lambda: file_descriptors(lakebase_env.pid) < before + 20)


def behind_tls(lake: LocalLakebase) -> ssl.SSLSocket:
    """A client of the front end that has yet to say who it is."""
    connection = socket.create_connection(("127.0.0.1", lake.port), 30)
    connection.sendall(SSL_REQUEST)
    assert connection.recv(1) == b"S"
    return ssl.create_default_context(cafile=lake.ca_path).wrap_socket(
        connection, server_hostname="localhost"
    )


STARTUP = struct.pack("!ii", 23, 196608) + b"user\0stranger\0\0"[:15]


@pytest.mark.parametrize(
    "startup",
    [struct.pack("!ii", length, 196608) for length in (-1, 0, 7, 10_001, 2**31 - 1)],
)
def test_a_lying_startup_packet_is_not_waited_for(lakebase_env: LocalLakebase, startup: bytes) -> None:
    with behind_tls(lakebase_env) as client:
        client.sendall(startup)
        assert client.recv(1) == b""
    with socket.create_connection(("127.0.0.1", lakebase_env.port), 30) as plain:
        plain.sendall(startup)
        assert plain.recv(1) == b""


@pytest.mark.parametrize("size", [-1, 0, 3, 65_537, 2**31 - 1])
def test_a_lying_password_message_is_not_waited_for(lakebase_env: LocalLakebase, size: int) -> None:
    with behind_tls(lakebase_env) as client:
        client.sendall(STARTUP)
        assert client.recv(9)[:1] == b"R"
        client.sendall(b"p" + struct.pack("!i", size))
        assert client.recv(1) == b""


async def drip(port: int, start: bytes, drop: bytes) -> bytes:
    """Send a drop each time that no answer comes for a moment, until the other side hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(start)
    answer = b""
    try:
        while True:
            try:
                part = await asyncio.wait_for(reader.read(65_536), 0.02)
            except asyncio.TimeoutError:
                writer.write(drop)
                continue
            answer += part
            if not part:
                return answer
    except ConnectionResetError:
        return answer
    finally:
        writer.close()


@pytest.mark.parametrize(
    "start",
    [b"", b"GET / HTTP/1.1\r\nX: ", POST],
)
async def test_a_request_that_drips_is_ended(monkeypatch: pytest.MonkeyPatch, start: bytes) -> None:
    monkeypatch.setattr(http_limits, "_PATIENCE", 0.3)
    answered = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        answered.append(scope)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_config=None, lifespan="off", **http_limits.LIMITS)
        server = service._HttpServer(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        port = listener.getsockname()[1]
        assert await asyncio.wait_for(drip(port, start, b"x"), 20) == b""
        server.should_exit = True
        await serving


@pytest.mark.parametrize("start", [b"", struct.pack("!ii", 9_000, 196608), b"\x16\x03\x01\x20\x00\x01"])
async def test_a_login_that_drips_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, start: bytes
) -> None:
    monkeypatch.setattr(frontend, "_LOGIN_TIMEOUT", 0.3)
    workspace = Workspace(host="localhost", token_lifetime=60, pg_version=16)
    issued = certificates.issue(tmp_path, "localhost", keep=False)
    front = frontend.Frontend(workspace, issued, str(tmp_path / "none"))
    [listener, *others] = bind_loopback(0, what="port")
    port = listener.getsockname()[1]
    front.start([listener, *others])
    assert await asyncio.wait_for(drip(port, start, b"\0"), 20) == b""
    await front.stop()


async def test_who_waits_too_long_is_ended() -> None:
    room = WaitingRoom(3)
    ended: list[str] = []
    for guest in ("slow", "drips"):
        room.enter(guest, partial(ended.append, guest), patience=0.05)
    room.enter("patient", partial(ended.append, "patient"), patience=60)
    while len(ended) < 2:
        await asyncio.sleep(0)
    assert ended == ["slow", "drips"]
    # A full room has a seat for the next.
    for guest in ("a", "b", "c"):
        room.enter(guest, partial(ended.append, guest), patience=60)
    assert ended == ["slow", "drips", "patient"]
    room.leave("a")
    room.enter("d", partial(ended.append, "d"), patience=60)
    assert ended == ["slow", "drips", "patient"]
