"""A sign-in that is interrupted, as by a task's timeout: its frames show no secret."""

from __future__ import annotations

import base64
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from traceback import TracebackException

import pytest

from lakebase_provider.core.workspace.rest import RestTransport
from lakebase_provider.core.workspace.sdk import SdkTransport
from tests.security.hostile_workspace import SECRET, TOKEN, HostileWorkspace

MAIN = threading.main_thread().ident or 0


class Interrupted(BaseException):
    """As Airflow's and Dagster's: no Exception, which a library would catch."""


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """Ends what a workspace's answer waits for; until then SIGUSR1 interrupts the main thread."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    found, former = threading.Event(), signal.signal(signal.SIGUSR1, interrupt)
    try:
        yield found
    finally:
        found.set()
        signal.signal(signal.SIGUSR1, former)


@pytest.mark.parametrize("kind", [RestTransport, SdkTransport])
def test_a_sign_in_that_is_interrupted_shows_no_secret(
    over: threading.Event, kind: type[RestTransport] | type[SdkTransport]
) -> None:
    def never(_: BaseHTTPRequestHandler) -> None:
        signal.pthread_kill(MAIN, signal.SIGUSR1)
        over.wait(60)

    with HostileWorkspace() as workspace:
        workspace.answers[TOKEN] = never
        transport = kind(workspace.config())
        with pytest.raises(Interrupted) as caught:
            transport.send("a token", "POST", "/api/2.0/postgres/credentials", {})
        over.set()
        assert any(base64.b64encode(f"client:{SECRET}".encode()).decode() in seen for seen in workspace.seen)
    shown = "".join(TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "in send" in shown
    assert SECRET not in shown
    assert base64.b64encode(f"client:{SECRET}".encode()).decode() not in shown
