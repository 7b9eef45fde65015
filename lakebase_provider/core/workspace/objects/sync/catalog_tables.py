"""Tables of the Unity Catalog: where the files of one are, and credentials that read them for a while."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from lakebase_provider.core.base.clock import Clock, Deadline
from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.config.allowed_hosts import loopback_is_allowed
from lakebase_provider.core.config.resource_names import UC_TABLE
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.workspace.answers import Answer, shown
from lakebase_provider.core.workspace.http_limits import at_most
from lakebase_provider.core.workspace.objects.object_kind import in_thread
from lakebase_provider.core.workspace.workspace import ControlPlane
from lakebase_provider.core.workspace.writes import again_while_busy

#: Seconds within which a request is repeated.
_READ = 20.0
#: The stores that the credentials are for, and whose hosts their names can only be.
_STORES = {
    "s3": re.compile(r"[a-z0-9][a-z0-9.-]{1,62}"),
    "abfss": re.compile(
        r"[a-z0-9$][a-z0-9$-]{0,62}@[a-z0-9]{3,24}\.dfs\.core\."
        r"(?:windows\.net|usgovcloudapi\.net|chinacloudapi\.cn)"
    ),
    # Of a local Lakebase, or another catalog on this machine.
    "file": re.compile(""),
}
_PATH = re.compile(r"(?:/(?!\.\.?(?:/|$))[^/?#\\\x00-\x20]+)+/?")
#: The fields of an answer that hold a credential, and what the library deltalake calls it.
_CREDENTIALS = {
    "aws_temp_credentials": {
        "access_key_id": "AWS_ACCESS_KEY_ID",
        "secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "session_token": "AWS_SESSION_TOKEN",
    },
    "azure_user_delegation_sas": {"sas_token": "AZURE_STORAGE_SAS_TOKEN"},
    "azure_aad": {"aad_token": "AZURE_STORAGE_TOKEN"},
}


@dataclass(frozen=True)
class TableStorage:
    """Where a table is, and what opens it there.

    Attributes:
        name: Its name in the Unity Catalog.
        location: The URI of its folder.
        credentials: Options of the store with their values, as the library deltalake names them.
        expires: Until when they are valid; None if the workspace does not say.
    """

    name: str
    location: str
    credentials: Mapping[str, Secret] = field(repr=False)
    expires: datetime | None = None

    def options(self) -> dict[str, str]:
        """The credentials in the open, as the library takes them."""
        return {name: secret.reveal() for name, secret in self.credentials.items()}

    def is_over(self, now: datetime) -> bool:
        """Whether the credentials are no longer valid, as far as the workspace says."""
        return self.expires is not None and self.expires <= now


class CatalogTables:
    """Tables of the Unity Catalog, as ``client.workspace.catalog_tables``; `astorage` is for asyncio.

    Args:
        control_plane: Sends the requests.
        clock: Where the time comes from.
    """

    def __init__(self, control_plane: ControlPlane, clock: Clock) -> None:
        self._tables = control_plane.of_api("unity-catalog", version="2.1")
        self._credentials = control_plane.of_api("unity-catalog")
        self._clock = clock

    def storage(self, name: str) -> TableStorage:
        """Where a Delta table is, with credentials that read it for about an hour.

        The principal needs SELECT on the table and EXTERNAL USE SCHEMA on its schema, and the metastore has
        to allow external data access.

        Args:
            name: The table's name, ``<catalog>.<schema>.<table>``.

        Raises:
            ConfigError: It is no name of a table, no Delta table, or in a store of which the library
                deltalake takes no such credentials.
            PermissionDeniedError: The principal may not read it from outside of Databricks.
            LakebaseError: The workspace refused or could not be reached.
        """
        if not isinstance(name, str) or not UC_TABLE.fullmatch(name):
            raise ConfigError(
                "The name of the table is not in the form <catalog>.<schema>.<table>.",
                remedy="Give its full name in the Unity Catalog.",
            )
        what = f"table {name}"
        table = Answer(self._asked(lambda: self._tables.request(what, "GET", f"tables/{name}")), what)
        told = table.text("full_name")
        if told is not None and told.lower() != name.lower():
            raise table.error("full_name", f"is {shown(told)!r}, not {name!r}")
        kind = table.text("data_source_format") or table.text("table_type")
        if kind != "DELTA":
            raise ConfigError(
                f"The table {name} of the Unity Catalog is of the kind {shown(kind)!r}, not a Delta table.",
                remedy="Name a Delta table, or read it by a query on a SQL warehouse.",
            )
        identity, location = table.text("table_id"), _location(table, name)
        if identity is None:
            raise table.error("table_id", "is missing")
        what = f"credentials for {what}"
        wish = {"table_id": identity, "operation": "READ"}
        answer = Answer(
            self._asked(
                lambda: self._credentials.request(what, "POST", "temporary-table-credentials", body=wish)
            ),
            what,
        )
        return TableStorage(
            name, location, _credentials(answer, location), _moment(answer, "expiration_time")
        )

    def _asked(self, ask: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        return again_while_busy(ask, Deadline(at_most(_READ), self._clock), self._clock, lost=[])

    astorage = in_thread(storage)


def _moment(answer: Answer, name: str) -> datetime | None:
    """A moment in milliseconds since 1970."""
    number = answer.number(name)
    try:
        return None if number is None else datetime.fromtimestamp(number / 1000, timezone.utc)
    except (OverflowError, ValueError, OSError):
        raise answer.error(name, "is no readable time") from None


def _location(table: Answer, name: str) -> str:
    """The URI, of a store to whose hosts alone the credentials can go."""
    location = table.text("storage_location")
    if location is None:
        raise table.error("storage_location", "is missing")
    scheme, _, rest = location.partition("://")
    place, slash, path = rest.partition("/")
    if scheme not in _STORES or (scheme == "file" and not loopback_is_allowed()):
        raise ConfigError(
            f"The table {name} is at {shown(scheme)}://, whose credentials deltalake does not take.",
            remedy="Read it by a query on a SQL warehouse.",
        )
    if not _STORES[scheme].fullmatch(place) or not _PATH.fullmatch(slash + path):
        raise table.error("storage_location", f"is a string of {len(location)} characters that is no place")
    return location


def _credentials(answer: Answer, location: str) -> dict[str, Secret]:
    found: dict[str, Secret] = {}
    for kind, names in _CREDENTIALS.items():
        if kind in answer.fields:
            part = answer.object(kind)
            found |= {ours: Secret(part.token(theirs)) for theirs, ours in names.items()}
    if not found and not location.startswith("file:"):
        raise answer.error("aws_temp_credentials", "is missing, and so is every other credential known here")
    return found


__all__ = ["CatalogTables", "TableStorage"]
