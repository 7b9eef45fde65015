"""A server or a workspace that repeats a secret, as it was sent or as something else writes it."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.errors import LakebaseError
from lakebase_provider.core.errors.redaction import redacted

from .hostile_workspace import CREDENTIALS, HostileWorkspace
from .lying_server import LyingServer, message

PASSWORD = "a-password"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[LakebaseClient]:
    with LyingServer(tmp_path) as server:
        fields = b"".join(kind.encode() + PASSWORD.encode() + b"\0" for kind in "MDHWPpqstcdnFLR")
        server.refusal = message(b"E", b"SERROR\0VERROR\0C42601\0" + fields + b"\0")
        with LakebaseClient(server.config()) as found:
            yield found


def by_block(client: LakebaseClient) -> Any:
    with client.connection() as connection:
        connection.execute("SELECT 1")


def by_a_transactions_block(client: LakebaseClient) -> Any:
    with client.connection() as connection, connection.transaction():
        connection.execute("SELECT 1")


@pytest.mark.parametrize(
    "work",
    [
        by_block,
        by_a_transactions_block,
        lambda client: client.fetch_arrow("SELECT 1"),
        lambda client: client.load([(1,)], "t"),
        lambda client: client.run_transaction(lambda connection: connection.execute("SELECT 1")),
    ],
)
def test_a_server_that_repeats_the_password_shows_none(
    client: LakebaseClient, work: Callable[[LakebaseClient], Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with pytest.raises((LakebaseError, psycopg.Error)) as caught:
        work(client)
    error: BaseException | None = caught.value
    while error is not None:
        assert PASSWORD not in f"{error} {error.args}"
        if isinstance(error, psycopg.Error):
            told = [getattr(error.diag, name) for name in dir(error.diag) if not name.startswith("_")]
            assert PASSWORD not in str(told)
        error = error.__cause__ or error.__context__
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("before", ["", "i:", "id:", "client:"])
def test_a_secret_in_other_words_is_struck_out(before: str) -> None:
    value = 'dose+of/the=canary~"1'
    secret = Secret(value)
    coded = base64.b64encode((before + value).encode()).decode()
    core = base64.b64encode(value.encode()).decode()
    encoded = value.encode().hex()
    percent = "".join(f"%{encoded[at : at + 2]}" for at in range(0, len(encoded), 2))
    hexadecimal = (encoded, encoded.upper(), percent, percent.upper())
    for text in (value, quote(value, safe=""), quote_plus(value), json.dumps(value), coded, *hexadecimal):
        assert "***" in redacted(f"the text {text} ends")
    assert coded not in redacted(f"x {coded} y")
    assert core[4:16] not in redacted(core)
    assert secret.has_value


@given(value=st.text(st.characters(exclude_categories=()), min_size=6))
def test_any_text_that_is_a_secret_is_struck_out_and_hinders_no_error(value: str) -> None:
    secret = Secret(value)
    assert value not in redacted(f"<{value}>")
    assert secret.has_value


def test_a_time_that_is_the_token_stays_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEBASE_ALLOW_LOOPBACK", "1")
    with HostileWorkspace() as workspace:
        workspace.answers[CREDENTIALS] = {"token": "tok-canary-tok", "expire_time": "tok-canary-tok"}
        with pytest.raises(LakebaseError, match="is no readable time") as caught:
            LakebaseClient(workspace.config()).tokens.get(5)
    error: BaseException | None = caught.value
    while error is not None:
        assert "canary" not in f"{error} {error.args}"
        error = error.__cause__ or error.__context__


def test_secrets_are_struck_out_while_another_thread_makes_some() -> None:
    # Each error of a workspace or server goes through here, while other threads mint their tokens.
    done = threading.Event()

    def make() -> None:
        kept: list[Secret] = []
        while not done.is_set():
            kept = [Secret(f"of-another-thread-{number}") for number in range(50)]
        assert kept

    secret, maker = Secret("of-this-thread-4711"), threading.Thread(target=make)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    maker.start()
    try:
        for _ in range(300):
            assert secret.reveal() not in redacted(f"it was {secret.reveal()}")
    finally:
        done.set()
        maker.join()
        sys.setswitchinterval(before)
