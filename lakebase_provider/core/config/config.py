"""What to connect to, and as whom: the settings of a connection, and their only parser.

:class:`LakebaseConfig` is the table of the settings: each field carries its label, description, kind,
limits and environment variables. The parser, Airflow's connection form, the Dagster resource and the
documentation are all driven by that table, so a setting is added in one place.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

from lakebase_provider.core.base.plain_text import flaw
from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.config.addresses import ADDRESS, agreed, kept_address, require_not_blank
from lakebase_provider.core.config.allowed_hosts import check_host, workspace_url
from lakebase_provider.core.config.environment import (
    PRINCIPALS,
    left_out,
    opaque,
    read_environment,
    require_same_host,
)
from lakebase_provider.core.config.field import Setting, field
from lakebase_provider.core.config.floors import check_floors
from lakebase_provider.core.config.resource_names import (
    ENDPOINT_FORMAT,
    NameRefusedError,
    instance_path,
)
from lakebase_provider.core.errors import ConfigError

Auth = Literal["oauth", "password"]
SslMode = Literal["verify-full", "verify-ca", "require"]
Access = Literal["read_write", "read_only"]
TokenStore = Literal["off", "shared"]


@dataclass(frozen=True, kw_only=True)
class LakebaseConfig:
    """The settings of a connection to one Lakebase database.

    Build it with :meth:`from_env`, :meth:`from_mapping` or :meth:`from_uri`, or directly with native values.
    What is missing is resolved at the first connect: the host from the endpoint, the user from the client id
    or else from the workspace's current user. Without explicit workspace credentials, databricks-sdk looks
    for them in the usual places (profile, environment, notebook).

    Raises:
        ConfigError: A field is malformed or contradicts another. No network call has been made.
    """

    endpoint: str | None = field(
        None,
        "Endpoint",
        f"Lakebase Autoscaling endpoint, {ENDPOINT_FORMAT}; or its id beside project and branch; or its uid "
        "or host, which are looked up.",
        env=("ENDPOINT_NAME", "LAKEBASE_ENDPOINT"),
    )
    project: str | None = field(
        None,
        "Project",
        "Lakebase Autoscaling project, with a branch instead of an endpoint.",
        env=("LAKEBASE_PROJECT",),
    )
    branch: str | None = field(
        None,
        "Branch",
        "Branch of the project; its endpoint is primary unless one is given.",
        env=("LAKEBASE_BRANCH",),
    )
    instance: str | None = field(
        None,
        "Instance",
        "Lakebase Provisioned instance, instead of an endpoint.",
        env=("LAKEBASE_INSTANCE",),
    )
    database: str = field(
        "databricks_postgres", "Database", "Name of the Postgres database.", env=("PGDATABASE",)
    )
    user: str | None = field(
        None,
        "User",
        "Postgres role: a service principal's client id or a user's e-mail address. Resolved if left out.",
        env=("PGUSER",),
    )
    host: str | None = field(
        None,
        "Host",
        "Host of the database. Resolved from the endpoint if left out.",
        env=("PGHOST",),
        is_host=True,
    )
    access: Access = field(
        "read_write",
        "Access",
        "read_only: the endpoint's or instance's read-only host, which its secondaries serve.",
        env=("LAKEBASE_ACCESS",),
        choices=get_args(Access),
    )
    port: int = field(
        5432, "Port", "Port of the database.", kind="integer", env=("PGPORT",), minimum=1, maximum=65535
    )
    auth: Auth = field(
        "oauth",
        "Authentication",
        "oauth: a token that is minted and renewed for you. password: a native Postgres password.",
        env=("LAKEBASE_AUTH",),
        choices=get_args(Auth),
    )
    password: Secret | None = field(
        None, "Password", "Native Postgres password, with auth=password.", kind="secret", env=("PGPASSWORD",)
    )
    workspace_host: str | None = field(
        None,
        "Workspace URL",
        "URL of the workspace, https://<workspace>.databricks.com.",
        env=("DATABRICKS_HOST",),
        is_host=True,
    )
    client_id: str | None = field(
        None,
        "Client ID",
        "Application id of the service principal.",
        env=("DATABRICKS_CLIENT_ID",),
        in_header=True,
    )
    client_secret: Secret | None = field(
        None,
        "Client secret",
        "OAuth secret of the service principal.",
        kind="secret",
        in_header=True,
        env=("DATABRICKS_CLIENT_SECRET",),
    )
    token: Secret | None = field(
        None,
        "Workspace token",
        "Personal access token, instead of a client id and secret.",
        kind="secret",
        in_header=True,
        env=("DATABRICKS_TOKEN",),
    )
    profile: str | None = field(
        None, "Profile", "Profile of the Databricks configuration file.", env=("DATABRICKS_CONFIG_PROFILE",)
    )
    auth_type: str | None = field(
        None,
        "Workspace authentication",
        "A databricks-sdk auth type, such as azure-cli, if the automatic choice does not fit.",
        env=("DATABRICKS_AUTH_TYPE",),
    )
    azure_client_id: str | None = field(
        None,
        "Azure client ID",
        "Application id of an Entra service principal.",
        env=("ARM_CLIENT_ID",),
        in_header=True,
    )
    azure_client_secret: Secret | None = field(
        None,
        "Azure client secret",
        "Secret of an Entra service principal.",
        kind="secret",
        in_header=True,
        env=("ARM_CLIENT_SECRET",),
    )
    azure_tenant_id: str | None = field(
        None,
        "Azure tenant ID",
        "Tenant of an Entra service principal.",
        env=("ARM_TENANT_ID",),
        in_header=True,
    )
    credential_ttl: float | None = field(
        None,
        "Token lifetime",
        "Lifetime of a token in seconds; the workspace's 60 minutes if left out.",
        kind="number",
        minimum=300,
        maximum=3600,
        of_deployment=True,
    )
    credential_store: TokenStore = field(
        "off",
        "Token store",
        "shared: this user's processes on this host share a token, in a file that only the user can read.",
        env=("LAKEBASE_CREDENTIAL_STORE",),
        choices=get_args(TokenStore),
        of_deployment=True,
    )
    sslmode: SslMode = field(
        "verify-full",
        "SSL mode",
        "verify-full verifies the server's identity before the token is sent.",
        env=("PGSSLMODE",),
        choices=get_args(SslMode),
        of_deployment=True,
    )
    sslrootcert: str | None = field(
        None,
        "SSL root certificates",
        "File of trusted certificates; certifi's bundle of public ones if left out.",
        env=("PGSSLROOTCERT",),
        of_deployment=True,
    )
    min_size: int = field(
        0,
        "Pool minimum",
        "Connections that a pool keeps open.",
        kind="integer",
        minimum=0,
        maximum=1000,
        of_deployment=True,
    )
    max_size: int = field(
        4,
        "Pool maximum",
        "Maximum number of connections that a process opens.",
        kind="integer",
        minimum=1,
        maximum=1000,
        of_deployment=True,
    )
    max_lifetime: float = field(
        2700.0,
        "Maximum lifetime",
        "Seconds after which a pooled connection is replaced; the server ends them after 3 days.",
        kind="number",
        minimum=1,
        maximum=259_200,
        of_deployment=True,
    )
    max_idle: float = field(
        900.0,
        "Maximum idle time",
        "Seconds after which an unused pooled connection is closed; the server closes it after 24 hours.",
        kind="number",
        minimum=1,
        maximum=86_400,
        of_deployment=True,
    )
    connect_budget: float = field(
        60.0,
        "Connect budget",
        "Seconds that getting a connection may take, including the token and waking the compute.",
        kind="number",
        minimum=1,
        maximum=3600,
        of_deployment=True,
    )
    statement_timeout: float | None = field(
        None,
        "Statement timeout",
        "Seconds after which the server cancels a statement.",
        kind="number",
        minimum=0.001,
        of_deployment=True,
    )
    lock_timeout: float | None = field(
        None,
        "Lock timeout",
        "Seconds that a statement waits for a lock.",
        kind="number",
        minimum=0.001,
        of_deployment=True,
    )
    application_name: str = field(
        "lakebase-provider",
        "Application name",
        "Name that pg_stat_activity shows.",
        env=("PGAPPNAME",),
        of_deployment=True,
    )

    def __post_init__(self) -> None:
        # Secrets are opaque already: see _hide_secrets_at_once.
        for row in settings():
            value = getattr(self, row.name)
            # Defaults are valid, and most settings keep theirs.
            if value is not row.default:
                object.__setattr__(self, row.name, row.default if value is None else row.parse(value))
        self._check_target()
        self._check_credentials()
        if self.min_size > self.max_size:
            raise setting("min_size").error(f"is {self.min_size}, more than max_size {self.max_size}")
        if self.host is not None:
            object.__setattr__(self, "host", check_host(setting("host"), self.host))
        if self.workspace_host is not None:
            object.__setattr__(
                self, "workspace_host", workspace_url(setting("workspace_host"), self.workspace_host)
            )
        check_floors(self)
        if self.sslrootcert is not None and not Path(self.sslrootcert).is_file():
            raise setting("sslrootcert").error(f"is not a file: {self.sslrootcert!r}")

    def _check_target(self) -> None:
        named = next((name for name in ADDRESS if getattr(self, name) is not None), None)
        if named is not None and self.instance is not None:
            raise ConfigError(
                f"Both '{named}' and 'instance' are set.",
                remedy="Keep 'endpoint' for Lakebase Autoscaling, or 'instance' for Lakebase Provisioned.",
            )
        if self.branch is not None and self.endpoint is None and self.host is not None:
            # Such as a PGHOST that is still production's, to which the branch's token logs in as well.
            raise setting("host").error(
                "is given beside 'branch'", remedy="Remove 'host' (PGHOST): a branch's host is looked up."
            )
        for name, value in zip(ADDRESS, agreed(self.endpoint, self.project, self.branch), strict=True):
            object.__setattr__(self, name, value)
        self._check_instance()
        if self.access == "read_only" and self.host is not None:
            raise setting("access").error(
                "is 'read_only' although 'host' is given",
                remedy="Remove 'host': it is resolved from the endpoint.",
            )
        if self.auth == "oauth":
            if self.endpoint is None and self.instance is None:
                if self.project is not None:
                    raise setting("branch").error(
                        "is missing although 'project' is set",
                        remedy="Set it: no branch is taken by default.",
                    )
                raise setting("endpoint").error(
                    "is missing", remedy=f"Set it to {ENDPOINT_FORMAT} (or set 'instance')."
                )
            if self.password is not None:
                raise setting("password").error(
                    "is set although auth is 'oauth'",
                    remedy="Remove it, or use auth='password' for a native Postgres password.",
                )
            if self.host is not None and self.host.split(".")[0].endswith("-pooler"):
                raise setting("host").error(
                    "is a pooled host, which does not accept OAuth tokens",
                    remedy="Remove 'host' (it is resolved from the endpoint), or use auth='password'.",
                )

    def _check_instance(self) -> None:
        if self.instance is None:
            return
        try:
            instance_path(self.instance)
        except NameRefusedError as refused:
            raise setting("instance").error(refused.problem, remedy=refused.remedy) from None

    def _check_credentials(self) -> None:
        if self.auth == "password":
            for name in ("user", "password"):
                if getattr(self, name) is None:
                    raise setting(name).error("is missing although auth is 'password'")
            if self.host is None and self.endpoint is None and self.instance is None:
                raise setting("host").error(
                    "is missing", remedy="Set 'host', or the endpoint that it belongs to."
                )
        if self.client_secret is not None and self.client_id is None:
            raise setting("client_id").error("is missing although 'client_secret' is set")
        if self.client_secret is not None and self.token is not None:
            raise ConfigError(
                "Both 'client_secret' and 'token' are set.",
                remedy="Keep one: the service principal's client id and secret, or a workspace token.",
            )
        if (self.client_secret is not None or self.token is not None) and self.workspace_host is None:
            raise setting("workspace_host").error(
                "is missing", remedy="Set it to https://<workspace>.databricks.com."
            )
        if self.azure_client_secret is not None and self.azure_client_id is None:
            raise setting("azure_client_id").error("is missing although 'azure_client_secret' is set")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, /, **overrides: object) -> LakebaseConfig:
        """Read the variables that the Lakebase documentation names.

        An override of the target or the principal ignores the variables of the other one, so that a token
        never goes to another endpoint's host.

        Args:
            environ: Variables to read; the process's own by default.
            overrides: Settings by name that take precedence.

        Raises:
            ConfigError: A setting is missing, malformed or contradicts another.
        """
        overrides = opaque(settings(), overrides)
        require_not_blank(overrides)
        found = read_environment(settings(), environ)
        # No frame that an error passes through holds it.
        del environ
        address = kept_address(found, overrides)
        for name in left_out(found, overrides):
            found.pop(name, None)
        if any(overrides.get(name) for name in ADDRESS):
            # An endpoint in the environment says the project, and the branch, that an id is in.
            found.update({name: value for name, value in address.items() if name in ("project", "branch")})
        found.update(overrides)
        # psql's own variable; it does not apply to Lakebase with OAuth.
        if found.get("auth", "oauth") == "oauth" and "password" not in overrides:
            found.pop("password", None)
        return cls.from_mapping(found)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object]) -> LakebaseConfig:
        """Read settings by name: Airflow's extras, Dagster's configuration, a parsed file.

        Numbers may be text. None and empty text count as not set.

        Raises:
            ConfigError: A key is unknown, or a setting is missing, malformed or contradicts another.
        """
        found = _settings_in(mapping)
        # It may hold secrets, and a traceback may show this frame.
        del mapping
        if isinstance(found, str):
            raise ConfigError(f"The settings are a {found}, not a mapping.", remedy="Give them by name.")
        for key in found:
            if key not in _BY_NAME:
                known = list(_BY_NAME)
                close = difflib.get_close_matches(str(key), known, n=1)
                raise ConfigError(
                    f"Unknown setting '{key}'.",
                    remedy=f"Did you mean '{close[0]}'?"
                    if close
                    else f"The settings are: {', '.join(known)}.",
                )
        return cls(**{key: value for key, value in found.items() if value is not None and value != ""})  # type: ignore[arg-type] # each value is parsed in __post_init__

    @classmethod
    def from_uri(cls, uri: str) -> LakebaseConfig:
        """Read ``lakebase://user@host:port/database?endpoint=…``; each part and the query are optional.

        Raises:
            ConfigError: As in :meth:`from_mapping`, or the scheme is a different one.
        """
        found = _uri_settings(uri)
        # It may hold a password, and errors pass through here.
        del uri
        if isinstance(found, ConfigError):
            raise found
        return cls.from_mapping(found)

    def credential_key(self) -> tuple[object, ...]:
        """What a token depends on: two configurations with equal keys may share one, others must not."""
        return tuple(getattr(self, name) for name in _CREDENTIAL_SETTINGS)

    def replace(self, **changes: object) -> LakebaseConfig:
        """A copy with other settings, validated again. With another endpoint or branch it has no host.

        Raises:
            ConfigError: A setting is malformed or contradicts another; or only a host is changed, so that the
                old host's secrets would be sent to the new one.
        """
        changes = opaque(settings(), changes)
        require_not_blank(changes)
        unchanged = {row.name: getattr(self, row.name) for row in settings()}
        require_same_host(unchanged, changes)
        unchanged |= {**dict.fromkeys((*ADDRESS, "host")), **kept_address(unchanged, changes)}
        return LakebaseConfig.from_mapping({**unchanged, **changes})

    def on_branch(self, branch: str) -> LakebaseConfig:
        """The same connection on another branch: its endpoint ``primary``, at a host that is resolved anew.

        Args:
            branch: Name of the branch, ``projects/<project>/branches/<branch>``, or its id in this project.

        Raises:
            ConfigError: It is no name of a branch, or an id although the project is not known; or this is a
                Provisioned instance, which has no branches.
        """
        require_not_blank({"branch": branch}, none_too=True)
        return self.replace(endpoint=None, branch=branch, host=None)


#: The endpoint alone is not enough: two principals on one endpoint must never share a token.
_CREDENTIAL_SETTINGS = (
    *("endpoint", "instance", "auth", "password", "workspace_host"),
    *("auth_type", "credential_ttl", "credential_store"),
    *(name for principal in PRINCIPALS for name in principal),
)


def _settings_in(mapping: object) -> dict[str, object] | str:
    """The settings, secrets opaque; or of what is no mapping the type's name."""
    return opaque(settings(), mapping) if isinstance(mapping, Mapping) else type(mapping).__name__


