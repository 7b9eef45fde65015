"""Tables as assets: ``lakebase://host[:port]/database/schema/table``, and those that are synced to it.

The host is the database's, as in the connection, or any other name that is used for it consistently; an
asset's URI contains neither user nor password.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.sdk import Asset

_DEFAULT_PORT = 5432
_FORM = "lakebase://host[:port]/database/schema/table"


def create_asset(
    *,
    host: str,
    table: str,
    schema: str = "public",
    database: str = "databricks_postgres",
    port: int = _DEFAULT_PORT,
    extra: dict[str, Any] | None = None,
) -> Asset:
    """A table as an asset.

    Args:
        host: Host name of the database.
        table: Name of the table, as in the catalog.
        schema: Name of its schema.
        database: Name of its database.
        port: Port of the server.
        extra: Further data to store with the asset.
    """
    from airflow.sdk import Asset

    path = "/".join(quote(part, safe="") for part in (database, schema, table))
    return Asset(uri=f"lakebase://{host}:{port}/{path}", extra=extra or {})


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """One canonical form for each table: the host in lower case, always with a port, and nothing else.

    Args:
        uri: A URI of scheme ``lakebase``.

    Raises:
        ValueError: It has no host, or anything other than a database, a schema and a table; or it has a user.
    """
    # Never the URI itself: somebody may have put a password in it.
    if uri.username is not None or uri.password is not None:
        raise ValueError(f"URI format {_FORM} must contain neither user nor password.")
    if not uri.hostname:
        raise ValueError(f"URI format {_FORM} must contain a host.")
    if uri.query or uri.fragment:
        raise ValueError(f"URI format {_FORM} must contain neither a query nor a fragment.")
    parts = uri.path.split("/")
    if len(parts) != 4 or not all(parts[1:]):
        raise ValueError(f"URI format {_FORM} must contain database, schema and table names.")
    path = "/" + "/".join(quote(unquote(part), safe="") for part in parts[1:])
    return uri._replace(
        scheme="lakebase", netloc=f"{uri.hostname.lower()}:{uri.port or _DEFAULT_PORT}", path=path
    )


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> Dataset:
    """The asset with OpenLineage's name for a Postgres table, so that it matches the datasets of SQL tasks.

    Args:
        asset: An asset with a URI of scheme ``lakebase``.
        lineage_context: Unused.
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    uri = sanitize_uri(urlsplit(asset.uri))
    name = ".".join(unquote(part) for part in uri.path.split("/")[1:])
    return Dataset(namespace=f"postgres://{uri.netloc}", name=name)
