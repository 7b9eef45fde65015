"""A workspace that takes for ever, or sends without end: it costs a deadline and little memory."""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import trustme

from lakebase_provider.core import LakebaseConfig, LakebaseError
from lakebase_provider.core.base.clock import Clock
from lakebase_provider.core.base.single_flight import LONGEST_ATTEMPT, MOST_ABANDONED, SingleFlight
from lakebase_provider.core.connect.target import TargetResolver
from lakebase_provider.core.errors import (
    ControlPlaneError,
    ControlPlaneTimeoutError,
    ControlPlaneUnavailableError,
    PermissionDeniedError,
)
from lakebase_provider.core.tokens.cache import TokenProvider
from lakebase_provider.core.tokens.minters import minter_for
from lakebase_provider.core.tokens.token import Token
from lakebase_provider.core.workspace.http_limits import LARGEST_ANSWER
from lakebase_provider.core.workspace.rest import RestTransport
from lakebase_provider.core.workspace.sdk import SdkTransport
from lakebase_provider.core.workspace.workspace import ControlPlane, Transport
from tests.core.fake_clock import FakeClock
from tests.eventually import BUSY, eventually
from tests.security.hostile_workspace import (
    CREDENTIALS,
    DISCOVERY,
    ENDPOINT,
    OAUTH_SERVER,
    RESOURCE,
    TOKEN,
    HostileWorkspace,
    reply,
)

SHORT = 0.5
WAYS: dict[str, Callable[[LakebaseConfig], Transport]] = {
    "rest": lambda config: RestTransport(config, timeout=SHORT),
    "sdk": lambda config: SdkTransport(config, timeout=SHORT),
}


@pytest.fixture(autouse=True)
def _no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "none"))


@pytest.fixture
def workspace() -> Iterator[HostileWorkspace]:
    with HostileWorkspace() as server:
        yield server


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def with_token(workspace: HostileWorkspace) -> LakebaseConfig:
    return workspace.config(client_id=None, client_secret=None, token="a-token", user="u")


def ask(transport: Transport) -> None:
    transport.send("a database credential", "POST", CREDENTIALS, {"endpoint": ENDPOINT})


def trickle(handler: BaseHTTPRequestHandler, text: bytes) -> None:
    """Never more than a moment of silence, and never an end."""
    pause = threading.Event()
    while not pause.wait(0.05):
        try:
            handler.wfile.write(text)
        except OSError:
            return


