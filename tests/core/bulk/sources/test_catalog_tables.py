"""Delta tables by their names in the Unity Catalog: found, opened with what the workspace lends, loaded."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakebase_provider.core import Delta, LakebaseClient
from lakebase_provider.core.bulk.sources.delta.opened import open_delta
from lakebase_provider.core.config import allowed_hosts
from lakebase_provider.core.errors import (
    ConfigError,
    ControlPlaneError,
    LakebaseError,
    LoadError,
    NotFoundError,
    PermissionDeniedError,
)
from lakebase_provider.core.workspace.rest import RestTransport
from lakebase_provider.core.workspace.sdk import SdkTransport
from lakebase_provider.local import LocalLakebase
from tests.core.bulk.sample_tables import run

FEED = {"delta.enableChangeDataFeed": "true"}
WAYS = {"rest": RestTransport, "sdk": SdkTransport}


@pytest.fixture
def name(lakebase_env: LocalLakebase) -> str:
    """A Delta table with two rows, of a name that no other test has."""
    found = f"main.src.orders_{uuid.uuid4().hex[:8]}"
    path = lakebase_env.table_path(found)
    write_deltalake(path, pa.table({"id": pa.array([1, 2], pa.int64())}), configuration=FEED)
    return found


@pytest.mark.parametrize("way", WAYS)
def test_a_table_is_loaded_by_its_name(lakebase_env: LocalLakebase, name: str, way: str) -> None:
    with LakebaseClient(lakebase_env.config()) as client:
        client._needed_control_plane()._transport = WAYS[way](client.config)
        run(client, "DROP TABLE IF EXISTS t, lakebase_load")
        run(client, "CREATE TABLE t (id bigint PRIMARY KEY)")
        first = client.load(f"delta:uc://{name}", "t", mode="merge", since="ledger")
        assert first.inserted == 2
        write_deltalake(lakebase_env.table_path(name), pa.table({"id": [3]}), mode="append")
        DeltaTable(lakebase_env.table_path(name)).delete("id = 1")
        changed = client.load(Delta(f"uc://{name}"), "t", mode="merge", since="ledger")
        assert (changed.inserted, changed.deleted) == (1, 1)
        # What the ledger holds is the place, so that the path is the same table.
        same = client.load(f"delta:{lakebase_env.table_path(name)}", "t", mode="merge", since="ledger")
        assert same.skipped
        at = client.load(f"delta:uc://{name}?version=0&filter=id > 1", "t", mode="replace")
        assert at.inserted == 1
        assert run(client, "SELECT id FROM t") == [(2,)]
        run(client, "DROP TABLE t, lakebase_load")


async def test_what_the_workspace_lends(client: LakebaseClient, name: str) -> None:
    tables = client.workspace.catalog_tables
    for found in (tables.storage(name), await tables.astorage(name)):
        assert found.location.startswith("file:///")
        assert found.expires is not None
        assert found.options() == {}
    with pytest.raises(NotFoundError, match="does not exist"):
        client.load("delta:uc://main.src.nowhere", "t", create=True)


@pytest.mark.parametrize(
    ("seconds", "said", "retryable"),
    [(-1, r"from row 2 onwards: the credentials .* ended", False), (3600, "ExpiredToken", True)],
)
def test_a_load_that_outlives_what_was_lent_says_so(
    client: LakebaseClient, name: str, seconds: int, said: str, retryable: bool
) -> None:
    table = open_delta(Delta(f"uc://{name}", catalog=client.workspace.catalog_tables))
    assert table.storage is not None
    until = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    table.storage = replace(table.storage, expires=until)

    def read() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"id": [1]})
        raise OSError("Generic S3 error: ExpiredToken")

    reader = pa.RecordBatchReader.from_batches(pa.schema({"id": pa.int64()}), read())
    with pytest.raises(LoadError, match=said) as caught:
        list(table.read_on(reader))
    assert caught.value.retryable is retryable


@pytest.mark.parametrize("text", ["main.src", "main.src.a.b", "", "main.src.a/../b", "main.src.a?version=1"])
def test_what_is_no_name(client: LakebaseClient, text: str) -> None:
    with pytest.raises(ConfigError, match="<catalog>"):
        client.load(Delta(f"uc://{text}"), "t")
    with pytest.raises(ConfigError, match="<catalog>"):
        client.workspace.catalog_tables.storage(text)


def test_who_has_no_workspace_says_so(client: LakebaseClient, name: str) -> None:
    from lakebase_provider.core import load

    run(client, "CREATE TABLE t (id bigint)")
    with client.connection() as connection:
        with pytest.raises(ConfigError, match="only its workspace says"):
            load(connection, f"delta:uc://{name}", "t")
        given = Delta(f"uc://{name}", catalog=client.workspace.catalog_tables)
        assert load(connection, given, "t").inserted == 2
    with pytest.raises(ConfigError, match="only read by its name"):
        client.unload("SELECT 1 AS id", f"delta:uc://{name}")


class Edge:
    """What a workspace in a cloud answers, which the local one cannot: the transport's end."""

    def __init__(self, table: Mapping[str, Any], credentials: Mapping[str, Any]) -> None:
        self._answers = {
            "GET": {
                "full_name": "main.src.t",
                "data_source_format": "DELTA",
                "table_id": "1",
                "storage_location": "s3://lake/t",
                **table,
            },
            "POST": credentials,
        }

    def send(self, what: str, method: str, path: str, *_: Any, **__: Any) -> Mapping[str, Any]:
        return self._answers[method]


