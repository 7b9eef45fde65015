"""A host is read by one grammar, and the host that was checked is the host that is connected to."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import pytest
import requests
import urllib3
from airflow.sdk import Connection
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import pq
from psycopg.conninfo import make_conninfo

from dagster_lakebase import LakebaseResource
from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.core.config.allowed_hosts import (
    ALLOW_LOOPBACK,
    HOST_SUFFIXES,
    MORE_HOST_SUFFIXES,
    HostRefusedError,
    allowed_host,
    allowed_origin,
    parse_host,
)
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase

from .listener import Listener

ENDPOINT = "projects/p/branches/b/endpoints/e"
CREDENTIALS: tuple[dict[str, Any], ...] = (
    {"client_id": "an-id", "client_secret": "canary-client-secret"},
    {"token": "dapi-canary-token"},
)

HOSTS_THAT_ARE_NONE = [
    "evil.example\\.databricks.com",
    "evil.example;.databricks.com",
    "evil.example&.databricks.com",
    "evil.example|.databricks.com",
    "evil.example<.databricks.com",
    'evil.example".databricks.com',
    "evil.example{.databricks.com",
    "evil.example%2f.databricks.com",
    "evil.example%00.databricks.com",
    "evil.example\0.databricks.com",
    "evil.example\t.databricks.com",
    "evil.example\n.databricks.com",
    "evil.example .databricks.com",
    "evil.example,w.databricks.com",
    "evil.example/.databricks.com",
    "evil.example?.databricks.com",
    "evil.example#.databricks.com",
    "user@w.databricks.com",
    "w..databricks.com",
    ".databricks.com",
    "w.databricks.com..",
    "-w.databricks.com",
    "w-.databricks.com",
    "w_.databricks.com",
    "ｗ.databricks.com",  # full width
    "w。databricks.com",  # an ideographic full stop, which IDNA reads as a dot
    "127.1",
    "2130706433",
    "0x7f.0.0.1",
    "127.0.0.01",
    "[::1",
    "::1%eth0",
    "[::1]x",
    "@evil.example",
    "/var/run/postgresql",
    "",
    ".",
    "x" * 64 + ".databricks.com",
    "x." * 130 + "databricks.com",
]
HOSTS_OF_OTHERS = [
    "evil.example",
    "evildatabricks.com",
    "evil-databricks.com",
    "databricks.com",  # the suffix begins with a dot: those below it
    "databricks.com.evil.example",
    "azuredatabricks.net",
    "10.0.0.1",
    "::ffff:8.8.8.8",
    "2001:db8::1",
    "localhost.evil.example",
]


@pytest.fixture
def no_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment that has no Lakebase of its own on this machine."""
    monkeypatch.delenv(ALLOW_LOOPBACK)
    monkeypatch.setattr("lakebase_provider.core.config.allowed_hosts._servers_here", set())


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as somebody_else:
        yield somebody_else


def url_of(host: str) -> str:
    return f"https://{host}"


@pytest.mark.parametrize("host", [*HOSTS_THAT_ARE_NONE, *HOSTS_OF_OTHERS])
def test_a_host_setting_is_one_allowed_host(host: str) -> None:
    if not host:
        return  # an empty setting is none
    with pytest.raises(ConfigError, match="'host'"):
        LakebaseConfig(endpoint=ENDPOINT, host=host)
    with pytest.raises(ConfigError, match="'host'"):
        LakebaseConfig.from_mapping({"auth": "password", "user": "u", "password": "p", "host": host})
    if "\0" not in host:
        with pytest.raises(ConfigError, match="'host'"):
            LakebaseConfig.from_env({"PGHOST": host, "ENDPOINT_NAME": ENDPOINT})
    with pytest.raises(ConfigError, match="'host'"):
        LakebaseConfig(endpoint=ENDPOINT).replace(host=host)


@pytest.mark.parametrize("credentials", CREDENTIALS, ids=["service principal", "token"])
@pytest.mark.parametrize(
    "host",
    [
        h
        for h in [*HOSTS_THAT_ARE_NONE, *HOSTS_OF_OTHERS]
        # What follows "/", "?" or "#" is dropped with the path; then the host is evil.example.
        if h not in ("/var/run/postgresql", "")
    ],
)
def test_a_workspace_url_names_one_allowed_host(host: str, credentials: dict[str, Any]) -> None:
    for url in (url_of(host), host, f"{url_of(host)}/", f"{url_of(host)}:443", f"https:{host}"):
        with pytest.raises(ConfigError) as caught:
            LakebaseConfig(endpoint=ENDPOINT, workspace_host=url, **credentials)
        assert "canary" not in str(caught.value)


