"""Tables as assets: ``lakebase://host[:port]/database/schema/table``."""

from __future__ import annotations

from lakebase_provider.assets.lakebase import (
    convert_asset_to_openlineage,
    create_asset,
    sanitize_uri,
)

__all__ = [
    "convert_asset_to_openlineage",
    "create_asset",
    "sanitize_uri",
]
