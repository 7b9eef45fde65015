"""No text that reaches libpq or a header of HTTP holds a control character: a NUL ends libpq's string."""

from __future__ import annotations

import json
import logging
import traceback
from typing import Any

import pytest
from airflow.sdk import Connection
from hypothesis import given
from hypothesis import strategies as st
from psycopg import pq
from psycopg.conninfo import make_conninfo

from dagster_lakebase import LakebaseResource
from lakebase_provider._airflow.connection.settings import ConnectionSettings
from lakebase_provider._airflow.connection.stored_connection import StoredConnection
from lakebase_provider.core import LakebaseClient, LakebaseConfig, Secret, Token
from lakebase_provider.core.base.clock import SYSTEM_CLOCK, Clock
from lakebase_provider.core.base.plain_text import flaw
from lakebase_provider.core.config import setting, settings
from lakebase_provider.core.errors import ConfigError, LakebaseError
from lakebase_provider.core.tokens.cache import TokenProvider
from lakebase_provider.local import LocalLakebase

from .listener import Listener

ENDPOINT = "projects/p/branches/b/endpoints/e"
TEXTS = [row.name for row in settings() if row.kind in ("string", "secret")]
CONTROLS = ["\0", "\n", "\r", "\t", "\x1b", "\x7f", "\x85", "\u2028", "\ud800", "\udcff"]
#: What makes each setting a right one but for the character in it.
VALUES = {
    "endpoint": ENDPOINT,
    "instance": "an-instance",
    "host": "w.databricks.com",
    "workspace_host": "https://w.databricks.com",
    "access": "read_write",
    "auth": "oauth",
    "credential_store": "off",
    "sslmode": "require",
}


def mapping_with(name: str, value: object) -> dict[str, Any]:
    beside: dict[str, dict[str, Any]] = {
        "instance": {},
        "password": {"auth": "password", "user": "u", "host": "w.databricks.com"},
        "client_secret": {"client_id": "c", "workspace_host": "https://w.databricks.com"},
        "token": {"workspace_host": "https://w.databricks.com"},
        "azure_client_secret": {"azure_client_id": "a"},
    }
    target = {} if name in ("instance", "password") else {"endpoint": ENDPOINT}
    return {**target, **beside.get(name, {}), name: value}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("control", CONTROLS, ids=lambda c: f"U+{ord(c):04X}")
def test_a_text_setting_holds_no_control_character(name: str, control: str) -> None:
    value = f"{VALUES.get(name, 'canary')}{control} sslmode=disable"
    mapping = mapping_with(name, value)
    for build in (
        lambda: LakebaseConfig.from_mapping(mapping),
        lambda: LakebaseConfig(**mapping),
        lambda: LakebaseConfig.from_env({}, **mapping),
    ):
        with pytest.raises(ConfigError, match=f"'{name}'") as caught:
            build()
        assert "canary" not in str(caught.value)
        # Nothing that acts upon the terminal or the log in which it is read.
        assert flaw(caught.value.message + caught.value.remedy) is None
    if control != "\0" and not control.startswith(("\ud800", "\udcff")):
        for variable in setting(name).env[:1]:
            # The setting that the variable means, for a password does not count with OAuth.
            environ = {variable: value, "LAKEBASE_AUTH": mapping.get("auth", "oauth")}
            with pytest.raises(ConfigError):
                LakebaseConfig.from_env({"PGUSER": "u", "ENDPOINT_NAME": ENDPOINT, **environ})


@pytest.mark.parametrize("name", ["host", "schema", "login", "password"])
def test_an_airflow_connections_columns_hold_none(name: str) -> None:
    extra = json.dumps({"endpoint": ENDPOINT, "auth": "password"})
    fields: dict[str, Any] = {
        "host": "w.databricks.com",
        "schema": "db",
        "login": "u",
        "password": "canary-word",
    }
    fields[name] += "\0 sslmode=disable"
    stored = StoredConnection.read(Connection(conn_id="c", conn_type="lakebase", extra=extra, **fields))
    with pytest.raises(ConfigError, match=r"U\+0000") as caught:
        ConnectionSettings(stored, {}).config()
    assert "canary" not in str(caught.value)


def test_a_templated_override_holds_none(lakebase_env: LocalLakebase) -> None:
    """As an operator hands a rendered field on: `hook_params={"database": "{{ params.database }}"}`."""
    from lakebase_provider.hooks.lakebase import LakebaseHook

    hook = LakebaseHook("lakebase_default", database="sales\0 host=evil.example sslmode=disable")
    with pytest.raises(ConfigError, match="'database'"):
        hook.get_conn()
    with pytest.raises(ConfigError, match="'database'"):
        LakebaseHook("lakebase_default", schema="sales\0").get_conn()


def test_a_dagster_resource_holds_none(lakebase_env: LocalLakebase) -> None:
    with pytest.raises(ConfigError, match="'application_name'"):
        _ = LakebaseResource(application_name="x\0 sslmode=disable").lakebase_config


