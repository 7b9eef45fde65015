"""Which Delta table is meant, and which of its rows: as an object, or as a text that starts with delta:."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from lakebase_provider.core.bulk.files.locations import locate, protocol_of, shown
from lakebase_provider.core.config.resource_names import UC_TABLE
from lakebase_provider.core.errors import ConfigError

if TYPE_CHECKING:
    from lakebase_provider.core.workspace.objects.sync.catalog_tables import CatalogTables, TableStorage

PREFIX = "delta:"
#: Before the name of a table of the Unity Catalog, as the library `deltalake` writes it, too.
_CATALOG = "uc://"
_OPTIONS = ("version", "timestamp", "filter")
#: A question mark may be a part of the path, too.
_QUERY = re.compile(rf"\?(?=(?:{'|'.join(_OPTIONS)})=)")


@dataclass(frozen=True, repr=False)
class Delta:
    """A Delta table as the source of a load: its newest version, or the one that is named.

    As text it is ``"delta:"`` and the path, and behind a question mark what else there is to say, encoded as
    in a URL: ``"delta:s3://lake/orders?version=12"``.

    Args:
        path: The table's folder: a local path, or a URI that the library ``deltalake`` knows, such as
            ``s3://lake/orders``; its protocol has to be one that the deployment allows. Or ``uc://`` and the
            name of a table of the Unity Catalog, such as ``uc://main.sales.orders``.
        version: The version to read; the newest by default.
        timestamp: To read the version of that moment: a datetime with its zone, or text in ISO 8601.
        filter: Which rows to read: a condition in the SQL of DataFusion, such as ``"day >= '2027-01-01'"``.
            Files and parts of them in which there can be none are not read.
        storage_options: Options of the object store, as ``deltalake`` has them; what they leave out comes
            from the environment, such as ``AWS_REGION``. They are never shown.
        catalog: For ``uc://``, the workspace's ``client.workspace.catalog_tables``, which say where the table
            is and give credentials for it; by default those of the client that loads.

    Raises:
        ConfigError: An argument is malformed or contradicts another, or the path may not be read.

    Example:
        >>> client.load(Delta("/lake/orders", version=12, filter="country = 'NZ'"), "orders", mode="replace")
    """

    path: str | os.PathLike[str]
    version: int | None = None
    timestamp: datetime | str | None = None
    filter: str | None = None
    storage_options: Mapping[str, str] | None = None
    catalog: CatalogTables | None = None

    def __post_init__(self) -> None:
        # What is wrong with it is told where it is written, not where it is read.
        _ = self.table_name or self.uri, self.moment
        if self.version is not None and (
            isinstance(self.version, bool) or not isinstance(self.version, int) or self.version < 0
        ):
            raise ConfigError(
                f"The version of the Delta table is {self.version!r}."[:200],
                remedy="Give a number from 0 on.",
            )
        if self.version is not None and self.timestamp is not None:
            raise ConfigError(
                "A Delta table's version and timestamp are both given.", remedy="Give one of them."
            )
        if self.filter is not None and (not isinstance(self.filter, str) or not self.filter.strip()):
            raise ConfigError(
                "The filter of a Delta table is empty or no text.",
                remedy="Leave it out for all rows, or give a condition such as \"day >= '2027-01-01'\".",
            )

    @classmethod
    def parse(cls, text: str) -> Delta:
        """The table that a text names.

        Raises:
            ConfigError: It does not begin with ``delta:``, or an option is unknown or malformed.
        """
        if not text.startswith(PREFIX):
            raise ConfigError(
                f"{shown(text)!r} does not name a Delta table.", remedy=f"Give {PREFIX!r} and its path."
            )
        path, *query = _QUERY.split(text.removeprefix(PREFIX), maxsplit=1)
        options: dict[str, Any] = dict(parse_qsl("".join(query), keep_blank_values=True))
        if unknown := sorted(options.keys() - set(_OPTIONS)):
            raise ConfigError(
                f"{shown(text)!r} has the unknown option {unknown[0]!r}.",
                remedy=f"Use {', '.join(_OPTIONS)}; write & as %26 and + as %2B within their values.",
            )
        if "version" in options:
            given = options["version"]
            # Of what is no number, the constructor says so.
            options["version"] = int(given) if given.isascii() and given.isdigit() else given
        return cls(path, **options)

    @property
    def table_name(self) -> str | None:
        """Its name in the Unity Catalog, if that is what is given.

        Raises:
            ConfigError: It is no name of a table.
        """
        if not isinstance(self.path, str) or not self.path.startswith(_CATALOG):
            return None
        name = self.path.removeprefix(_CATALOG)
        if not UC_TABLE.fullmatch(name):
            raise ConfigError(
                "The name behind uc:// is not in the form <catalog>.<schema>.<table>.",
                remedy="Give the table's full name in the Unity Catalog.",
            )
        return name

    def found_in_catalog(self) -> tuple[Delta, TableStorage]:
        """The table at its place, with new credentials: what of the Unity Catalog has a name.

        Raises:
            ConfigError: There is no workspace to ask, or the table cannot be read from outside of it.
            LakebaseError: The workspace refused or could not be reached.
        """
        if self.catalog is None:
            raise ConfigError(
                f"Where {self} is, only its workspace says, and none is given.",
                remedy="Load it by client.load, or give the Delta a client.workspace.catalog_tables.",
            )
        storage = self.catalog.storage(self.table_name or "")
        options = {**storage.options(), **(self.storage_options or {})}
        return replace(self, path=storage.location, storage_options=options, catalog=None), storage

    @property
    def uri(self) -> str:
        """Where it is, as the library takes it: a local path is absolute."""
        if self.table_name is not None:
            raise ConfigError(
                f"{self} is a table of the Unity Catalog, which is only read by its name.",
                remedy="Give the path of a table that may be written to from outside of Databricks.",
            )
        text = os.fspath(self.path) if isinstance(self.path, (str, os.PathLike)) else self.path
        if not isinstance(text, str):
            raise ConfigError(
                f"The path of a Delta table is a {type(self.path).__name__}.", remedy="Give a path or a URI."
            )
        return uri_of(text, "source")

    @property
    def moment(self) -> datetime | None:
        """`timestamp` as a datetime."""
        given = self.timestamp
        if isinstance(given, str):
            try:
                # Python 3.10 does not read the Z.
                given = datetime.fromisoformat(given.strip().replace("Z", "+00:00").replace("z", "+00:00"))
            except ValueError:
                given = None
        if self.timestamp is not None and (not isinstance(given, datetime) or given.tzinfo is None):
            raise ConfigError(
                f"The timestamp of the Delta table is {self.timestamp!r}."[:200],
                remedy="Give a moment with its zone, such as '2027-01-31T06:00:00Z'.",
            )
        return given

    def __repr__(self) -> str:
        return f"{type(self).__name__}.parse({str(self)!r})"

    def __str__(self) -> str:
        return f"{PREFIX}{shown(os.fspath(self.path))}"


def with_catalog(source: Any, catalog: Callable[[], CatalogTables]) -> Any:
    """A source of rows; a table of the Unity Catalog with the workspace that says where it is.

    Args:
        source: Any source.
        catalog: Gives the workspace's tables, if they are needed.
    """
    if isinstance(source, str) and source.startswith(f"{PREFIX}{_CATALOG}"):
        source = Delta.parse(source)
    if isinstance(source, Delta) and source.table_name is not None and source.catalog is None:
        return replace(source, catalog=catalog())
    return source


def uri_of(text: str, argument: str) -> str:
    """A Delta table's place as the library ``deltalake`` takes it.

    Args:
        text: A local path or a URI.
        argument: Name of the argument that it comes from, for errors.

    Raises:
        ConfigError: As for :func:`~lakebase_provider.core.bulk.files.locations.locate`.
    """
    if protocol_of(text, argument) not in ("", "file", "local"):
        return text
    local = locate(text, argument).local
    assert isinstance(local, Path)
    return str(local.absolute())
