"""The credential core: it knows neither Airflow nor Dagster.

The public names are loaded at first use, so that reading the table of settings (Airflow does it for its
connection form, at every parse) does not import psycopg.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lakebase_provider.core.bulk.load import load
    from lakebase_provider.core.bulk.result import LoadResult
    from lakebase_provider.core.bulk.table import TableName
    from lakebase_provider.core.bulk.transfer import PostgresQuery
    from lakebase_provider.core.bulk.unload import UnloadResult
    from lakebase_provider.core.client import LakebaseClient
    from lakebase_provider.core.config import LakebaseConfig
    from lakebase_provider.core.errors import LakebaseError
    from lakebase_provider.core.health import HealthReport, StageResult
    from lakebase_provider.core.health_thresholds import HealthThresholds
    from lakebase_provider.core.secret import Secret
    from lakebase_provider.core.shared import close_shared_clients, shared_client
    from lakebase_provider.core.token import Token, TokenPolicy

__all__ = [
    "HealthReport",
    "HealthThresholds",
    "LakebaseClient",
    "LakebaseConfig",
    "LakebaseError",
    "LoadResult",
    "PostgresQuery",
    "Secret",
    "StageResult",
    "TableName",
    "Token",
    "TokenPolicy",
    "UnloadResult",
    "close_shared_clients",
    "load",
    "shared_client",
]

_HOMES = {
    "HealthReport": "health",
    "HealthThresholds": "health_thresholds",
    "LakebaseClient": "client",
    "LakebaseConfig": "config",
    "LakebaseError": "errors",
    "LoadResult": "bulk.result",
    "PostgresQuery": "bulk.transfer",
    "Secret": "secret",
    "StageResult": "health",
    "TableName": "bulk.table",
    "Token": "token",
    "TokenPolicy": "token",
    "UnloadResult": "bulk.unload",
    "close_shared_clients": "shared",
    "load": "bulk.load",
    "shared_client": "shared",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