def locals_of_our_frames(error: BaseException) -> str:
    """As a traceback with local variables shows them, without those of the tests."""
    found = traceback.TracebackException.from_exception(error, capture_locals=True)
    return str([frame.locals for frame in found.stack if "/tests/" not in frame.filename])


@pytest.mark.parametrize(
    "url",
    [
        "https://user:canary-password@w.databricks.com",
        "https://canary-password@w.databricks.com",
        "https://user:canary-password@evil.example\\.databricks.com",
        "user:canary-password@w.databricks.com",
        "https://w.databricks.com:canary-password@evil.example",
        "https://w.databricks.com:canary-password",
    ],
)
def test_userinfo_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LakebaseConfig(endpoint=ENDPOINT, workspace_host=url)
    assert "canary-password" not in str(caught.value)
    environ = {"DATABRICKS_HOST": url, "PGHOST": url}
    for make in (
        lambda: LakebaseConfig(endpoint=ENDPOINT, workspace_host=url),
        lambda: LakebaseConfig(endpoint=ENDPOINT, host=url),
        lambda: LakebaseConfig.from_mapping({"endpoint": ENDPOINT, "workspace_host": url}),
        lambda: LakebaseConfig.from_env(environ, endpoint=ENDPOINT),
    ):
        with pytest.raises(ConfigError) as caught:
            make()
        if "@" in url:
            assert "canary-password" not in locals_of_our_frames(caught.value)
    uri = f"lakebase://u:canary-password@evil.example\\.databricks.com/db?endpoint={ENDPOINT}"
    wrong_ones: list[Any] = [uri, uri.replace("\\", "["), "canary-password:no-uri", f"mysql{uri[8:]}"]
    wrong_ones += ["lakebase:u:canary-password@w.databricks.com/db", b"lakebase://canary-password", None]
    for wrong in wrong_ones:
        with pytest.raises(ConfigError) as caught:
            LakebaseConfig.from_uri(wrong)
        assert "canary-password" not in str(caught.value)
        assert "canary-password" not in locals_of_our_frames(caught.value)


@pytest.mark.usefixtures("no_loopback")
@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "127.0.0.1", "127.0.0.53", "::1", "[::1]"])
def test_loopback_is_a_deployments_switch(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="'host'") as caught:
        LakebaseConfig(endpoint=ENDPOINT, host=host)
    assert ALLOW_LOOPBACK in caught.value.remedy
    in_url = "[::1]" if host == "::1" else host
    with pytest.raises(ConfigError, match="'workspace_host'"):
        LakebaseConfig(endpoint=ENDPOINT, workspace_host=f"http://{in_url}:8080")
    with pytest.raises(ConfigError, match="'host'"):
        LakebaseConfig.from_env({"PGHOST": host, "ENDPOINT_NAME": ENDPOINT, ALLOW_LOOPBACK: "1"})
    monkeypatch.setenv(ALLOW_LOOPBACK, "0")
    with pytest.raises(ConfigError, match="'host'"):
        LakebaseConfig(endpoint=ENDPOINT, host=host)
    monkeypatch.setenv(ALLOW_LOOPBACK, "1")
    assert allowed_host(host).is_loopback
    assert LakebaseConfig(endpoint=ENDPOINT, workspace_host=f"http://{in_url}:8080").workspace_host


def test_http_is_for_loopback_alone() -> None:
    for url in ("http://w.databricks.com", "ftp://w.databricks.com", "javascript://w.databricks.com"):
        with pytest.raises(ConfigError, match="https"):
            LakebaseConfig(endpoint=ENDPOINT, workspace_host=url)


