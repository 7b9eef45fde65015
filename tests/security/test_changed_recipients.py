"""An argument that makes a connection's secret another kind of secret, so that somebody else is shown it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import pytest

# It says where Airflow's home is, before the first import of Airflow.
from tests.airflow.conftest import define  # isort: skip
from airflow.sdk import Connection

from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.dagster.test_launchpad import at_launch, error_of, launch, of_literals, of_the_environment, who

from .listener import Listener
from .test_places import with_a_secret

#: Dagster's own, of a nested resource.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener("127.0.0.2") as found:
        yield found


def native(lake: LocalLakebase, **extras: Any) -> Connection:
    """A connection with a native password, whose host the workspace tells."""
    named = {"auth": "password", "endpoint": lake.env()["ENDPOINT_NAME"], **extras}
    return Connection(
        **{"conn_id": "stored", "conn_type": "lakebase", "login": "u"},
        password="native",
        extra=json.dumps(named),
    )


@pytest.mark.parametrize(
    "more", [{}, {"user": "u"}, {"client_secret": "another"}, {"databricks_conn_id": "theirs"}], ids=str
)
def test_a_client_secret_does_not_become_a_password(
    lakebase_env: LocalLakebase, listener: Listener, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    define(monkeypatch, "theirs", conn_type="databricks", host="https://x.cloud.databricks.com", password="t")
    # The connection itself says where its database is: it is asked nothing.
    stored = json.loads(lakebase_env.airflow_connection())
    stored |= {"host": "127.0.0.2", "port": listener.port, "schema": "db", "conn_id": "stored"}
    stored["extra"] = json.dumps({**stored["extra"], "sslmode": "require"})
    hook = LakebaseHook("stored", connection=Connection(**stored), auth="password", **more)
    with pytest.raises(ConfigError, match="'auth' is overridden, and 'client_secret' belongs"):
        hook.get_conn()
    assert listener.received == []


def test_nor_does_a_password_become_a_client_secret(lakebase_env: LocalLakebase, listener: Listener) -> None:
    extras = {"workspace_host": f"http://127.0.0.2:{listener.port}", "client_id": "c"}
    hook = LakebaseHook("stored", connection=native(lakebase_env, **extras), auth="oauth")
    with pytest.raises(ConfigError, match="'auth' is overridden, and 'password' belongs"):
        hook.get_conn()
    assert listener.received == []


def test_no_other_workspace_says_where_a_password_goes(
    lakebase_env: LocalLakebase, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = f"http://127.0.0.2:{listener.port}"
    define(monkeypatch, "theirs", conn_type="databricks", host=theirs, password="t")
    for given in ({"workspace_host": theirs, "token": "t"}, {"databricks_conn_id": "theirs"}):
        hook = LakebaseHook("stored", connection=native(lakebase_env), **given)
        with pytest.raises(ConfigError, match=f"'{min(given, key=len)}|workspace_host|databricks_conn_id'"):
            hook.get_conn()
        assert listener.received == []


def test_an_entra_secret_does_not_follow_another_tenant(lakebase_env: LocalLakebase) -> None:
    extras = {
        "endpoint": lakebase_env.env()["ENDPOINT_NAME"],
        "workspace_host": lakebase_env.env()["DATABRICKS_HOST"],
        **{"azure_client_id": "a", "azure_client_secret": "x", "azure_tenant_id": "mine"},
    }
    stored = Connection(conn_id="stored", conn_type="lakebase", extra=json.dumps(extras))
    with pytest.raises(ConfigError, match="'azure_tenant_id' is overridden"):
        LakebaseHook("stored", connection=stored, azure_tenant_id="theirs").get_conn()


def test_who_brings_the_secret_says_what_it_is(lakebase_env: LocalLakebase) -> None:
    lakebase_env.admin.set_native_password(lakebase_env.client_id, "their-own")
    stored = with_a_secret(lakebase_env, sslmode="verify-full")
    hook = LakebaseHook("stored", connection=stored, auth="password", password="their-own")
    assert hook.get_first("select current_user") == (lakebase_env.client_id,)
    # What is said once more is no change.
    assert LakebaseHook("stored", connection=stored, auth="oauth").get_first("select 1") == (1,)


@pytest.mark.parametrize("make", [of_the_environment, at_launch, of_literals])
def test_a_run_does_not_change_the_way_to_log_in(lakebase_env: LocalLakebase, make: Any) -> None:
    change: Mapping[str, Any]
    for change in (
        {"auth": "password"},
        {"auth": "password", "user": "u", "password": {"env": "DATABRICKS_CLIENT_SECRET"}},
    ):
        result = launch(
            dg.Definitions(assets=[who], resources={"lakebase": make(lakebase_env)}), dict(change)
        )
        assert not result.success
        assert "changes 'auth'" in error_of(result)


def test_a_configuration_keeps_each_secret_for_what_it_is(lakebase_env: LocalLakebase) -> None:
    for change in (
        lambda: LakebaseConfig.from_env(auth="password"),
        lambda: lakebase_env.config().replace(auth="password"),
        lambda: LakebaseConfig.from_mapping(
            {"auth": "password", "client_secret": "x", "client_id": "c", "user": "u", "host": "localhost"}
        ),
    ):
        with pytest.raises(ConfigError, match=r"'(password|user)' is missing"):
            change()