AWS = {"access_key_id": "AKIA", "secret_access_key": "of-the-key", "session_token": "of-the-session"}


def storage(client: LakebaseClient, table: Mapping[str, Any], credentials: Mapping[str, Any]) -> Any:
    client._needed_control_plane()._transport = Edge(table, credentials)
    return client.workspace.catalog_tables.storage("main.src.t")


@pytest.fixture
def own(lakebase_env: LocalLakebase) -> LakebaseClient:
    return LakebaseClient(lakebase_env.config())


@pytest.mark.parametrize(
    ("location", "credentials", "options"),
    [
        (
            "s3://lake/a/b",
            {"aws_temp_credentials": AWS},
            {
                "AWS_ACCESS_KEY_ID": "AKIA",
                "AWS_SECRET_ACCESS_KEY": "of-the-key",
                "AWS_SESSION_TOKEN": "of-the-session",
            },
        ),
        (
            "abfss://c@account.dfs.core.windows.net/a/b",
            {"azure_user_delegation_sas": {"sas_token": "sv=1&sig=x%3D"}},
            {"AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=x%3D"},
        ),
        (
            "abfss://c@account.dfs.core.windows.net/a/b",
            {"azure_aad": {"aad_token": "eyJ.x.y"}},
            {"AZURE_STORAGE_TOKEN": "eyJ.x.y"},
        ),
    ],
)
def test_credentials_of_each_cloud(
    own: LakebaseClient, location: str, credentials: dict[str, Any], options: dict[str, str]
) -> None:
    found = storage(
        own, {"storage_location": location}, {**credentials, "expiration_time": 1_800_000_000_000}
    )
    assert (found.location, found.options()) == (location, options)
    assert not any(value in f"{found!r}" for value in options.values())