@pytest.mark.parametrize(
    ("suffix", "admitted", "refused"),
    [
        ("corp.example", ["corp.example", "w.corp.example"], ["evilcorp.example", "corp.example.evil"]),
        (".corp.example", ["w.corp.example"], ["corp.example", "evilcorp.example"]),
        ("Corp.Example.", ["W.CORP.example"], ["evilcorp.example"]),
        ("10.0.0.1", ["10.0.0.1"], ["110.0.0.1", "10.0.0.11"]),
        (".0.0.1", [], ["10.0.0.1"]),
        ("2001:db8::1", ["2001:db8:0::1", "[2001:db8::1]"], ["2001:db8::2"]),
    ],
)
def test_a_deployments_suffixes_end_at_a_dot(
    suffix: str, admitted: list[str], refused: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MORE_HOST_SUFFIXES, suffix)
    for host in admitted:
        assert allowed_host(host)
    for host in refused:
        with pytest.raises((HostRefusedError, ConfigError)):
            allowed_host(host)


@pytest.mark.parametrize("suffixes", ["*.corp.example", "https://corp.example", ".", "corp.example;x"])
def test_a_malformed_list_of_suffixes_admits_nothing(suffixes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MORE_HOST_SUFFIXES, suffixes)
    with pytest.raises(ConfigError, match=MORE_HOST_SUFFIXES):
        LakebaseConfig(endpoint=ENDPOINT, host="w.corp.example")


def reached(url: str) -> set[tuple[str, str, int | None]]:
    """Scheme, host and port that each library connects to for a URL."""
    direct = urllib3.util.parse_url(url)
    pool = urllib3.PoolManager().connection_from_url(url)
    prepared = requests.Request("GET", url).prepare()
    assert prepared.url is not None
    adapter, session = requests.adapters.HTTPAdapter(), urlsplit(prepared.url)
    by_requests = adapter.get_connection_with_tls_context(prepared, verify=True)
    standard = urlsplit(url)
    default = 443 if standard.scheme == "https" else 80
    return {
        (str(scheme), str(host).strip("[]"), port or default)
        for scheme, host, port in (
            (direct.scheme, direct.host, direct.port),
            (pool.scheme, pool.host, pool.port),
            (by_requests.scheme, by_requests.host, by_requests.port),
            (session.scheme, session.hostname, session.port),
            (standard.scheme, standard.hostname, standard.port),
        )
    }


_NASTY = st.sampled_from(
    [*"\\@/?#:;&|<>\"'{}[]%., \t\0\n\r_-~!$()*+=^`", "%2f", "%00", "。", "／", "ａ", "ß"]
)
_PIECE = st.one_of(
    st.sampled_from(
        ["evil.example", "databricks.com", "w", "localhost", "127.0.0.1", "::1", "0x7f", "1", "user", "443"]
    ),
    st.sampled_from(HOST_SUFFIXES),
    _NASTY,
    st.text(max_size=3),
)
_TEXT = st.lists(_PIECE, max_size=8).map("".join)


def holds_for_urls(scheme: str, text: str, tail: str) -> None:
    try:
        origin = allowed_origin(scheme + text + tail)
    except HostRefusedError:
        return
    found = reached(f"{origin}/api/2.0/postgres")
    default = 443 if origin.scheme == "https" else 80
    assert found == {(origin.scheme, origin.host.name, origin.port or default)}
    assert origin.host.is_loopback or origin.host.name.endswith(HOST_SUFFIXES)


def holds_for_libpq(text: str) -> None:
    try:
        host = allowed_host(text)
    except HostRefusedError:
        return
    conninfo = make_conninfo(host=host.name, sslmode="verify-full")
    found = {option.keyword: option.val for option in pq.Conninfo.parse(conninfo.encode()) if option.val}
    assert found == {b"host": host.name.encode(), b"sslmode": b"verify-full"}
    # libpq takes a list of hosts, and a path for a socket.
    assert not set(host.name) & set(",/@ \\'")
    assert parse_host(host.name) == host


@given(st.sampled_from(["", "https://", "http://", "HTTPS://"]), _TEXT, st.sampled_from(["", "/", "/x?y#z"]))
@settings(max_examples=300, deadline=None)
def test_the_host_that_was_checked_is_the_one_that_is_asked(scheme: str, text: str, tail: str) -> None:
    holds_for_urls(scheme, text, tail)


@given(_TEXT)
@settings(max_examples=300, deadline=None)
def test_the_host_that_was_checked_is_the_one_that_libpq_connects_to(text: str) -> None:
    holds_for_libpq(text)


