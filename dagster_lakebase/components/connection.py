"""The connection as a component: the resource, written in YAML."""

from __future__ import annotations

from typing import Annotated, Any

import dagster as dg
from dagster.components.lib.sql_component.sql_client import SQLClient

from dagster_lakebase.components.scaffolding import ConnectionScaffolder
from dagster_lakebase.resource.branch_deployment import PREFIX, TTL, LakebaseBranchDeployment
from dagster_lakebase.resource.hidden_inputs import HiddenInputs
from dagster_lakebase.resource.resource import LakebaseResource
from lakebase_provider.core.config import setting, settings


class EnvironmentVariable(dg.Model):
    """A value given by its variable's name, so that the value itself appears nowhere."""

    env: str


class BranchDeployments(dg.Model, dg.Resolvable):
    """The branches of branch deployments, as :class:`dagster_lakebase.LakebaseBranchDeployment` has them."""

    deployment: str | None = None
    prefix: str = PREFIX
    ttl: float = TTL


def _field(name: str) -> dg.Resolver:
    resolver: dg.Resolver = dg.Resolver.default(description=setting(name).description)
    return resolver


def _secret(name: str) -> dg.Resolver:
    return dg.Resolver(
        # What is given as text has been refused: it would be the secret itself or a template that renders it.
        lambda _context, value: value,
        model_field_type=EnvironmentVariable | str | None,
        description=f"{setting(name).description} Given as the name of its environment variable.",
        inject_before_resolve=False,
    )


@dg.scaffold_with(ConnectionScaffolder)
class LakebaseConnectionComponent(dg.Component, HiddenInputs, SQLClient):
    """Connections to one Lakebase database, bound as a resource for all other components and assets.

    Every setting may be left out: it is then read from its environment variable. Secrets are given by their
    variable's name: ``client_secret: {env: DATABRICKS_CLIENT_SECRET}``.
    """

    resource_key: Annotated[
        str, dg.Resolver.default(description="The key under which the resource is bound.")
    ] = "lakebase"
    branch_deployments: Annotated[
        BranchDeployments | None,
        dg.Resolver.default(
            description="Gives each branch deployment a branch of its own, as LakebaseBranchDeployment does: "
            "{} or some of deployment, prefix and ttl.",
            examples=[{"ttl": 259_200}],
        ),
    ] = None
    endpoint: Annotated[str | None, _field("endpoint")] = None
    project: Annotated[str | None, _field("project")] = None
    branch: Annotated[str | None, _field("branch")] = None
    instance: Annotated[str | None, _field("instance")] = None
    database: Annotated[str | None, _field("database")] = None
    user: Annotated[str | None, _field("user")] = None
    host: Annotated[str | None, _field("host")] = None
    access: Annotated[str | None, _field("access")] = None
    port: Annotated[int | None, _field("port")] = None
    auth: Annotated[str | None, _field("auth")] = None
    password: Annotated[EnvironmentVariable | None, _secret("password")] = None
    workspace_host: Annotated[str | None, _field("workspace_host")] = None
    client_id: Annotated[str | None, _field("client_id")] = None
    client_secret: Annotated[EnvironmentVariable | None, _secret("client_secret")] = None
    token: Annotated[EnvironmentVariable | None, _secret("token")] = None
    profile: Annotated[str | None, _field("profile")] = None
    auth_type: Annotated[str | None, _field("auth_type")] = None
    azure_client_id: Annotated[str | None, _field("azure_client_id")] = None
    azure_client_secret: Annotated[EnvironmentVariable | None, _secret("azure_client_secret")] = None
    azure_tenant_id: Annotated[str | None, _field("azure_tenant_id")] = None
    credential_ttl: Annotated[float | None, _field("credential_ttl")] = None
    credential_store: Annotated[str | None, _field("credential_store")] = None
    sslmode: Annotated[str | None, _field("sslmode")] = None
    sslrootcert: Annotated[str | None, _field("sslrootcert")] = None
    min_size: Annotated[int | None, _field("min_size")] = None
    max_size: Annotated[int | None, _field("max_size")] = None
    max_lifetime: Annotated[float | None, _field("max_lifetime")] = None
    max_idle: Annotated[float | None, _field("max_idle")] = None
    connect_budget: Annotated[float | None, _field("connect_budget")] = None
    statement_timeout: Annotated[float | None, _field("statement_timeout")] = None
    lock_timeout: Annotated[float | None, _field("lock_timeout")] = None
    application_name: Annotated[str | None, _field("application_name")] = None

    def resource(self) -> LakebaseResource:
        """The resource with these settings."""
        given: dict[str, Any] = {row.name: getattr(self, row.name) for row in settings()}
        for name, value in given.items():
            if isinstance(value, EnvironmentVariable):
                given[name] = dg.EnvVar(value.env)
        if self.branch_deployments is None:
            return LakebaseResource(**given)
        return LakebaseBranchDeployment(**given, **self.branch_deployments.model_dump())

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The resource, under its key."""
        return dg.Definitions(resources={self.resource_key: self.resource()})

    def connect_and_execute(self, sql: str) -> None:
        """Run SQL on its own connection and commit, as ``dagster.TemplatedSqlComponent`` expects.

        Args:
            sql: One or more statements.

        Raises:
            psycopg.Error: The server refuses a statement; nothing is committed.
            LakebaseError: No connection could be opened.
        """
        with self.resource().process_config_and_initialize_cm() as lakebase:
            if isinstance(lakebase, LakebaseBranchDeployment):
                # It does not know that this is a run.
                lakebase.open_branch()
            lakebase.connect_and_execute(sql)


def _resource_key(context: dg.ResolutionContext, value: Any) -> str:
    value = context.resolve_value(value)
    if isinstance(value, LakebaseConnectionComponent):
        return value.resource_key
    if isinstance(value, str):
        return value
    raise dg.DagsterInvalidDefinitionError(
        f"connection is a {type(value).__name__}. Give the key of a LakebaseResource, or "
        "\"{{ context.load_component('…') }}\" of a LakebaseConnectionComponent."
    )


#: A connection in YAML: a resource's key, or the component that binds it.
Connection = Annotated[
    str,
    dg.Resolver(
        _resource_key,
        model_field_type=str,
        inject_before_resolve=False,
        description="Key of a LakebaseResource, or {{ context.load_component('…') }} of the component that "
        "binds it.",
    ),
]
