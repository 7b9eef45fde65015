"""An Airflow connection as stored, with secrets opaque, so that an error's frames may hold it.

Airflow's own ``Connection`` shows its password in its ``repr``, and so does every tool that shows the
variables of a traceback. It is read here, once, by functions that raise nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.config import settings
from lakebase_provider.core.config.field import Unreadable
from lakebase_provider.core.errors import ConfigError

if TYPE_CHECKING:
    from airflow.sdk import Connection

_FIELDS = ("conn_id", "conn_type", "host", "port", "schema", "login", "password", "extra")
_SETTINGS = {row.name: row for row in settings()}
#: Extras that are neither settings of the core nor secrets.
_PLAIN_EXTRAS = {"cursor", "databricks_conn_id", "host", "service_principal_oauth"}


@dataclass(frozen=True)
class StoredConnection:
    """What a connection holds.

    Attributes:
        extras: The extra's fields; empty if there is none, or if it is malformed.
        malformed: Why the extra is malformed, and what to do; None if it is not.
    """

    conn_id: str
    conn_type: str | None
    host: str | None
    port: int | None
    schema: str | None
    login: str | None
    password: Secret | None
    extras: Mapping[str, object] = field(default_factory=dict)
    malformed: tuple[str, str] | None = None

    @classmethod
    def read(cls, connection: Connection) -> StoredConnection:
        """What the connection holds; raises nothing."""
        password = connection.password
        extras = _extras(connection.extra)
        return cls(
            conn_id=str(connection.conn_id),
            conn_type=connection.conn_type,
            host=connection.host,
            port=connection.port,
            schema=connection.schema,
            login=connection.login,
            password=Secret(password) if isinstance(password, str) and password.strip() else None,
            extras=extras if isinstance(extras, dict) else {},
            malformed=None if isinstance(extras, dict) else extras,
        )

    @property
    def shown_name(self) -> str | None:
        """What errors call it; None if it has no id."""
        return None if self.conn_id == "None" else f"Airflow connection '{self.conn_id}'"

    def require_extras(self) -> Mapping[str, object]:
        """The extra's fields.

        Raises:
            ConfigError: The extra is not a JSON object.
        """
        if self.malformed is not None:
            raise ConfigError(self.malformed[0], remedy=self.malformed[1])
        return self.extras


@dataclass(frozen=True)
class GivenConnection:
    """An Airflow connection given as an object, kept without showing itself."""

    kind: type[Connection]
    fields: Secret

    @classmethod
    def keep(cls, connection: Connection) -> GivenConnection:
        """Keep it; raises nothing."""
        fields = {name: getattr(connection, name) for name in _FIELDS}
        return cls(type(connection), Secret(json.dumps(fields), pieces=False))

    def connection(self) -> Connection:
        """A connection equal to the given one."""
        return self.kind(**json.loads(self.fields.reveal()))


def with_secrets_hidden(values: Mapping[str, object]) -> dict[str, object]:
    """A copy that may be shown: secrets are opaque, and so are values with unknown names."""
    return {str(name): _hidden(str(name), value) for name, value in values.items()}


def _hidden(name: str, value: object) -> object:
    row = _SETTINGS.get(name)
    if row is not None:
        return row.hidden(value)
    if value is None or name in _PLAIN_EXTRAS or isinstance(value, (bool, Secret)):
        return value
    return Secret(value) if isinstance(value, str) else Unreadable(type(value).__name__)


def _extras(text: str | None) -> dict[str, object] | tuple[str, str]:
    # Not connection.extra_dejson: it talks to Airflow's supervisor, which an event loop must not wait for.
    if not text or not text.strip():
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return "Extra is not valid JSON.", "Correct the connection's extra."
    if not isinstance(found, dict):
        return "Extra is not a JSON object.", 'Use the form {"setting": "value"}.'
    return with_secrets_hidden(found)
