"""An Airflow connection, read as the settings of a :class:`~lakebase_provider.core.LakebaseConfig`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from lakebase_provider._airflow.connection.databricks import check_clash, workspace_credentials
from lakebase_provider._airflow.connection.deployment import deployment_settings, told_where
from lakebase_provider._airflow.connection.stored_connection import StoredConnection, with_secrets_hidden
from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.config import LakebaseConfig, setting, settings
from lakebase_provider.core.config.addresses import ADDRESS, kept_address, require_not_blank
from lakebase_provider.core.config.environment import read_environment, require_same_host
from lakebase_provider.core.config.places import DATABASE_PLACE, led_elsewhere, secrets_used
from lakebase_provider.core.errors import ConfigError

#: Columns of a connection and the settings that they carry; the password's meaning depends on `auth`.
_COLUMNS = {"host": "host", "port": "port", "schema": "database", "login": "user"}
_SECRETS = tuple(row.name for row in settings() if row.kind == "secret")
_NAME = setting("application_name").default
#: What the form once stored for a connection whose fields nobody had edited.
_UNTOUCHED = {
    row.name: row.default
    for row in settings()
    if row.default is not None and row.name not in _COLUMNS.values()
}
#: Postgres truncates names after this many ASCII characters.
_NAME_BYTES = 63
#: As many as a date with a time needs.
_RUN_BYTES = 19
#: Settings that say how to authenticate at the workspace without a client secret.
_OTHER_CREDENTIALS = ("token", "profile", "auth_type", "azure_client_secret")


class ConnectionSettings:
    """What a connection and the hook's arguments say together, not validated yet.

    An override takes precedence over an extra, and an extra over a column of the form. A blank field is not
    set. What is not set has the deployment's value (:mod:`.deployment`), or else the default.

    Args:
        connection: The connection; its password is the service principal's client secret, or with
            ``auth=password`` the native password.
        overrides: Settings by name, ``cursor`` and ``databricks_conn_id`` among them.

    Raises:
        ConfigError: The extra is not a JSON object; or only the host is overridden, which would get the
            connection's secret.

    Attributes:
        cursor: The form of rows: the name of a cursor, or None for tuples.
        databricks_conn_id: The connection that provides the workspace and its credentials, or None.
    """

    def __init__(self, connection: StoredConnection, overrides: Mapping[str, object]) -> None:
        self._connection = connection
        overrides = with_secrets_hidden(overrides)
        with _naming(connection):
            columns = {setting: getattr(connection, column) for column, setting in _COLUMNS.items()}
            extras = connection.require_extras()
            self._stored = {**_set(columns), **_set(extras)}
            given = _set(overrides)
            # Another endpoint or branch keeps nothing of where the connection's own is.
            own = {name: value for name, value in self._stored.items() if name not in (*ADDRESS, "host")}
            self._found = {**own, **kept_address(self._stored, given), **given}
            # What else is empty counts as left out. An operator of common-sql repeats the extras.
            own_words = {k: v for k, v in overrides.items() if k not in extras or extras[k] != v}
            require_not_blank(own_words, none_too=True)
            self._drop_untouched(extras, overrides)
            whole = _with_password(self._stored, connection.password)
            # An operator of common-sql gives the hook all that its connection holds once more, secrets too.
            require_same_host(whole, {k: v for k, v in overrides.items() if v != whole.get(k)})
            self._require_same_use(given)
            self.cursor = self._pop_text("cursor")
            self.databricks_conn_id = self._pop_text("databricks_conn_id")

    def config(
        self, databricks: StoredConnection | None = None, *, application_name: str | None = None
    ) -> LakebaseConfig:
        """The configuration.

        Args:
            databricks: The connection of that id, if one is named.
            application_name: What ``pg_stat_activity`` shows unless the connection sets its own.

        Raises:
            ConfigError: A setting is unknown, missing, malformed or contradicts another; the message names
                the connection and the setting. No network call has been made.
        """
        with _naming(self._connection):
            found = dict(self._found)
            if databricks is not None:
                check_clash(found, self._connection.password, databricks.conn_id)
                found.update(workspace_credentials(databricks))
            _add_password(found, self._connection.password)
            if found.get("application_name", _NAME) == _NAME:
                found.pop("application_name", None)
            deployment = deployment_settings()
            said = {name: one for name, one in deployment.items() if name not in found}
            found.update({name: one.value for name, one in said.items()})
            if application_name is not None:
                found.setdefault("application_name", application_name)
            try:
                config = LakebaseConfig.from_mapping(found)
            except ConfigError as error:
                raise told_where(error, said) from None
            self._require_trusted_place(found, {name: one.value for name, one in deployment.items()})
            return config

    def _require_trusted_place(self, found: Mapping[str, object], deployment: Mapping[str, object]) -> None:
        """Refuse what leads a secret, or the token that it mints, elsewhere than those say who gave it."""
        used = [name for name in secrets_used(found) if name in found]
        stored = _with_password(self._stored, self._connection.password)
        if used and all(name in self._found and self._found[name] != stored.get(name) for name in used):
            # Whoever gives the hook a secret says to where it goes.
            return
        own = next((name for name in used if name in stored), None)
        if own is not None:
            names = (*DATABASE_PLACE, *(("azure_tenant_id",) if own == "azure_client_secret" else ()))
            name = led_elsewhere(found, {**deployment, **self._stored}, names=names)
            name = name or self._told_by_another(found)
            if name is not None:
                raise ConfigError(
                    f"Setting '{name}' is overridden, and '{own}' belongs to what the connection says.",
                    remedy=f"Override '{own}' too, or set '{name}' in the connection or in another one.",
                )
            return
        environment = read_environment(map(setting, DATABASE_PLACE), None)
        # A connection that names a Databricks one beside which no server is named: the workspace says which.
        names = DATABASE_PLACE if self.databricks_conn_id is None or "host" in found else ("sslmode",)
        name = led_elsewhere(found, deployment, environment, names=names)
        if name is not None:
            raise ConfigError(
                f"Setting '{name}' is set, and the secret that logs in there is not the connection's own.",
                remedy=f"Drop '{name}', or put a secret beside it; or set {setting(name).env[0]} to the same "
                "in the environment of Airflow's processes.",
            )

    def _require_same_use(self, given: Mapping[str, object]) -> None:
        """Refuse an argument by which the column's secret would be another: the workspace's the database's.

        Which of the two it is the connection says, so that nobody shows the one to whom the other is for.
        """
        if self._connection.password is None:
            return
        mine, used = (_column_of(found.get("auth")) for found in (self._stored, self._found))
        if mine != used and used not in given:
            raise ConfigError(
                f"Setting 'auth' is overridden, and '{mine}' belongs to what the connection says.",
                remedy=f"Override '{used}' too, or set 'auth' in a connection of its own.",
            )

    def _told_by_another(self, found: Mapping[str, object]) -> str | None:
        """The setting by which another workspace would say where a connection's native password goes."""
        if found.get("auth") != "password" or "host" in found:
            return None
        if self.databricks_conn_id != self._stored.get("databricks_conn_id"):
            return "databricks_conn_id"
        if self.databricks_conn_id is not None:
            return None
        return led_elsewhere(found, self._stored, names=("workspace_host",))

    def _drop_untouched(self, extras: Mapping[str, object], overrides: Mapping[str, object]) -> None:
        """Forget the defaults that the form stored with every connection until it left its fields empty.

        Then all of them are there, which nobody does by hand, and none of them is a choice.
        """
        if not all(name in _set(extras) for name in _UNTOUCHED):
            return
        # common-sql's own operators also pass all extras to the hook as arguments.
        merged = extras.keys() <= overrides.keys()
        for name, default in _UNTOUCHED.items():
            repeated = merged and overrides[name] == extras[name]
            if _is_default(extras[name], default) and (repeated or name not in overrides):
                self._found.pop(name, None)

    def _pop_text(self, name: str) -> str | None:
        value = self._found.pop(name, None)
        if value is not None and not isinstance(value, str):
            raise ConfigError(
                f"Setting '{name}' must be text, not {type(value).__name__}.", remedy=f"Correct '{name}'."
            )
        return value


