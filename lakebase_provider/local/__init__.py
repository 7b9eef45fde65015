"""A Lakebase on this machine, for tests and demos: real Postgres, TLS with tokens, and a control plane."""

from lakebase_provider.local.admin import Admin
from lakebase_provider.local.errors import LocalLakebaseError
from lakebase_provider.local.lakebase import LocalLakebase

__all__ = ["Admin", "LocalLakebase", "LocalLakebaseError"]