@pytest.mark.slow
@given(st.sampled_from(["", "https://", "http://", "HTTPS://"]), _TEXT, st.sampled_from(["", "/", "/x?y#z"]))
@settings(max_examples=10_000, deadline=None)
def test_ten_thousand_urls(scheme: str, text: str, tail: str) -> None:
    holds_for_urls(scheme, text, tail)


@pytest.mark.slow
@given(_TEXT)
@settings(max_examples=10_000, deadline=None)
def test_ten_thousand_hosts(text: str) -> None:
    holds_for_libpq(text)


@pytest.mark.usefixtures("no_loopback")
@pytest.mark.parametrize("credentials", CREDENTIALS, ids=["service principal", "token"])
@pytest.mark.parametrize("form", ["http://127.0.0.1:{}", "http://127.0.0.1:{}\\.databricks.com"])
def test_no_front_sends_a_secret_to_somebody_elses_workspace(
    listener: Listener, form: str, credentials: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the core, Airflow's hook, its Test button and console link, and Dagster's run configuration."""
    for name in [name for name in os.environ if name.startswith(("DATABRICKS_", "PG"))]:
        monkeypatch.delenv(name)
    url = form.format(listener.port)
    with pytest.raises(ConfigError):
        LakebaseClient(LakebaseConfig(endpoint=ENDPOINT, workspace_host=url, **credentials)).tokens.get(5)

    stored = Connection(
        conn_id="stored",
        conn_type="lakebase",
        extra=json.dumps({"endpoint": ENDPOINT, "workspace_host": url, **credentials}),
    )
    hook = LakebaseHook("stored", connection=stored)
    ok, answer = hook.test_connection()
    assert not ok
    assert "workspace_host" in answer
    assert "canary" not in answer

    @dg.op
    def mint(lakebase: LakebaseResource) -> None:
        lakebase.client.tokens.get(5)

    @dg.job(resource_defs={"lakebase": LakebaseResource(endpoint=ENDPOINT, **credentials)})
    def job() -> None:
        mint()

    override = {"resources": {"lakebase": {"config": {"workspace_host": url}}}}
    done = job.execute_in_process(run_config=override, raise_on_error=False)
    assert not done.success
    assert listener.received == []


def test_the_environments_secrets_do_not_travel_to_another_workspace(
    listener: Listener, lakebase_env: LocalLakebase
) -> None:
    """Whoever overrides the workspace's URL alone gets none of the secrets that belong to another one."""
    elsewhere = f"http://127.0.0.1:{listener.port}"
    config = LakebaseConfig.from_env(workspace_host=elsewhere)
    assert config.client_id is None
    assert config.client_secret is None
    with pytest.raises(ConfigError):
        LakebaseClient(config).tokens.get(5)
    assert listener.received == []
    # The same workspace, written otherwise, is no other one.
    same = LakebaseConfig.from_env(workspace_host=lakebase_env.env()["DATABRICKS_HOST"].upper() + "/")
    assert same.client_secret is not None


def test_the_environments_password_does_not_travel_to_another_host() -> None:
    environ = {
        "PGHOST": "a.databricks.com",
        "PGUSER": "u",
        "PGPASSWORD": "canary",
        "LAKEBASE_AUTH": "password",
    }
    assert LakebaseConfig.from_env(environ).password is not None
    with pytest.raises(ConfigError, match="'password' is missing"):
        LakebaseConfig.from_env(environ, host="b.databricks.com")


def test_a_profiles_secrets_do_not_travel_to_another_workspace(
    listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "databrickscfg"
    file.write_text("[etl]\nhost = https://w.databricks.com/\ntoken = dapi-canary-token\n")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(file))
    elsewhere = f"http://127.0.0.1:{listener.port}"
    config = LakebaseConfig(endpoint=ENDPOINT, workspace_host=elsewhere, profile="etl")
    with pytest.raises(ConfigError, match="'etl' is for another workspace than"):
        LakebaseClient(config).tokens.get(5)
    assert listener.received == []
    # Its own host, however it is written, is no other one.
    LakebaseClient(LakebaseConfig(endpoint=ENDPOINT, workspace_host="w.databricks.com", profile="etl"))
