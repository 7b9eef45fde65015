"""The credential core: it knows neither Airflow nor Dagster.

The public names are loaded at first use, so that reading the table of settings (Airflow does it for its
connection form, at every parse) does not import psycopg.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lakebase_provider.core.client import LakebaseClient
    from lakebase_provider.core.config import LakebaseConfig
    from lakebase_provider.core.errors import LakebaseError
    from lakebase_provider.core.health import HealthReport, StageResult
    from lakebase_provider.core.secret import Secret
    from lakebase_provider.core.shared import close_shared_clients, shared_client
    from lakebase_provider.core.token import Token, TokenPolicy

__all__ = [
    "HealthReport",
    "LakebaseClient",
    "LakebaseConfig",
    "LakebaseError",
    "Secret",
    "StageResult",
    "Token",
    "TokenPolicy",
    "close_shared_clients",
    "shared_client",
]

_HOMES = {
    "HealthReport": "health",
    "LakebaseClient": "client",
    "LakebaseConfig": "config",
    "LakebaseError": "errors",
    "Secret": "secret",
    "StageResult": "health",
    "Token": "token",
    "TokenPolicy": "token",
    "close_shared_clients": "shared",
    "shared_client": "shared",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
