"""The canary: no way to copy, write down or look into a secret, a token or a configuration shows it."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import msgspec
import psycopg
import pytest
from pydantic import TypeAdapter

# It says where Airflow's home is, before the first import of Airflow.
import tests.security.fronts  # noqa: F401 # isort: skip

import dagster as dg
from airflow.sdk import serde
from dagster_shared.serdes import serialize_value

from dagster_lakebase import LakebaseResource
from lakebase_provider._airflow.connection.stored_connection import StoredConnection
from lakebase_provider.core import LakebaseClient, LakebaseConfig, LakebaseError
from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.config import settings
from lakebase_provider.core.tokens.token import Token
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.security.exposure import Canaries, shown_by_value

CANARY = f"dose{uuid4().hex}+/{uuid4().hex}"


def config(secret: str) -> LakebaseConfig:
    return LakebaseConfig(
        endpoint="projects/p/branches/b/endpoints/e",
        workspace_host="https://w.databricks.com",
        client_id="client",
        **{secret: CANARY},
    )


KEEPERS: dict[str, Callable[[], object]] = {
    "secret": lambda: Secret(CANARY),
    "token": lambda: Token(CANARY, expires_at=None, minted_at=0.0, minted_elapsed=0.0),
    "config with a client secret": lambda: config("client_secret"),
    "config with an Azure secret": lambda: dataclasses.replace(
        config("client_secret"), azure_client_id="azure", azure_client_secret=Secret(CANARY)
    ),
    "config of a PAT": lambda: LakebaseConfig(
        endpoint="projects/p/branches/b/endpoints/e", workspace_host="https://w.databricks.com", token=CANARY
    ),
    "config of a URI": lambda: LakebaseConfig.from_uri(
        f"lakebase://ada:{CANARY.replace('/', '%2F')}@localhost/db"
    ),
    "client": lambda: LakebaseClient(config("client_secret")),
    "stored connection": lambda: StoredConnection(
        "lake", "lakebase", None, None, None, None, Secret(CANARY), {"token": Secret(CANARY)}
    ),
}


def _state(value: Any) -> object:
    return [value.__getstate__(), value.__reduce_ex__(4)] if hasattr(value, "__getstate__") else None


def _all_fields(value: Any) -> object:
    """What pydantic, msgspec and dataclasses' own functions read: each field, by its name."""
    return [getattr(value, found.name) for found in dataclasses.fields(value)]


WAYS: dict[str, Callable[[Any], object]] = {
    "asdict": dataclasses.asdict,
    "astuple": dataclasses.astuple,
    "fields": _all_fields,
    "getstate": _state,
    "msgspec json": msgspec.json.encode,
    "msgspec msgpack": msgspec.msgpack.encode,
    "msgspec builtins": msgspec.to_builtins,
    "pydantic": lambda value: TypeAdapter(type(value)).dump_json(value),
    "pydantic any": lambda value: TypeAdapter(Any).dump_json(value),
    "airflow serde": serde.serialize,
    "dagster serdes": serialize_value,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: [pickle.dumps(value, number) for number in range(6)],
    "json": json.dumps,
    "json of str": lambda value: json.dumps(value, default=str),
    "json of vars": lambda value: json.dumps(value, default=vars),
    "repr, str and format": lambda value: f"{value!r} {value} {value!s}",
    "vars": vars,
    "itself": lambda value: value,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("keeper", KEEPERS)
def test_no_way_reveals(keeper: str, way: str) -> None:
    canaries, value = Canaries(), KEEPERS[keeper]()
    canaries.add(CANARY)
    try:
        made = WAYS[way](value)
    except Exception as refused:  # to refuse is right as well, as long as the refusal does not tell
        made = [str(refused), repr(refused), *refused.args]
    assert canaries.in_any(shown_by_value(made)) == []


@pytest.mark.parametrize("keeper", [name for name in KEEPERS if name not in ("client", "token")])
def test_what_comes_back_has_left_its_value_behind(keeper: str) -> None:
    came = pickle.loads(pickle.dumps(KEEPERS[keeper]()))  # noqa: S301 - its own
    canaries = Canaries()
    canaries.add(CANARY)
    assert canaries.in_any(shown_by_value(came)) == []
    held = [came] if isinstance(came, Secret) else [v for v in vars(came).values() if isinstance(v, Secret)]
    assert held
    assert not any(secret.has_value for secret in held)


def test_dagsters_form_of_the_resource_marks_each_secret() -> None:
    resource = LakebaseResource(client_secret=dg.EnvVar("CANARY"), database="shown")
    assert resource.client_secret == dg.EnvVar("CANARY")
    fields = LakebaseResource.to_config_schema().as_field().config_type.fields  # type: ignore[attr-defined] # a shape
    secret = {row.name for row in settings() if row.kind == "secret"}
    assert {name for name, found in fields.items() if found.is_secret} == secret


@pytest.mark.parametrize("wrong", ["password", "host"])
def test_the_connection_behind_an_error_knows_no_password(lakebase_env: LocalLakebase, wrong: str) -> None:
    changes: dict[str, Any] = {"auth": "password", "user": "ada", "password": CANARY, "connect_budget": 1.0}
    given = LakebaseConfig(
        endpoint=lakebase_env.env()["ENDPOINT_NAME"],
        host="localhost",
        port=lakebase_env.port if wrong == "password" else 1,
        sslrootcert=lakebase_env.ca_path,
        **changes,
    )
    with LakebaseClient(given) as client, pytest.raises(LakebaseError) as caught:
        client.connect()
    cause = caught.value.__cause__
    assert isinstance(cause, psycopg.Error)
    canaries = Canaries()
    canaries.add(CANARY)
    if cause.pgconn is not None:
        assert not cause.pgconn.password
        assert not canaries.in_any(("info", option.val or b"") for option in cause.pgconn.info)
    assert (
        canaries.in_any((name, str(getattr(cause.diag, name))) for name in dir(cause.diag) if name[0] != "_")
        == []
    )
    assert cause.pgresult is None or canaries.in_any([("result", cause.pgresult.error_message)]) == []


def test_a_hook_that_was_asked_for_its_connection_keeps_none(
    lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = LakebaseHook()
    assert hook.connection.password == lakebase_env.client_secret
    _ = hook.config, hook.placeholder
    canaries = Canaries()
    canaries.add(lakebase_env.client_secret)
    assert canaries.in_any(shown_by_value(hook)) == []


def test_a_hook_that_was_given_a_connection_shows_none(lakebase_env: LocalLakebase) -> None:
    given = LakebaseHook().connection
    hook = LakebaseHook(connection=given)
    assert hook.connection.password == lakebase_env.client_secret
    assert hook.get_first("select 1") == (1,)
    canaries = Canaries()
    canaries.add(lakebase_env.client_secret)
    assert canaries.in_any(shown_by_value(hook)) == []