def _uri_settings(uri: object) -> dict[str, object] | ConfigError:
    """The settings in a URI, with secrets opaque, or an error, which is returned and not raised here."""
    if not isinstance(uri, str):
        return ConfigError(f"The URI is a {type(uri).__name__}, not text.", remedy="Use lakebase://….")
    found_flaw = flaw(uri)
    if found_flaw is not None:
        return ConfigError(f"The URI holds {found_flaw}.", remedy="Percent-encode such characters.")
    try:
        parts = urlsplit(uri)
        query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query), keep_blank_values=True))
    except ValueError:
        return ConfigError(
            "The URI is malformed.", remedy="Use lakebase://user@host:port/database?setting=value."
        )
    if parts.scheme not in ("lakebase", "postgresql", "postgres") or not uri.partition(":")[2].startswith(
        "//"
    ):
        return ConfigError("The URI's scheme is not one of Lakebase's.", remedy="Use lakebase://….")
    try:
        port = parts.port
    except ValueError:
        return setting("port").error("of the URI is not a number between 0 and 65535")
    found: dict[str, object] = {
        "host": parts.hostname,
        "port": port,
        "user": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "database": unquote(parts.path.lstrip("/")) or None,
    }
    if found["password"] is not None:
        query.setdefault("auth", "password")
    return opaque(settings(), {**{k: v for k, v in found.items() if v is not None}, **query})


def _hide_secrets_at_once(config: type[LakebaseConfig]) -> None:
    """Make secrets opaque before the generated constructor gets them, since errors pass through its frame."""
    generated: Callable[..., None] = config.__init__

    @functools.wraps(generated)
    def init(self: LakebaseConfig, **values: Any) -> None:
        values = opaque(settings(), values)
        generated(self, **values)

    config.__init__ = init  # type: ignore[method-assign] # the same signature, which mypy cannot see


def _table() -> tuple[Setting, ...]:
    return tuple(
        Setting(name=f.name, default=f.default, **f.metadata["setting"])
        for f in dataclasses.fields(LakebaseConfig)
    )


_SETTINGS = _table()
_BY_NAME = {row.name: row for row in _SETTINGS}
_hide_secrets_at_once(LakebaseConfig)


def settings() -> tuple[Setting, ...]:
    """The rows of the table, in the order in which a form shows them."""
    return _SETTINGS


def setting(name: str) -> Setting:
    """The row of that name."""
    return _BY_NAME[name]