def test_a_uri_holds_none() -> None:
    for part in ("u%00:p", "u:p%00"):
        with pytest.raises(ConfigError, match=r"U\+0000"):
            LakebaseConfig.from_uri(f"lakebase://{part}@w.databricks.com/db")
    with pytest.raises(ConfigError, match=r"U\+0000"):
        LakebaseConfig.from_uri(f"lakebase://w.databricks.com/db%00?endpoint={ENDPOINT}")
    with pytest.raises(ConfigError, match=r"U\+000A"):
        LakebaseConfig.from_uri(f"lakebase://w.databricks.com/db\n?endpoint={ENDPOINT}")


class _Mints:
    """A workspace that hands out whatever it is told to."""

    def __init__(self, value: str) -> None:
        self._value = value

    def mint(self, clock: Clock) -> Token:
        return Token(self._value, clock.wall() + 3600, clock.wall(), clock.elapsed())


@pytest.mark.parametrize("control", ["\0", "\n", "\ud800"], ids=lambda c: f"U+{ord(c):04X}")
def test_the_connector_looks_once_more(lakebase_env: LocalLakebase, control: str) -> None:
    """Whatever a token, a user or a database became on the way, TLS and the host stay what they were."""
    with Listener() as somebody_else:
        injected = f"x{control} host=127.0.0.1 port={somebody_else.port} sslmode=disable"
        tokens = TokenProvider(_Mints(f"canary{injected}"), clock=SYSTEM_CLOCK)
        with pytest.raises(ConfigError, match="password") as caught:
            LakebaseClient(lakebase_env.config(), tokens=tokens).connect(timeout=5)
        assert "canary" not in str(caught.value)
        for name in ("user", "database", "application_name"):
            config = lakebase_env.config()
            # Past the constructor, as a fault of ours would get it there.
            object.__setattr__(config, name, injected)
            with pytest.raises(ConfigError, match=r"U\+"):
                LakebaseClient(config).connect(timeout=5)
        with pytest.raises(ConfigError, match="krbsrvname"):
            LakebaseClient(lakebase_env.config()).connect(timeout=5, krbsrvname=injected)
        assert somebody_else.received == []


async def test_the_connector_for_asyncio_looks_too(lakebase_env: LocalLakebase) -> None:
    config = lakebase_env.config()
    object.__setattr__(config, "database", "x\0 sslmode=disable")
    with pytest.raises(ConfigError, match=r"dbname holds the character U\+0000"):
        await LakebaseClient(config).aconnect(timeout=5)


def test_what_is_set_in_the_configuration_is_not_set_by_connect(lakebase_env: LocalLakebase) -> None:
    client = LakebaseClient(lakebase_env.config())
    for name in ("host", "sslmode", "password", "options", "hostaddr"):
        with pytest.raises(ConfigError, match=name):
            client.connect(timeout=5, **{name: "x"})


@given(st.text(max_size=30))
def test_what_passes_reaches_libpq_whole(text: str) -> None:
    if flaw(text) is not None:
        return
    conninfo = make_conninfo(dbname=text, sslmode="verify-full")
    found = {option.keyword: option.val for option in pq.Conninfo.parse(conninfo.encode())}
    assert found[b"sslmode"] == b"verify-full"
    assert found[b"dbname"] == (text.encode() if text else b"")


@pytest.mark.parametrize("name", ["client_secret", "token", "azure_client_secret"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "  ", "\t"])
def test_white_space_that_came_with_a_paste_is_dropped_and_said_once(
    name: str, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    from lakebase_provider.core.config.field import _say_once

    _say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            config = LakebaseConfig.from_mapping(mapping_with(name, f"canary-secret{end}"))
            assert getattr(config, name) == Secret("canary-secret")
    assert [record.message for record in caplog.records] == [
        f"Ignoring white space at the end of setting '{name}'"
    ]


@pytest.mark.parametrize("name", ["client_secret", "token", "azure_client_secret", "client_id"])
@pytest.mark.parametrize(
    "wrong", ["canary secret", "canary\nsecret", "canäry", "canary\u20ac", "canary\ud800"]
)
def test_what_cannot_stand_in_a_header_is_refused_without_being_shown(name: str, wrong: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}'") as caught:
        LakebaseConfig.from_mapping(mapping_with(name, wrong))
    assert "can" not in str(caught.value).replace("cannot", "")
    assert caught.value.__cause__ is None


def test_a_native_password_may_be_any_plain_text(lakebase_env: LocalLakebase) -> None:
    word = "pässwörd with blanks  "
    lakebase_env.admin.set_native_password("plain_text", word)
    config = lakebase_env.config(
        auth="password", user="plain_text", password=word, client_id=None, client_secret=None
    )
    assert config.password == Secret(word)
    with pytest.raises(LakebaseError):
        LakebaseClient(config.replace(password=word.rstrip())).connect(timeout=3)
    with LakebaseClient(config).connect(timeout=5) as connection:
        assert connection.info.user == "plain_text"


@pytest.mark.parametrize(
    "wrong",
    [[("token", "canary-secret")], "token=canary-secret", b"canary-secret"],
    ids=["pairs", "text", "bytes"],
)
def test_settings_that_are_no_mapping_are_not_shown(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=f"are a {type(wrong).__name__}, not a mapping") as caught:
        LakebaseConfig.from_mapping(wrong)
    # Without this test's own frame.
    for frame, _ in [*traceback.walk_tb(caught.tb)][1:]:
        assert "canary-secret" not in repr(frame.f_locals)
