"""An Airflow connection, read as a configuration: what goes where, and what is refused."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from airflow.providers.common.sql.operators.sql import BaseSQLOperator
from airflow.sdk import Connection

from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.secret import Secret
from lakebase_provider.hooks.connection import ConnectionSettings
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import define

ENDPOINT = "projects/p/branches/b/endpoints/e"
WORKSPACE = "https://example.databricks.com"


def config(extra: object = None, overrides: dict[str, object] | None = None, **fields: Any) -> LakebaseConfig:
    text = extra if isinstance(extra, str) else json.dumps(extra or {})
    connection = Connection(conn_id="some", conn_type="lakebase", extra=text, **fields)
    return ConnectionSettings(connection, overrides or {}).config()


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


def test_a_blank_field_is_not_set() -> None:
    blank = dict.fromkeys(("instance", "token", "profile", "sslmode", "connect_budget"), "")
    found = config(oauth(**blank, min_size=None), host=" ", schema="", login="app", password="s")
    assert found == config(oauth(), login="app", password="s")
    assert found.database == "databricks_postgres"


def test_a_uri() -> None:
    query = urlencode(oauth(max_size=2))
    uri = f"lakebase://app:s%2Fecret@/sales?{query}"
    found = ConnectionSettings(Connection.from_uri(uri, conn_id="some"), {}).config()
    assert (found.user, found.database, found.max_size) == ("app", "sales", 2)
    assert found.client_secret == Secret("s/ecret")


@pytest.mark.parametrize(
    ("extra", "fields", "message", "remedy"),
    [
        (oauth(endpont="x"), {}, "Unknown setting 'endpont'", "Did you mean 'endpoint'?"),
        (oauth(options="-c x=y"), {}, "Unknown setting 'options'", "Settings are: endpoint"),
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
