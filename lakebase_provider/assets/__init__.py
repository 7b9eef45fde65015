"""Tables as assets: ``lakebase://host[:port]/database/schema/table``, and their sources in Delta."""

from __future__ import annotations

from lakebase_provider.assets.lakebase import (
    convert_asset_to_openlineage,
    create_asset,
    sanitize_uri,
)
from lakebase_provider.assets.unity_catalog import (
    convert_unity_catalog_to_openlineage,
    create_unity_catalog_asset,
    sanitize_unity_catalog_uri,
)

__all__ = [
    "convert_asset_to_openlineage",
    "convert_unity_catalog_to_openlineage",
    "create_asset",
    "create_unity_catalog_asset",
    "sanitize_unity_catalog_uri",
    "sanitize_uri",
]