@contextmanager
def _naming(connection: StoredConnection) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        message = f"Connection '{connection.conn_id}': {error.message}"
        raise ConfigError(message, remedy=error.remedy) from None


def task_name() -> str | None:
    """Dag, task and run, as far as they fit, for a person who reads pg_stat_activity."""
    dag, task, run = (os.environ.get(f"AIRFLOW_CTX_{name}") for name in ("DAG_ID", "TASK_ID", "DAG_RUN_ID"))
    if not dag or not task:
        return None
    # The time in scheduled__2026-01-01T00:00:00+00:00, which distinguishes runs.
    tail = f"@{(run.partition('__')[2] or run)[:_RUN_BYTES]}" if run else ""
    return f"{dag}.{task}"[: _NAME_BYTES - len(tail)] + tail


def secrets_of(config: LakebaseConfig) -> list[Secret]:
    """The secrets that a configuration holds."""
    return [value for name in _SECRETS if isinstance(value := getattr(config, name), Secret)]


def _set(values: Mapping[str, object]) -> dict[str, object]:
    return {k: v for k, v in values.items() if v is not None and not (isinstance(v, str) and not v.strip())}


def _is_default(value: object, default: object) -> bool:
    if isinstance(default, int | float) and isinstance(value, str):
        try:
            return float(value) == default
        except ValueError:
            return False
    return value == default


def _with_password(found: Mapping[str, object], password: Secret | None) -> dict[str, object]:
    """Adds the column that holds a native password or else a client secret."""
    return {**found, **({} if password is None else {_column_of(found.get("auth")): password})}


def _column_of(auth: object) -> str:
    """The setting that a connection's password is."""
    return "password" if auth == "password" else "client_secret"


def _add_password(found: dict[str, object], password: Secret | None) -> None:
    given = password is not None
    if found.get("auth", "oauth") == "password":
        if given:
            found.setdefault("password", password)
        return
    if given and "client_secret" not in found:
        clash = next((name for name in _OTHER_CREDENTIALS if name in found), None)
        if clash is not None:
            raise ConfigError(
                f"Both the password (a client secret) and '{clash}' are set.",
                remedy=f"Keep one: the client id and secret, or '{clash}'.",
            )
        found["client_secret"] = password
    if "client_secret" in found and "user" in found:
        found.setdefault("client_id", found["user"])
