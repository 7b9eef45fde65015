"""A Lakebase on this machine, for tests and demos: real Postgres, TLS with tokens, and a control plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lakebase_provider.local.contract.errors import LocalLakebaseError
    from lakebase_provider.local.network.fault_proxy import FaultProxy
    from lakebase_provider.local.parent.admin import Admin
    from lakebase_provider.local.parent.lakebase import LocalLakebase

__all__ = ["Admin", "FaultProxy", "LocalLakebase", "LocalLakebaseError"]

_MODULES = {
    "Admin": "parent.admin",
    "FaultProxy": "network.fault_proxy",
    "LocalLakebase": "parent.lakebase",
    "LocalLakebaseError": "contract.errors",
}


def __getattr__(name: str) -> object:
    # Not at import: pytest loads this package, for its plugin, in runs that never use it.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
