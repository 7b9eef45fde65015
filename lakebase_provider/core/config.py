"""To what, and as whom: the settings of a connection, and the one parser of them.

:class:`LakebaseConfig` is the table of the settings: each field carries its label, description, kind,
limits and environment variables. The parser, Airflow's connection form, the Dagster resource and the
documentation are all driven by that table, so a setting is added in one place.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.secret import Secret

Kind = Literal["string", "integer", "number", "secret"]

ENDPOINT_FORMAT = "projects/<project>/branches/<branch>/endpoints/<endpoint>"
_ENDPOINT = re.compile(r"projects/[^/\s]+/branches/[^/\s]+/endpoints/[^/\s]+")

#: Host names that may be given by hand. Anybody who can edit a connection could otherwise send a token
#: to a host of theirs (CVE-2026-81930 in another provider). A deployment adds more, comma-separated, by
#: LAKEBASE_ALLOWED_HOST_SUFFIXES; a connection cannot.
HOST_SUFFIXES = (".databricks.com", ".azuredatabricks.net")
_MORE_HOST_SUFFIXES = "LAKEBASE_ALLOWED_HOST_SUFFIXES"


@dataclass(frozen=True)
class Setting:
    """What is known about one field of :class:`LakebaseConfig` (a row of the table)."""

    name: str
    kind: Kind
    default: Any
    label: str
    description: str
    env: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None

    def parse(self, value: object) -> Any:
        """Turn a text or a native value into the field's type.

        Raises:
            ConfigError: It does not fit; the message names the field and the value's kind, never the value
                of a secret.
        """
        if self.kind == "secret":
            if isinstance(value, Secret):
                return value
            if isinstance(value, str):
                return Secret(value)
            raise self.error(f"must be text, not {type(value).__name__}")
        if self.kind == "string":
            if not isinstance(value, str):
                raise self.error(f"must be text, not {type(value).__name__}")
            if self.choices and value not in self.choices:
                raise self.error(f"is {value!r}", remedy=f"Use one of: {', '.join(self.choices)}.")
            return value
        return self._parse_number(value)

    def _parse_number(self, value: object) -> int | float:
        number_type = int if self.kind == "integer" else float
        a_number = "a whole number" if self.kind == "integer" else "a number"
        # bool is an int to Python; a flag where a number belongs is a mistake all the same.
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise self.error(f"must be {a_number}, not {type(value).__name__}")
        try:
            number = number_type(value)
        except (ValueError, OverflowError):
            raise self.error(f"must be {a_number}, not {value!r}") from None
        if number != number or (isinstance(value, float) and number != value):
            raise self.error(f"must be {a_number}, not {value!r}")
        if self.minimum is not None and number < self.minimum:
            raise self.error(f"is {number}", remedy=f"Use at least {self.minimum:g}.")
        if self.maximum is not None and number > self.maximum:
            raise self.error(f"is {number}", remedy=f"Use at most {self.maximum:g}.")
        return number

    def error(self, problem: str, *, remedy: str | None = None) -> ConfigError:
        """An error that names this field."""
        hint = f" (environment: {' or '.join(self.env)})" if self.env else ""
        return ConfigError(
            f"Setting '{self.name}' {problem}.", remedy=remedy or f"Correct '{self.name}'{hint}."
        )

    def json_schema(self) -> dict[str, Any]:
        """The field as a JSON-schema fragment, as Airflow's connection form takes it."""
        json_type = "string" if self.kind == "secret" else self.kind
        schema: dict[str, Any] = {"type": [json_type, "null"]}
        if self.kind == "secret":
            schema["format"] = "password"
        if self.choices:
            schema["enum"] = list(self.choices)
        if self.minimum is not None:
            schema["minimum"] = self.minimum
        if self.maximum is not None:
            schema["maximum"] = self.maximum
        if self.default is not None:
            schema["default"] = self.default
        return schema