def dripping_body(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    trickle(handler, b" ")


def dripping_chunks(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    trickle(handler, b"1\r\n \r\n")


def dripping_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    trickle(handler, b"a")


def dripping_status(handler: BaseHTTPRequestHandler) -> None:
    trickle(handler, b"H")


def always_continue(handler: BaseHTTPRequestHandler) -> None:
    trickle(handler, b"HTTP/1.1 100 Continue\r\n\r\n")


def silent(handler: BaseHTTPRequestHandler) -> None:
    threading.Event().wait(60)


DRIPS = [dripping_body, dripping_chunks, dripping_headers, dripping_status, always_continue, silent]


@contextlib.contextmanager
def soon(seconds: float = 3.0 + BUSY) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


@pytest.mark.parametrize("drip", DRIPS)
@pytest.mark.parametrize("way", WAYS)
def test_an_answer_that_drips_ends_at_the_deadline(
    workspace: HostileWorkspace, way: str, drip: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    workspace.answers[CREDENTIALS] = drip
    transport = WAYS[way](with_token(workspace))
    # The SDK's first import takes its time.
    workspace.answers["/"] = {}
    transport.send("nothing", "GET", "/")
    with soon(), pytest.raises((ControlPlaneTimeoutError, ControlPlaneUnavailableError)) as caught:
        ask(transport)
    assert caught.value.retryable


@pytest.mark.parametrize("path", [DISCOVERY, OAUTH_SERVER, TOKEN])
def test_signing_in_has_part_in_the_deadline(workspace: HostileWorkspace, path: str) -> None:
    workspace.answers[path] = dripping_body
    with soon(), pytest.raises(ControlPlaneTimeoutError):
        ask(RestTransport(workspace.config(), timeout=SHORT))


def test_a_handshake_that_never_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        config = LakebaseConfig(
            endpoint=ENDPOINT,
            workspace_host=f"https://127.0.0.1:{mute.getsockname()[1]}",
            token="t",
            user="u",
        )
        with soon(), pytest.raises(ControlPlaneTimeoutError):
            ask(RestTransport(config, timeout=SHORT))


@pytest.fixture
def behind_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HostileWorkspace]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with HostileWorkspace(tls=context) as server:
        yield server


@pytest.mark.parametrize("way", WAYS)
def test_a_drip_through_tls(behind_tls: HostileWorkspace, way: str) -> None:
    behind_tls.answers["/"] = {}
    transport = WAYS[way](with_token(behind_tls))
    transport.send("nothing", "GET", "/")
    behind_tls.answers[CREDENTIALS] = dripping_body
    with soon(), pytest.raises(ControlPlaneTimeoutError):
        ask(transport)


def test_a_certificate_that_nobody_vouches_for(
    behind_tls: HostileWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(ControlPlaneUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        ask(RestTransport(with_token(behind_tls)))
    assert behind_tls.seen == []


def bomb(handler: BaseHTTPRequestHandler) -> None:
    reply(handler, 200, gzip.compress(bytes(200 * LARGEST_ANSWER)), Content_Encoding="gzip")


def endless_body(handler: BaseHTTPRequestHandler) -> None:
    with contextlib.suppress(OSError):
        reply(handler, 200, b" " * 50 * LARGEST_ANSWER)


def endless_chunks(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    with contextlib.suppress(OSError):
        for _ in range(1000):
            handler.wfile.write(chunk)


def endless_headers(handler: BaseHTTPRequestHandler) -> None:
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"X: " + b"a" * 60_000 + b"\r\n") * 90)
        handler.wfile.write(b"Content-Length: 2\r\n\r\n{}")


@pytest.mark.parametrize("flood", [bomb, endless_body, endless_chunks, endless_headers])
@pytest.mark.parametrize("way", WAYS)
def test_an_answer_without_end_is_broken_off(
    workspace: HostileWorkspace, way: str, flood: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    workspace.answers["/"] = {}
    transport = {"rest": RestTransport, "sdk": SdkTransport}[way](with_token(workspace))
    transport.send("nothing", "GET", "/")
    workspace.answers[CREDENTIALS] = flood
    with soon(10), pytest.raises(ControlPlaneError) as caught:
        ask(transport)
    assert not caught.value.retryable
    assert "bytes" in caught.value.message or "compressed" in caught.value.message


def test_a_bomb_is_not_unpacked(workspace: HostileWorkspace) -> None:
    packed = gzip.compress(bytes(200 * LARGEST_ANSWER))
    workspace.answers[CREDENTIALS] = lambda handler: reply(handler, 200, packed, Content_Encoding="gzip")
    transport = RestTransport(with_token(workspace))
    tracemalloc.start()
    try:
        with pytest.raises(ControlPlaneError):
            ask(transport)
        assert tracemalloc.get_traced_memory()[1] < 8 * LARGEST_ANSWER
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("way", WAYS)
def test_no_compression_is_asked_for(workspace: HostileWorkspace, way: str) -> None:
    ask({"rest": RestTransport, "sdk": SdkTransport}[way](with_token(workspace)))
    (request,) = (text for text in workspace.seen if CREDENTIALS in text)
    assert "Accept-Encoding: identity\n" in request


# --- Callers ------------------------------------------------------------------------------------------------


class Gate:
    """The network's edge: each question waits until it is let through, whoever asks."""

    def __init__(self) -> None:
        self.calls = 0
        self.opened = threading.Event()

    def ask(self) -> str:
        self.calls += 1
        number = self.calls
        assert self.opened.wait(10)
        return f"answer-{number}"

    def mint(self, clock: Clock) -> Token:
        began = clock.wall()
        return Token(self.ask(), began + 3600, began, clock.elapsed())


def threads(name: str) -> int:
    return sum(thread.name == name for thread in threading.enumerate())


def test_twenty_callers_leave_one_thread_behind(workspace: HostileWorkspace) -> None:
    workspace.answers[RESOURCE] = silent
    config = workspace.config()
    targets = TargetResolver(config, ControlPlane(config))
    before = threads("lakebase-resolve")

    def resolve(_: int) -> None:
        with pytest.raises(ControlPlaneTimeoutError, match="did not return the database's host"):
            targets.resolve(0.3)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(resolve, range(20)))
    assert threads("lakebase-resolve") - before == 1
    assert sum(RESOURCE in request for request in workspace.seen) == 1


def test_callers_share_one_question_and_its_answer() -> None:
    gate = Gate()
    flight = SingleFlight(gate.ask, thread_name="shared-question")
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(flight.get, 10.0) for _ in range(8)]
        eventually(lambda: gate.calls == 1)
        gate.opened.set()
        assert {answer.result() for answer in answers} == {"answer-1"}


def test_each_caller_gets_an_error_of_its_own() -> None:
    refusal = PermissionDeniedError("no")

    def refuse() -> str:
        raise refusal

    flight = SingleFlight(refuse, thread_name="refused-question")
    with pytest.raises(PermissionDeniedError) as caught:
        flight.get(5)
    assert caught.value is not refusal


def test_a_question_that_hangs_is_asked_anew_a_few_times(clock: FakeClock) -> None:
    gate = Gate()
    flight = SingleFlight(gate.ask, thread_name="hanging-question", clock=clock)
    for call in range(1, MOST_ABANDONED + 2):
        for _ in range(3):
            with pytest.raises(TimeoutError):
                flight.get(0.01)
        assert gate.calls == call
        clock.advance(LONGEST_ATTEMPT)
    with soon(), pytest.raises(ControlPlaneTimeoutError, match="still pending"):
        flight.get(60)
    assert threads("hanging-question") == MOST_ABANDONED + 1
    gate.opened.set()
    eventually(lambda: threads("hanging-question") == 0)
    assert flight.get(5) == f"answer-{MOST_ABANDONED + 2}"


def test_who_can_wait_gets_the_second_attempt() -> None:
    gate = Gate()

    def hang_once() -> str:
        if gate.calls == 0:
            return gate.ask()
        return "prompt"

    flight = SingleFlight(hang_once, thread_name="second-question", longest=0.2)
    with soon():
        assert flight.get(10) == "prompt"
    gate.opened.set()


def test_a_child_does_not_wait_for_its_parents_question() -> None:
    gate = Gate()
    flight = SingleFlight(gate.ask, thread_name="parents-question")
    with pytest.raises(TimeoutError):
        flight.get(0.01)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            gate.opened.set()
            os.write(write_end, flight.get(5).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        assert answer.read() == "answer-2"
    os.waitpid(child, 0)
    gate.opened.set()


def test_a_machine_without_a_thread_to_spare_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    gate = Gate()
    gate.opened.set()
    flight = SingleFlight(gate.ask, thread_name="no-thread")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(ControlPlaneUnavailableError, match="can't start new thread"):
            flight.get(5)
    assert flight.get(5) == "answer-1"


def test_a_mint_that_hangs_is_begun_anew_a_few_times(clock: FakeClock) -> None:
    gate = Gate()
    tokens = TokenProvider(gate, clock=clock)
    before = threads("lakebase-mint")
    for call in range(1, MOST_ABANDONED + 2):
        for _ in range(3):
            with pytest.raises(ControlPlaneTimeoutError, match=r"within 0\.0 s"):
                tokens.get(timeout=0.01)
        assert gate.calls == call
        clock.advance(LONGEST_ATTEMPT)
    with soon(), pytest.raises(ControlPlaneTimeoutError, match="still pending"):
        tokens.get(timeout=60)
    assert threads("lakebase-mint") - before == MOST_ABANDONED + 1
    gate.opened.set()
    eventually(lambda: threads("lakebase-mint") == before)
    # Of all that came late, what was begun last was still waited for.
    assert tokens.get(timeout=5).reveal() == f"answer-{MOST_ABANDONED + 1}"
    assert tokens.stats().mints == 1


def test_who_can_wait_gets_the_token_of_the_second_attempt() -> None:
    gate = Gate()

    class HangsOnce:
        def mint(self, clock: Clock) -> Token:
            if gate.calls == 0:
                return gate.mint(clock)
            return Token("prompt", clock.wall() + 3600, clock.wall(), clock.elapsed())

    tokens = TokenProvider(HangsOnce(), longest_attempt=0.2)
    with soon():
        assert tokens.get(timeout=10).reveal() == "prompt"
    gate.opened.set()
    eventually(lambda: tokens._stragglers._count == 0)
    assert tokens.get().reveal() == "prompt"


async def test_coroutines_get_the_second_attempt_too() -> None:
    gate = Gate()

    class HangsOnce:
        def mint(self, clock: Clock) -> Token:
            if gate.calls == 0:
                return gate.mint(clock)
            return Token("prompt", clock.wall() + 3600, clock.wall(), clock.elapsed())

    tokens = TokenProvider(HangsOnce(), longest_attempt=0.2)
    assert (await tokens.aget(timeout=10)).reveal() == "prompt"
    gate.opened.set()


def test_a_valid_token_is_served_whatever_its_renewals_do(clock: FakeClock) -> None:
    gate = Gate()
    gate.opened.set()
    tokens = TokenProvider(gate, clock=clock)
    assert tokens.get().reveal() == "answer-1"
    gate.opened.clear()
    clock.advance(3600 * 0.85)
    for _ in range(6):
        assert tokens.get(timeout=0).reveal() == "answer-1"
        clock.advance(LONGEST_ATTEMPT)
    eventually(lambda: gate.calls == 2 + MOST_ABANDONED)
    gate.opened.set()


def test_dripping_blocks_minting_no_longer_than_the_deadline(workspace: HostileWorkspace) -> None:
    config = with_token(workspace)
    control_plane = ControlPlane(config)
    control_plane._transport = RestTransport(config, timeout=SHORT)
    tokens = TokenProvider(minter_for(config, control_plane))
    honest, workspace.answers[CREDENTIALS] = workspace.answers[CREDENTIALS], dripping_body
    with pytest.raises(LakebaseError):
        tokens.get(timeout=0.2)
    workspace.answers[CREDENTIALS] = honest
    with soon(8):
        assert tokens.get(timeout=10).reveal() == "database-token"
