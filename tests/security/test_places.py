"""A password or a token that is minted, and who would lead it to another server than its owner has named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

# It says where Airflow's home is, before the first import of Airflow.
from tests.airflow.conftest import define  # isort: skip
from airflow.sdk import Connection

from lakebase_provider.core.config.places import led_elsewhere
from lakebase_provider.core.errors import ConfigError, LakebaseError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase

from .listener import Listener

pytestmark = pytest.mark.usefixtures("no_secrets_of_others")


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener("127.0.0.2") as found:
        yield found


def with_a_secret(lake: LocalLakebase, **extras: Any) -> Connection:
    """A connection that holds everything, as `lakebase local env --airflow` prints it."""
    whole = json.loads(lake.airflow_connection())
    whole["extra"] = {**whole["extra"], **extras}
    return Connection(**{**whole, "conn_id": "stored", "extra": json.dumps(whole["extra"])})


def without_a_secret(lake: LocalLakebase, **extras: Any) -> Connection:
    """A connection that reuses what the worker has."""
    named = {"endpoint": lake.env()["ENDPOINT_NAME"], **extras}
    return Connection(conn_id="stored", conn_type="lakebase", extra=json.dumps(named))


def held(hook: LakebaseHook, lake: LocalLakebase, listener: Listener, match: str) -> None:
    """That it neither mints nor comes to the listener."""
    lake.admin.reset_counters()
    with pytest.raises(ConfigError, match=match):
        hook.get_first("select 1")
    assert listener.received == []
    assert lake.admin.counters().workspace_tokens == 0


@pytest.mark.parametrize("name", ["host", "port", "sslmode", "sslrootcert"])
@pytest.mark.parametrize("repeated", [False, True], ids=["alone", "with-the-connections-extras"])
def test_a_token_minted_by_a_connections_secret_does_not_follow_an_override(
    lakebase_env: LocalLakebase, listener: Listener, repeated: bool, name: str
) -> None:
    stored = with_a_secret(lakebase_env, sslmode="verify-full", client_secret=lakebase_env.client_secret)
    other = {"host": "127.0.0.2", "port": listener.port, "sslmode": "require", "sslrootcert": __file__}
    # As common-sql's operators give them, which merge a template field of theirs into the extras.
    overrides = {**(json.loads(stored.extra or "{}") if repeated else {}), name: other[name]}
    hook = LakebaseHook("stored", connection=stored, **overrides)
    held(hook, lakebase_env, listener, f"'{name}' is overridden, and 'client_secret' belongs")


@pytest.mark.parametrize("extras", [{}, {"sslmode": "verify-full"}])
@pytest.mark.parametrize("name", ["port", "sslmode", "sslrootcert"])
def test_a_connections_password_does_not_follow_one_either(
    lakebase_env: LocalLakebase, listener: Listener, name: str, extras: dict[str, Any]
) -> None:
    stored = Connection(
        **{"conn_id": "stored", "conn_type": "lakebase", "host": "127.0.0.2", "login": "u"},
        password="native",
        extra=json.dumps({"auth": "password", **extras}),
    )
    other = {"port": listener.port, "sslmode": "require", "sslrootcert": __file__}
    hook = LakebaseHook("stored", connection=stored, **{name: other[name]})
    held(hook, lakebase_env, listener, f"'{name}' is overridden, and 'password' belongs")


@pytest.mark.parametrize("name", ["host", "port", "sslmode", "sslrootcert"])
@pytest.mark.parametrize("by", ["connection", "argument"])
def test_a_connection_does_not_lead_the_environments_token_elsewhere(
    lakebase_env: LocalLakebase, listener: Listener, by: str, name: str
) -> None:
    other = {"host": "127.0.0.2", "port": listener.port, "sslmode": "require", "sslrootcert": __file__}
    given = {name: other[name]}
    stored = without_a_secret(lakebase_env, **(given if by == "connection" else {}))
    hook = LakebaseHook("stored", connection=stored, **({} if by == "connection" else given))
    variable = {"host": "PGHOST", "port": "PGPORT", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}[
        name
    ]
    held(hook, lakebase_env, listener, f"(?s)'{name}' is set, and the secret .* set {variable} to the same")


def test_a_connection_does_not_lead_another_connections_token_elsewhere(
    lakebase_env: LocalLakebase, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"service_principal_oauth": True}
    define(
        monkeypatch,
        "theirs",
        conn_type="databricks",
        host=lakebase_env.env()["DATABRICKS_HOST"],
        login=lakebase_env.client_id,
        password=lakebase_env.client_secret,
        extra=extra,
    )
    stored = without_a_secret(
        lakebase_env, databricks_conn_id="theirs", host="127.0.0.2", port=listener.port, sslmode="require"
    )
    held(LakebaseHook("stored", connection=stored), lakebase_env, listener, "'host' is set, and the secret")


@pytest.mark.parametrize(
    "brought",
    [
        {"token": "x", "auth_type": "oauth-m2m"},
        {"azure_client_id": "a", "azure_client_secret": "x", "azure_tenant_id": "t"},
        {"client_id": "another"},
        {"profile": "another"},
    ],
    ids=lambda brought: min(brought),
)
def test_a_secret_that_does_not_log_in_does_not_free_the_one_that_does(
    lakebase_env: LocalLakebase, listener: Listener, brought: dict[str, Any]
) -> None:
    elsewhere = {"host": "127.0.0.2", "port": listener.port, "sslmode": "require"}
    for stored in (with_a_secret(lakebase_env), without_a_secret(lakebase_env)):
        hook = LakebaseHook("stored", connection=stored, **brought, **elsewhere)
        lakebase_env.admin.reset_counters()
        with pytest.raises(LakebaseError):
            hook.get_first("select 1")
        assert listener.received == []
        assert lakebase_env.admin.counters().mints == 0


def test_what_leads_to_the_same_place_is_taken(lakebase_env: LocalLakebase) -> None:
    env = lakebase_env.env()
    same = {"host": lakebase_env.host, "port": env["PGPORT"], "sslrootcert": env["PGSSLROOTCERT"]}
    for hook in (
        LakebaseHook("stored", connection=with_a_secret(lakebase_env), **same, sslmode="verify-full"),
        LakebaseHook("stored", connection=without_a_secret(lakebase_env, **same)),
        LakebaseHook("stored", connection=without_a_secret(lakebase_env), **same, sslmode="verify-full"),
        # A secret of the caller's own, and where it goes.
        LakebaseHook(
            "stored",
            connection=without_a_secret(lakebase_env, workspace_host=env["DATABRICKS_HOST"]),
            client_id=lakebase_env.client_id,
            client_secret=lakebase_env.client_secret,
            **same,
            sslmode="require",
        ),
    ):
        assert hook.get_first("select current_user") == (lakebase_env.client_id,)


@pytest.mark.parametrize(
    ("given", "trusted", "found"),
    [
        ({"host": "B.databricks.com"}, {"host": "b.databricks.com"}, None),
        ({"host": "b.databricks.com"}, {}, "host"),
        ({"host": None, "port": ""}, {"host": "b.databricks.com", "port": 6000}, None),
        ({"port": "5432"}, {}, None),
        ({"port": "5433"}, {"port": 5433}, None),
        ({"port": "x"}, {}, "port"),
        ({"sslmode": "verify-full"}, {"sslmode": "require"}, None),
        ({"sslmode": "verify-ca"}, {}, "sslmode"),
        ({"sslmode": "disable"}, {"sslmode": "require"}, "sslmode"),
    ],
)
def test_what_leads_elsewhere(given: dict[str, Any], trusted: dict[str, Any], found: str | None) -> None:
    assert led_elsewhere(given, trusted) == found
    assert led_elsewhere(given, {"host": "a.databricks.com"}, trusted) == found