@pytest.fixture
def store() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A store that refuses every request: its URL, and what it was sent with each: the path, the session."""
    seen: list[tuple[str, str]] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers.get("x-amz-security-token", "")))
            self.send_error(403)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    thread.join()
    server.server_close()


SAS = "sv=2024-01-01&sig=of-the-signature"


@pytest.mark.parametrize(
    ("location", "credentials", "options", "secret"),
    [
        (
            "s3://lake/t",
            {"aws_temp_credentials": AWS},
            {"AWS_ENDPOINT_URL": "{}", "AWS_REGION": "nowhere", "AWS_ALLOW_HTTP": "true"},
            "of-the-session",
        ),
        (
            "abfss://c@account.dfs.core.windows.net/t",
            {"azure_user_delegation_sas": {"sas_token": SAS}},
            {"AZURE_STORAGE_ENDPOINT": "{}", "AZURE_ALLOW_HTTP": "true"},
            "of-the-signature",
        ),
    ],
)
def test_a_store_gets_what_was_lent_and_no_error_shows_it(
    own: LakebaseClient,
    store: tuple[str, list[tuple[str, str]]],
    location: str,
    credentials: dict[str, Any],
    options: dict[str, str],
    secret: str,
) -> None:
    url, seen = store
    own._needed_control_plane()._transport = Edge({"storage_location": location}, credentials)
    given = {name: value.format(url) for name, value in options.items()}
    with pytest.raises(LakebaseError) as caught:
        open_delta(Delta("uc://main.src.t", storage_options=given, catalog=own.workspace.catalog_tables))
    assert any(secret in "".join(request) for request in seen), seen
    assert secret not in f"{caught.value}{caught.value.__cause__}{caught.value.__context__}"


@pytest.mark.parametrize(
    "location",
    [
        "s3://LAKE/t",
        "s3://lake",
        "s3://lake/../other",
        "s3://lake/a?endpoint=b",
        "s3://user:pw@lake/t",
        "abfss://c@evil.example.com/t",
        "abfss://c@account.dfs.core.windows.net.evil.example/t",
        "file://elsewhere/t",
        "",
    ],
)
def test_credentials_go_to_no_other_place(own: LakebaseClient, location: str) -> None:
    with pytest.raises(ControlPlaneError, match="storage_location"):
        storage(own, {"storage_location": location}, {"aws_temp_credentials": AWS})


@pytest.mark.parametrize(
    ("table", "credentials", "kind", "match"),
    [
        ({"data_source_format": "PARQUET"}, {}, ConfigError, "PARQUET"),
        ({"data_source_format": None, "table_type": "VIEW"}, {}, ConfigError, "VIEW"),
        ({"storage_location": "gs://lake/t"}, {}, ConfigError, "gs://"),
        ({"storage_location": "r2://lake@account/t"}, {}, ConfigError, "r2://"),
        ({"full_name": "main.src.other"}, {}, ControlPlaneError, "full_name"),
        ({"table_id": None}, {}, ControlPlaneError, "table_id"),
        ({}, {}, ControlPlaneError, "aws_temp_credentials"),
        ({}, {"aws_temp_credentials": AWS, "expiration_time": 1e300}, ControlPlaneError, "expiration_time"),
        ({}, {"aws_temp_credentials": {**AWS, "session_token": "a\nb"}}, ControlPlaneError, "session_token"),
    ],
)
def test_what_is_refused(
    own: LakebaseClient, table: dict[str, Any], credentials: dict[str, Any], kind: type[Exception], match: str
) -> None:
    with pytest.raises(kind, match=match):
        storage(own, table, credentials)


def test_a_file_of_this_machine_is_a_local_catalogs_only(
    own: LakebaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowed_hosts, "_servers_here", set())
    monkeypatch.delenv(allowed_hosts.ALLOW_LOOPBACK, raising=False)
    with pytest.raises(ConfigError, match="file://"):
        storage(own, {"storage_location": "file:///etc"}, {})


def test_who_may_not_read_from_outside_learns_what_is_needed(
    lakebase_env: LocalLakebase, client: LakebaseClient, name: str
) -> None:
    usual = "TABLE_DOES_NOT_EXIST: Table '{value}' does not exist."
    said = "User does not have EXTERNAL USE SCHEMA on Schema 'main.src'."
    lakebase_env.admin.set_error("source_missing", status=403, error_code="PERMISSION_DENIED", message=said)
    try:
        with pytest.raises(PermissionDeniedError) as caught:
            client.load("delta:uc://main.src.nowhere", "t", create=True)
    finally:
        lakebase_env.admin.set_error("source_missing", status=404, error_code="NOT_FOUND", message=usual)
    assert "EXTERNAL USE SCHEMA on its schema" in str(caught.value.remedy)
