"""Nothing that Airflow writes down shows a token or a client secret."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from airflow.sdk.log import redact

from lakebase_provider.core.errors import LakebaseError
from lakebase_provider.core.tokens.token import Token
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import HOME, DagLoader, connection_fields, define, metadata_database

# dag.test() runs Airflow's own API server in this process, by starlette's test client.
pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")

#: At DEBUG, dag.test()'s stand-in for the supervisor logs the very request to mask a value, with the value.
AIRFLOWS_OWN = "msg=MaskSecret("


def minted(hook: LakebaseHook) -> list[str]:
    """The values of all tokens that are minted from now on, and of the one that is there."""
    values: list[str] = []

    def remember(token: Token) -> None:
        values.append(token.reveal())

    hook.client.tokens.on_mint(remember)
    return values


def test_tokens_and_secrets_are_masked_before_they_are_used(lake: LocalLakebase) -> None:
    hook = LakebaseHook()
    tokens = minted(hook)
    hook.get_first("select 1")
    hook.client.tokens.invalidate(hook.client.tokens.get().fingerprint)
    hook.client.tokens.get()
    assert len(set(tokens)) == 2
    for secret in (*tokens, lake.client_secret):
        assert secret not in str(redact(f"a line with {secret} in it"))


def test_a_native_password_is_masked(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch, conn_type="lakebase", host="localhost", login="app", password="native-canary",
           extra={"auth": "password"})  # fmt: skip
    assert LakebaseHook().config.password is not None
    assert "native-canary" not in str(redact("a line with native-canary in it"))


def log_files() -> str:
    return "".join(path.read_text(errors="replace") for path in Path(HOME).rglob("*.log"))


def run_example(lake: LocalLakebase, dag_of: DagLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEBASE_EXAMPLE_ORDERS", "20")
    LakebaseHook().run("drop schema if exists etl_airflow cascade")
    assert dag_of("lakebase_etl").test().state == "success"


def run_with_a_refused_login(lake: LocalLakebase, dag_of: DagLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch, **connection_fields(lake, login="nobody", extra={"client_id": lake.client_id}))
    assert dag_of("kills").test().state == "failed"


def run_with_a_wrong_statement(
    lake: LocalLakebase, dag_of: DagLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    dag = dag_of("kills")
    dag.task_dict["too_long"].sql = "select no_such_column"
    assert dag.test().state == "failed"


@pytest.mark.parametrize("run", [run_example, run_with_a_refused_login, run_with_a_wrong_statement])
def test_the_canary_shows_nowhere(
    lake: LocalLakebase,
    dag_of: DagLoader,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    run: Callable[[LocalLakebase, DagLoader, pytest.MonkeyPatch], None],
) -> None:
    caplog.set_level(logging.DEBUG)
    before = lake.admin.counters().mints
    hook = LakebaseHook()
    hook.client.tokens.invalidate(hook.client.tokens.get().fingerprint)
    tokens = minted(hook)
    run(lake, dag_of, monkeypatch)
    if run is run_with_a_refused_login:
        tokens += minted(LakebaseHook())
        with pytest.raises(LakebaseError) as caught:
            LakebaseHook().get_conn()
        shown = [repr(caught.value), str(caught.value), repr(caught.value.__cause__)]
    else:
        shown = []
    assert tokens, "no token was minted, so nothing was tested"
    assert lake.admin.counters().mints > before
    hook = LakebaseHook()
    captured = capfd.readouterr()
    shown += [captured.out, captured.err, caplog.text, log_files(), repr(hook), repr(vars(hook.client))]
    shown += [repr(hook.config), repr(hook.sqlalchemy_url), hook.get_uri()]
    stored = metadata_database()
    for secret in (*tokens, lake.client_secret):
        lines = [line[:400] for text in shown for line in text.splitlines() if secret in line]
        assert not [line for line in lines if AIRFLOWS_OWN not in line]
        assert secret.encode() not in stored
