"""The settings of a connection."""

from __future__ import annotations

from lakebase_provider.core.config.config import (
    LakebaseConfig,
    setting,
    settings,
)

__all__ = [
    "LakebaseConfig",
    "setting",
    "settings",
]
