"""Delta tables as assets: ``unitycatalog://workspace/catalog/schema/table``, the source of a synced table.

The workspace is its host name, and the URI contains neither user nor password.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.sdk import Asset

_FORM = "unitycatalog://workspace/catalog/schema/table"


def create_unity_catalog_asset(
    *, workspace: str, catalog: str, schema: str, table: str, extra: dict[str, Any] | None = None
) -> Asset:
    """A table of the Unity Catalog as an asset.

    Args:
        workspace: Host name of the workspace.
        catalog: Name of its catalog.
        schema: Name of its schema.
        table: Its name.
        extra: Further data to store with the asset.
    """
    from airflow.sdk import Asset

    path = "/".join(quote(part, safe="") for part in (catalog, schema, table))
    return Asset(uri=f"unitycatalog://{workspace}/{path}", extra=extra or {})


def sanitize_unity_catalog_uri(uri: SplitResult) -> SplitResult:
    """One canonical form for each table: names of the Unity Catalog are the same in upper and lower case.

    Args:
        uri: A URI of scheme ``unitycatalog``.

    Raises:
        ValueError: It has no host, or anything other than a catalog, a schema and a table; or it has a user.
    """
    # Never the URI itself: somebody may have put a password in it.
    if uri.username is not None or uri.password is not None:
        raise ValueError(f"URI format {_FORM} must contain neither user nor password.")
    parts = uri.path.split("/")
    if not uri.hostname or len(parts) != 4 or not all(parts[1:]) or uri.query or uri.fragment:
        raise ValueError(f"URI format {_FORM} must contain a workspace, catalog, schema and table, no more.")
    path = "/" + "/".join(quote(unquote(part).lower(), safe="") for part in parts[1:])
    netloc = uri.hostname.lower() if uri.port is None else f"{uri.hostname.lower()}:{uri.port}"
    return uri._replace(scheme="unitycatalog", netloc=netloc, path=path)


def convert_unity_catalog_to_openlineage(asset: Asset, lineage_context: Any) -> Dataset:
    """The asset with the name that lineage of Databricks' SQL gives the table.

    Args:
        asset: An asset with a URI of scheme ``unitycatalog``.
        lineage_context: Unused.
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    uri = sanitize_unity_catalog_uri(urlsplit(asset.uri))
    name = ".".join(unquote(part) for part in uri.path.split("/")[1:])
    return Dataset(namespace=f"databricks://{uri.netloc}", name=name)
