"""The ways in which somebody comes to a database: the core, its async twin, Airflow and Dagster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pytest

# It says where Airflow's home is, before the first import of Airflow.
from tests.airflow.conftest import define  # isort: skip

import dagster as dg

from dagster_lakebase import LakebaseResource
from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.core.config import setting, settings
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import FaultProxy, LocalLakebase
from tests.security.exposure import Canaries
from tests.security.hostile_workspace import CREDENTIALS, ENDPOINT, TOKEN, HostileWorkspace

Settings = Mapping[str, Any]
SECRETS = {row.name for row in settings() if row.kind == "secret"}
# At the end it logs at DEBUG that it disposes of its engine, when pytest's streams are closed already.
logging.getLogger("airflow.settings").setLevel(logging.INFO)


class World:
    """What a provocation may use: the local Lakebase, a workspace of one's own, a link that fails."""

    def __init__(
        self,
        lake: LocalLakebase,
        monkeypatch: pytest.MonkeyPatch,
        folder: Path,
        canaries: Canaries,
        stack: ExitStack,
    ) -> None:
        self.lake = lake
        self.monkeypatch = monkeypatch
        self.folder = folder
        self._canaries = canaries
        self._stack = stack

    def impatient(self) -> float:
        """Seconds for connecting, fewer than anybody may configure: tests do not wait."""
        row = setting("connect_budget")
        self._stack.callback(object.__setattr__, row, "minimum", row.minimum)
        object.__setattr__(row, "minimum", 0.1)
        return 0.5

    def canary(self) -> str:
        """A new secret, which is looked for."""
        value = f"dose{uuid4().hex}+/{uuid4().hex}"
        self._canaries.add(value)
        return value

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Settings for the local Lakebase, with a client secret; None takes one out."""
        env = self.lake.env()
        found = {
            "endpoint": env["ENDPOINT_NAME"],
            "workspace_host": env["DATABRICKS_HOST"],
            "client_id": self.lake.client_id,
            "client_secret": self.lake.client_secret,
            "host": self.lake.host,
            "port": self.lake.port,
            "user": self.lake.client_id,
            "sslrootcert": self.lake.ca_path,
            "connect_budget": 20.0,
            **changes,
        }
        return {name: value for name, value in found.items() if value is not None}

    def native(self, password: str | None = None, **changes: Any) -> dict[str, Any]:
        """Settings with a native password, which is right if none is given."""
        if password is None:
            password = self.canary()
            self.lake.admin.set_native_password("native_canary", password)
        ours: dict[str, Any] = {"auth": "password", "user": "native_canary", "password": password}
        return self.settings(client_id=None, client_secret=None, workspace_host=None, **{**ours, **changes})

    def with_pat(self, **changes: Any) -> dict[str, Any]:
        """Settings with a personal access token, which is right if none is given."""
        ours: dict[str, Any] = {"token": self.lake.pat, "user": self.lake.developer}
        return self.settings(client_id=None, client_secret=None, **{**ours, **changes})

    def workspace(self) -> HostileWorkspace:
        """A workspace that answers what it is told to; its tokens are canaries."""
        found = self._stack.enter_context(HostileWorkspace())
        found.answers[TOKEN] |= {"access_token": self.canary()}
        found.answers[CREDENTIALS] |= {"token": self.canary()}
        return found

    def at(self, workspace: HostileWorkspace, **changes: Any) -> dict[str, Any]:
        """Settings for that workspace, with a client secret."""
        secret = self.canary()
        ours = {"endpoint": ENDPOINT, "workspace_host": workspace.url, "client_secret": secret}
        return self.settings(**{**ours, **changes})

    def link(self) -> FaultProxy:
        """A link to the local Lakebase that can be made to fail."""
        return self._stack.enter_context(FaultProxy(self.lake.host, self.lake.port))

    def enter(self, context: Any) -> Any:
        """Enter a context until the end."""
        return self._stack.enter_context(context)


class Front:
    """The core, without a front."""

    name: ClassVar[str] = "core"

    def __init__(self, world: World) -> None:
        self._world = world
        self._clients: dict[str, LakebaseClient] = {}

    def client(self, settings: Settings) -> LakebaseClient:
        """The core's client, as this front hands it out: the same for the same settings."""
        key = repr(settings)
        if key not in self._clients:
            self._clients[key] = self._world.enter(LakebaseClient(LakebaseConfig(**settings)))
        return self._clients[key]

    def warm(self, settings: Settings) -> Settings:
        """Mint a token, so that what fails from now on is the login."""
        self.client(settings).tokens.get(20)
        return settings

    def select(self, settings: Settings, statement: str = "SELECT 1") -> None:
        """Run a statement."""
        with self.client(settings).connection() as connection:
            connection.execute(statement.encode())


