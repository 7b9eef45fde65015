"""An Airflow connection, read as a configuration: what goes where, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import airflow
import pytest
from airflow.providers.common.sql.operators.sql import BaseSQLOperator
from airflow.sdk import Connection

from lakebase_provider._airflow.connection.settings import ConnectionSettings
from lakebase_provider._airflow.connection.stored_connection import StoredConnection
from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import connection_fields, define

ENDPOINT = "projects/p/branches/b/endpoints/e"
WORKSPACE = "https://example.databricks.com"


def config(extra: object = None, overrides: dict[str, object] | None = None, **fields: Any) -> LakebaseConfig:
    text = extra if isinstance(extra, str) else json.dumps(extra or {})
    connection = Connection(conn_id="some", conn_type="lakebase", extra=text, **fields)
    return ConnectionSettings(StoredConnection.read(connection), overrides or {}).config()


def oauth(**extra: object) -> dict[str, object]:
    return {"endpoint": ENDPOINT, "workspace_host": WORKSPACE, **extra}


def test_the_columns_of_the_form() -> None:
    found = config(
        oauth(), host="db.databricks.com", port=6432, schema="sales", login="app", password="canary"
    )
    assert (found.host, found.port, found.database, found.user) == ("db.databricks.com", 6432, "sales", "app")
    assert found.client_id == "app"
    assert found.client_secret == Secret("canary")
    assert found.password is None


def test_a_native_password() -> None:
    found = config({"auth": "password"}, host="db.databricks.com", login="app", password="canary")
    assert (found.password, found.client_secret) == (Secret("canary"), None)


def test_extras_go_before_columns_and_overrides_before_extras() -> None:
    extra = oauth(client_id="id", client_secret="extra", database="by_extra", statement_timeout="30")
    found = config(extra, {"statement_timeout": 5}, schema="by_column", login="role", password="column")
    assert (found.user, found.client_id, found.client_secret) == ("role", "id", Secret("extra"))
    assert (found.database, found.statement_timeout) == ("by_extra", 5.0)


def test_another_branch_keeps_nothing_of_the_connections_host() -> None:
    there = {"host": "db.databricks.com", "login": "app", "password": "s"}
    for overrides in (
        {"branch": "run"},
        {"project": "p", "branch": "run"},
        {"branch": "projects/p/branches/run"},
        {"endpoint": "projects/p/branches/run/endpoints/primary"},
    ):
        found = config(oauth(), overrides, **there)
        assert (found.endpoint, found.host) == ("projects/p/branches/run/endpoints/primary", None)
    assert config(oauth(), {"endpoint": ENDPOINT, "host": "db.databricks.com"}, **there).host is not None
    by_parts = {"project": "p", "branch": "b", "workspace_host": WORKSPACE}
    moved = config(by_parts, {"branch": "run"}, login="app", password="s")
    assert (moved.project, moved.branch) == ("p", "run")


def test_what_a_hook_writes_on_a_branch_is_not_on_production(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lake.airflow_connection())
    count = "SELECT count(*) FROM of_the_branch"
    with LakebaseClient(lake.config()) as client:
        with client.connection() as connection:
            connection.execute("CREATE TABLE of_the_branch (n int)")
        made = client.workspace.branches.create("run", ttl=3600)
        for place in ({"branch": "run"}, {"endpoint": f"{made.name}/endpoints/primary"}):
            LakebaseHook("lakebase_default", **place).run("INSERT INTO of_the_branch VALUES (1)")
        assert LakebaseHook("lakebase_default").get_first(count) == (0,)
        assert LakebaseHook("lakebase_default", branch="run").get_first(count) == (2,)
        client.workspace.branches.delete("run", purge=True)


def test_a_blank_field_is_not_set() -> None:
    blank = dict.fromkeys(("instance", "token", "profile", "sslmode", "connect_budget"), "")
    found = config(oauth(**blank, min_size=None), host=" ", schema="", login="app", password="s")
    assert found == config(oauth(), login="app", password="s")
    assert found.database == "databricks_postgres"


def test_a_uri() -> None:
    query = urlencode(oauth(max_size=2))
    uri = f"lakebase://app:s%2Fecret@/sales?{query}"
    found = ConnectionSettings(StoredConnection.read(Connection.from_uri(uri, conn_id="some")), {}).config()
    assert (found.user, found.database, found.max_size) == ("app", "sales", 2)
    assert found.client_secret == Secret("s/ecret")


@pytest.mark.parametrize(
    ("extra", "fields", "message", "remedy"),
    [
        (oauth(endpont="x"), {}, "Unknown setting 'endpont'", "Did you mean 'endpoint'?"),
        (oauth(options="-c x=y"), {}, "Unknown setting 'options'", "settings are: endpoint"),
        (oauth(endpoint="my-endpoint"), {}, "'endpoint' is 'my-endpoint'", "projects/<project>"),
        (oauth(instance="i"), {}, "Both 'endpoint' and 'instance'", "Keep 'endpoint'"),
        ({}, {}, "'endpoint' is missing", "projects/<project>"),
        (
            oauth(token="t"),
            {"login": "a", "password": "s"},
            "password (a client secret) and 'token'",
            "Keep one",
        ),
        (oauth(), {"host": "evil.example.com"}, "'host' is 'evil.example.com'", "LAKEBASE_ALLOWED"),
        (oauth(port="many"), {}, "'port' must be a whole number", "PGPORT"),
        (oauth(sslmode="disable"), {}, "'sslmode' is 'disable'", "verify-full"),
        ({"endpoint": ENDPOINT}, {"login": "a", "password": "s"}, "'workspace_host' is missing", "https://"),
        (oauth(), {"password": "s"}, "'client_id' is missing", "client_id"),
        ({"auth": "password"}, {"host": "localhost", "login": "a"}, "'password' is missing", "password"),
        ("{not json", {}, "Extra is not valid JSON", "extra"),
        ("[1]", {}, "Extra is not a JSON object", "{"),
    ],
)
def test_bad_input_names_the_connection_the_setting_and_the_remedy(
    extra: object, fields: dict[str, Any], message: str, remedy: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config(extra, **fields)
    assert "Connection 'some': " in caught.value.message
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_an_error_shows_no_secret() -> None:
    with pytest.raises(ConfigError) as caught:
        config('{"client_secret": "canary"', password="canary")
    assert "canary" not in repr(caught.value) + str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_without_credentials_nothing_is_asked_of_the_network(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"endpoint": lake.env()["ENDPOINT_NAME"], "workspace_host": lake.env()["DATABRICKS_HOST"]}
    define(monkeypatch, conn_type="lakebase", extra=extra)
    before = lake.admin.counters()
    with pytest.raises(ConfigError, match="no workspace credentials") as caught:
        LakebaseHook().get_conn()
    assert "client_id and client_secret" in caught.value.remedy
    assert lake.admin.counters() == before


def test_extras_given_as_arguments_resolve_the_same(lake: LocalLakebase) -> None:
    plain = LakebaseHook("lakebase_default")
    merged = BaseSQLOperator.get_hook("lakebase_default")
    assert isinstance(merged, LakebaseHook)
    assert merged.config == plain.config
    assert merged.client is plain.client


def test_an_unknown_argument_is_refused_by_name(lake: LocalLakebase) -> None:
    with pytest.raises(ConfigError, match="Unknown setting 'statment_timeout'"):
        LakebaseHook(statment_timeout=3).get_conn()


def databricks(**fields: Any) -> Connection:
    extra = json.dumps(fields.pop("extra", {}))
    return Connection(
        **{"conn_id": "dbx", "conn_type": "databricks", "host": WORKSPACE, **fields, "extra": extra}
    )


def reusing(other: Connection, extra: dict[str, object] | None = None, **fields: Any) -> LakebaseConfig:
    text = json.dumps({"endpoint": ENDPOINT, "databricks_conn_id": "dbx", **(extra or {})})
    connection = Connection(conn_id="some", conn_type="lakebase", extra=text, **fields)
    settings = ConnectionSettings(StoredConnection.read(connection), {})
    assert settings.databricks_conn_id == "dbx"
    return settings.config(StoredConnection.read(other))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"password": "pat"}, {"token": Secret("pat")}),
        ({"login": "token", "password": "pat"}, {"token": Secret("pat")}),
        ({"extra": {"token": "pat"}}, {"token": Secret("pat")}),
        ({"host": None, "password": "pat", "extra": {"host": WORKSPACE}}, {"token": Secret("pat")}),
        ({"host": "example.databricks.com", "password": "pat"}, {"token": Secret("pat")}),
        (
            {"login": "id", "password": "s", "extra": {"service_principal_oauth": True}},
            {"client_id": "id", "client_secret": Secret("s")},
        ),
        (
            {"login": "id", "password": "s", "extra": {"service_principal_oauth": "true"}},
            {"client_id": "id", "client_secret": Secret("s")},
        ),
        (
            {"login": "id", "password": "s", "extra": {"azure_tenant_id": "t"}},
            {"azure_client_id": "id", "azure_client_secret": Secret("s"), "azure_tenant_id": "t"},
        ),
    ],
)
def test_a_databricks_connection_gives_the_workspace_and_its_credentials(
    fields: dict[str, Any], expected: dict[str, object]
) -> None:
    found = reusing(databricks(**fields), login="role")
    assert (found.workspace_host, found.user) == (WORKSPACE, "role")
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("other", "extra", "fields", "message", "remedy"),
    [
        (databricks(password="p"), {"token": "t"}, {}, "and setting 'token' are set", "Keep one"),
        (databricks(password="p"), {"workspace_host": WORKSPACE}, {}, "'workspace_host' are set", "Keep one"),
        (databricks(password="p"), {}, {"password": "s"}, "and a password are set", "Keep one"),
        (databricks(conn_type="postgres"), {}, {}, "is of type 'postgres'", "of type 'databricks'"),
        (databricks(host=None, password="p"), {}, {}, "has no host", "workspace's URL"),
        (databricks(), {}, {}, "has no credentials", "password"),
        (
            databricks(login="me", password="p"),
            {},
            {},
            "a user's name and password",
            "service_principal_oauth",
        ),
        (databricks(extra={"service_principal_oauth": True}), {}, {}, "without login", "OAuth secret"),
        (databricks(extra={"azure_tenant_id": "t"}), {}, {}, "without login", "Entra"),
        (databricks(extra={"use_azure_managed_identity": True}), {}, {}, "authenticates with", "auth_type"),
        (
            databricks(password="p"),
            {"databricks_conn_id": 3},
            {},
            "must be text, not int",
            "databricks_conn_id",
        ),
    ],
)
def test_a_databricks_connection_that_does_not_serve(
    other: Connection, extra: dict[str, object], fields: dict[str, Any], message: str, remedy: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        reusing(other, extra, **fields)
    assert "Connection 'some': " in caught.value.message
    assert message in caught.value.message
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("merged", [False, True])
def test_a_databricks_connection_is_looked_up(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch, merged: bool
) -> None:
    host, credentials = (
        lake.env()["DATABRICKS_HOST"],
        {"login": lake.client_id, "password": lake.client_secret},
    )
    extra: dict[str, object] = {"service_principal_oauth": True}
    define(monkeypatch, "dbx", conn_type="databricks", host=host, extra=extra, **credentials)
    extra = {"endpoint": lake.env()["ENDPOINT_NAME"], "databricks_conn_id": "dbx"}
    extra |= {"sslrootcert": lake.env()["PGSSLROOTCERT"]}
    define(monkeypatch, conn_type="lakebase", port=int(lake.env()["PGPORT"]), extra=extra)
    hook = BaseSQLOperator.get_hook("lakebase_default") if merged else LakebaseHook()
    assert hook.get_first("select current_user") == (lake.client_id,)
    ok, message = hook.test_connection()
    assert ok, message


def test_rows_as_the_extra_says_and_an_unknown_kind_is_refused(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(monkeypatch, **connection_fields(lake, extra={"cursor": "dictcursor"}))
    assert LakebaseHook().get_first("select 1 as a") == {"a": 1}
    assert BaseSQLOperator.get_hook("lakebase_default").get_records("select 1 as a") == [{"a": 1}]
    assert LakebaseHook(cursor="namedtuplecursor").get_first("select 1 as a").a == 1
    before = lake.admin.counters()
    with pytest.raises(ConfigError, match="Setting 'cursor' is 'realdictcursor'"):
        LakebaseHook(cursor="realdictcursor").get_first("select 1")
    assert lake.admin.counters() == before


def test_the_worker_tests_a_connection_that_is_stored_nowhere(lake: LocalLakebase) -> None:
    # As Airflow 3.3's worker does it: the connection comes with the request, the hook asks for it by its id.
    fields = connection_fields(lake)
    fresh = Connection(conn_id="not_stored", **{**fields, "extra": json.dumps(fields["extra"])})
    if not hasattr(fresh, "test_connection"):
        pytest.skip("this Airflow tests connections in the API server alone")
    ok, message = fresh.test_connection()
    assert ok, message
    wrong = Connection(conn_id="wrong", **{**fields, "password": "no", "extra": json.dumps(fields["extra"])})
    ok, message = wrong.test_connection()
    assert not ok
    assert "client id and secret" in message
    assert len(message) <= 2000


def test_the_button_asks_the_api_server_as_the_docs_say() -> None:
    # Airflow 3.3's web interface knows how to have a worker test a connection, and never does. When it begins
    # to, docs/how-to/airflow-connection.md has to say so.
    files = (Path(airflow.__path__[0]) / "ui" / "dist" / "assets").glob("index-*.js")
    interface = "".join(file.read_text() for file in files)
    assert ".testConnection(" in interface
    assert ".enqueueConnectionTest(" not in interface