def _setting(
    default: Any,
    label: str,
    description: str,
    *,
    kind: Kind = "string",
    env: tuple[str, ...] = (),
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    row = {
        "kind": kind,
        "label": label,
        "description": description,
        "env": env,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
    }
    return dataclasses.field(default=default, metadata={"setting": row})


Auth = Literal["oauth", "password"]
SslMode = Literal["verify-full", "verify-ca", "require"]


@dataclass(frozen=True, kw_only=True)
class LakebaseConfig:
    """The settings of a connection to one Lakebase database.

    Build it with :meth:`from_env`, :meth:`from_mapping` or :meth:`from_uri`, or directly with native values.
    What is missing is resolved at the first connect: the host from the endpoint, the user from the client id
    or else from the workspace's current user. Without explicit workspace credentials databricks-sdk looks
    for them where it always does (profile, environment, notebook).

    Raises:
        ConfigError: A field is malformed or contradicts another. No network call has been made.
    """

    endpoint: str | None = _setting(
        None,
        "Endpoint",
        f"Lakebase Autoscaling endpoint, {ENDPOINT_FORMAT}.",
        env=("ENDPOINT_NAME", "LAKEBASE_ENDPOINT"),
    )
    instance: str | None = _setting(
        None,
        "Instance",
        "Lakebase Provisioned instance, in place of an endpoint.",
        env=("LAKEBASE_INSTANCE",),
    )
    database: str = _setting(
        "databricks_postgres", "Database", "Name of the Postgres database.", env=("PGDATABASE",)
    )
    user: str | None = _setting(
        None,
        "User",
        "Postgres role: a service principal's client id or a user's e-mail address. Resolved when left out.",
        env=("PGUSER",),
    )
    host: str | None = _setting(
        None, "Host", "Host of the database. Resolved from the endpoint when left out.", env=("PGHOST",)
    )
    port: int = _setting(
        5432, "Port", "Port of the database.", kind="integer", env=("PGPORT",), minimum=1, maximum=65535
    )
    auth: Auth = _setting(
        "oauth",
        "Authentication",
        "oauth: a token that is minted and renewed for you. password: a native Postgres password.",
        env=("LAKEBASE_AUTH",),
        choices=get_args(Auth),
    )
    password: Secret | None = _setting(
        None, "Password", "Native Postgres password, with auth=password.", kind="secret", env=("PGPASSWORD",)
    )
    workspace_host: str | None = _setting(
        None, "Workspace URL", "https://<workspace>.databricks.com", env=("DATABRICKS_HOST",)
    )
    client_id: str | None = _setting(
        None, "Client ID", "Application id of the service principal.", env=("DATABRICKS_CLIENT_ID",)
    )
    client_secret: Secret | None = _setting(
        None,
        "Client secret",
        "OAuth secret of the service principal.",
        kind="secret",
        env=("DATABRICKS_CLIENT_SECRET",),
    )
    token: Secret | None = _setting(
        None,
        "Workspace token",
        "Personal access token, in place of a client id and secret.",
        kind="secret",
        env=("DATABRICKS_TOKEN",),
    )
    profile: str | None = _setting(
        None, "Profile", "Profile of the Databricks configuration file.", env=("DATABRICKS_CONFIG_PROFILE",)
    )
    auth_type: str | None = _setting(
        None,
        "Workspace authentication",
        "A databricks-sdk authentication, such as azure-cli, where the automatic choice does not fit.",
        env=("DATABRICKS_AUTH_TYPE",),
    )
    azure_client_id: str | None = _setting(
        None, "Azure client ID", "Application id of an Entra service principal.", env=("ARM_CLIENT_ID",)
    )
    azure_client_secret: Secret | None = _setting(
        None,
        "Azure client secret",
        "Secret of an Entra service principal.",
        kind="secret",
        env=("ARM_CLIENT_SECRET",),
    )
    azure_tenant_id: str | None = _setting(
        None, "Azure tenant ID", "Tenant of an Entra service principal.", env=("ARM_TENANT_ID",)
    )
    sslmode: SslMode = _setting(
        "verify-full",
        "SSL mode",
        "verify-full checks who the server is before the token is sent.",
        env=("PGSSLMODE",),
        choices=get_args(SslMode),
    )
    sslrootcert: str | None = _setting(
        None,
        "SSL root certificates",
        "File of trusted certificates; certifi's bundle of public ones when left out.",
        env=("PGSSLROOTCERT",),
    )
    min_size: int = _setting(
        0, "Pool minimum", "Connections that a pool keeps open.", kind="integer", minimum=0, maximum=1000
    )
    max_size: int = _setting(
        4,
        "Pool maximum",
        "Connections that a process opens at most.",
        kind="integer",
        minimum=1,
        maximum=1000,
    )
    max_lifetime: float = _setting(
        2700.0,
        "Maximum lifetime",
        "Seconds after which a pooled connection is replaced; the server ends them after 3 days.",
        kind="number",
        minimum=1,
        maximum=259_200,
    )
    max_idle: float = _setting(
        900.0,
        "Maximum idle time",
        "Seconds after which an unused pooled connection is closed; the server does it after 24 hours.",
        kind="number",
        minimum=1,
        maximum=86_400,
    )
    connect_budget: float = _setting(
        60.0,
        "Connect budget",
        "Seconds that obtaining a connection may take, token and waking of the compute included.",
        kind="number",
        minimum=1,
        maximum=3600,
    )
    statement_timeout: float | None = _setting(
        None,
        "Statement timeout",
        "Seconds after which the server cancels a statement.",
        kind="number",
        minimum=0.001,
    )
    lock_timeout: float | None = _setting(
        None, "Lock timeout", "Seconds that a statement waits for a lock.", kind="number", minimum=0.001
    )
    application_name: str = _setting(
        "lakebase-provider", "Application name", "What pg_stat_activity shows.", env=("PGAPPNAME",)
    )

    def __post_init__(self) -> None:
        for row in settings():
            value = getattr(self, row.name)
            if value is not None:
                object.__setattr__(self, row.name, row.parse(value))
            elif row.default is not None:
                object.__setattr__(self, row.name, row.default)
        self._check_target()
        self._check_credentials()
        if self.min_size > self.max_size:
            raise setting("min_size").error(f"is {self.min_size}, more than max_size {self.max_size}")
        if self.host is not None:
            _check_host(setting("host"), self.host)
        if self.workspace_host is not None:
            object.__setattr__(self, "workspace_host", _workspace_url(self.workspace_host))
        if self.sslrootcert is not None and not Path(self.sslrootcert).is_file():
            raise setting("sslrootcert").error(f"names no file: {self.sslrootcert!r}")

    def _check_target(self) -> None:
        if self.endpoint is not None and self.instance is not None:
            raise ConfigError(
                "Both 'endpoint' and 'instance' are set.",
                remedy="Keep 'endpoint' for Lakebase Autoscaling, or 'instance' for Lakebase Provisioned.",
            )
        if self.endpoint is not None and not _ENDPOINT.fullmatch(self.endpoint):
            raise setting("endpoint").error(
                f"is {self.endpoint!r}", remedy=f"Use the form {ENDPOINT_FORMAT}."
            )
        if self.auth == "oauth":
            if self.endpoint is None and self.instance is None:
                raise setting("endpoint").error(
                    "is missing", remedy=f"Set it to {ENDPOINT_FORMAT} (or set 'instance')."
                )
            if self.password is not None:
                raise setting("password").error(
                    "is set although auth is 'oauth'",
                    remedy="Drop it, or use auth='password' for a native Postgres password.",
                )
            if self.host is not None and self.host.split(".")[0].endswith("-pooler"):
                raise setting("host").error(
                    "names a pooled host, which takes no OAuth token",
                    remedy="Drop 'host' (it is resolved from the endpoint), or use auth='password'.",
                )

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

        Args:
            environ: Variables to read; the process's own by default.
            overrides: Settings by name that take precedence.

        Raises:
            ConfigError: A setting is missing, malformed or contradicts another.
        """
        variables = os.environ if environ is None else environ
        found: dict[str, object] = {}
        for row in settings():
            value = next((variables[name] for name in row.env if variables.get(name)), None)
            if value is not None:
                found[row.name] = value
        found.update(overrides)
        # psql's own variable; it says nothing about Lakebase as long as OAuth is asked for.
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
        known = [row.name for row in settings()]
        for key in mapping:
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1)
                raise ConfigError(
                    f"Unknown setting '{key}'.",
                    remedy=f"Did you mean '{close[0]}'?" if close else f"Settings are: {', '.join(known)}.",
                )
        return cls(**{key: value for key, value in mapping.items() if value is not None and value != ""})  # type: ignore[arg-type] # each value is parsed in __post_init__

    @classmethod
    def from_uri(cls, uri: str) -> LakebaseConfig:
        """Read ``lakebase://user@host:port/database?endpoint=…``; each part and the query are optional.

        Raises:
            ConfigError: As in :meth:`from_mapping`, or the scheme is another.
        """
        parts = urlsplit(uri)
        if parts.scheme not in ("lakebase", "postgresql", "postgres"):
            raise ConfigError(
                f"A URI of scheme {parts.scheme!r} is none of Lakebase.", remedy="Use lakebase://…."
            )
        try:
            port = parts.port
        except ValueError:
            raise setting("port").error("of the URI is no number between 0 and 65535") from None
        found: dict[str, object] = {
            "host": parts.hostname,
            "port": port,
            "user": unquote(parts.username) if parts.username else None,
            "password": unquote(parts.password) if parts.password else None,
            "database": unquote(parts.path.lstrip("/")) or None,
        }
        try:
            query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query), keep_blank_values=True))
        except ValueError:
            raise ConfigError(
                "The URI's query is malformed.", remedy="Use ?setting=value&setting=value."
            ) from None
        if found["password"] is not None:
            query.setdefault("auth", "password")
        return cls.from_mapping({**{k: v for k, v in found.items() if v is not None}, **query})

    def replace(self, **changes: object) -> LakebaseConfig:
        """A copy with other settings, checked anew."""
        unchanged = {row.name: getattr(self, row.name) for row in settings()}
        return LakebaseConfig.from_mapping({**unchanged, **changes})


def _table() -> tuple[Setting, ...]:
    return tuple(
        Setting(name=f.name, default=f.default, **f.metadata["setting"])
        for f in dataclasses.fields(LakebaseConfig)
    )


_SETTINGS = _table()


def settings() -> tuple[Setting, ...]:
    """The rows of the table, in the order in which a form shows them."""
    return _SETTINGS


def setting(name: str) -> Setting:
    """The row of that name."""
    return next(row for row in _SETTINGS if row.name == name)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_host(row: Setting, host: str) -> None:
    more = tuple(s.strip() for s in os.environ.get(_MORE_HOST_SUFFIXES, "").split(",") if s.strip())
    name = host.lower().rstrip(".")
    if "," in host or "/" in host or host != host.strip():
        raise row.error(f"is {host!r}, which is not one host name")
    if not _is_loopback(name) and not name.endswith((*HOST_SUFFIXES, *more)):
        raise row.error(
            f"is {host!r}, outside of {', '.join(HOST_SUFFIXES)} and loopback",
            remedy=f"Correct it; a deployment allows further suffixes by the variable {_MORE_HOST_SUFFIXES}.",
        )


def _workspace_url(url: str) -> str:
    row = setting("workspace_host")
    parts = urlsplit(url if "://" in url else f"https://{url}")
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise row.error(f"is {url!r}, which is no URL") from None
    if parts.username or parts.password:
        raise row.error("contains a user name", remedy="Use https://<workspace>.databricks.com alone.")
    _check_host(row, host)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise row.error(f"is {url!r}", remedy="Use https://: a client secret is sent there.")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port else "")