class AsyncFront(Front):
    """The core's async twin."""

    name = "async"

    def select(self, settings: Settings, statement: str = "SELECT 1") -> None:
        async def select() -> None:
            client = self.client(settings)
            try:
                async with client.aconnection() as connection:
                    await connection.execute(statement.encode())
            finally:
                await client.aclose()

        asyncio.run(select())


#: Where Airflow's form keeps a setting that is no extra.
_COLUMNS = {"host": "host", "port": "port", "database": "schema", "user": "login"}


class AirflowFront(Front):
    """A connection of Airflow's, and the hook."""

    name = "airflow"

    def connection(self, settings: Settings, conn_id: str = "lakebase_default") -> None:
        """Define an Airflow connection as somebody would."""
        extra = {name: value for name, value in settings.items() if name not in _COLUMNS}
        secret = "password" if settings.get("auth") == "password" else "client_secret"
        columns = {_COLUMNS[name]: value for name, value in settings.items() if name in _COLUMNS}
        columns |= {"password": extra.pop(secret)} if secret in extra else {}
        define(self._world.monkeypatch, conn_id, conn_type="lakebase", extra=extra, **columns)

    def uri(self, uri: str, conn_id: str = "lakebase_default") -> None:
        """Define an Airflow connection as a URI."""
        self._world.monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", uri)

    def hook(self, settings: Settings, **arguments: Any) -> LakebaseHook:
        """The hook of a connection with these settings."""
        self.connection(settings)
        return LakebaseHook(**arguments)

    def client(self, settings: Settings) -> LakebaseClient:
        return self.hook(settings).client

    def select(self, settings: Settings, statement: str = "SELECT 1") -> None:
        self.hook(settings).run(statement)


class AirflowAsyncFront(AirflowFront):
    """The hook's async twin, as triggers and async tasks use it."""

    name = "airflow-async"

    def select(self, settings: Settings, statement: str = "SELECT 1") -> None:
        async def select() -> None:
            hook = self.hook(settings)
            try:
                await hook.arun(statement)
            finally:
                if hook._client is not None:
                    await hook._client.aclose()

        asyncio.run(select())


class DagsterFront(Front):
    """The resource, with secrets by variables as is advised."""

    name = "dagster"

    def resource(self, settings: Settings) -> LakebaseResource:
        """The resource with these settings."""
        fields = dict(settings)
        for name in SECRETS & fields.keys():
            variable = f"CANARY_{name.upper()}"
            self._world.monkeypatch.setenv(variable, fields[name])
            fields[name] = dg.EnvVar(variable)
        return LakebaseResource(**fields)

    def client(self, settings: Settings) -> LakebaseClient:
        return self.resource(settings).client

    def select(self, settings: Settings, statement: str = "SELECT 1") -> None:
        self.resource(settings).execute(statement)


class LiteralDagsterFront(DagsterFront):
    """The resource, with secrets as literals, which Dagster itself keeps and shows."""

    name = "dagster-literal"

    def resource(self, settings: Settings) -> LakebaseResource:
        return LakebaseResource(**settings)


FRONTS: dict[str, type[Front]] = {
    front.name: front
    for front in (Front, AsyncFront, AirflowFront, AirflowAsyncFront, DagsterFront, LiteralDagsterFront)
}
#: Of these each error must be provoked in each.
SYNC = ("core", "airflow", "dagster")
