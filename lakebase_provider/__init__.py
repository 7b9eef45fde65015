"""Databricks Lakebase for Airflow, and the core that Dagster and scripts share.

Airflow reads this module at every start, so it imports nothing but the standard library.
"""

from __future__ import annotations

from typing import Any

from lakebase_provider.version import __version__

__all__ = ["__version__", "get_provider_info"]


def get_provider_info() -> dict[str, Any]:
    """What Airflow needs to know about this provider, including its connection form.

    Returns:
        A mapping as Airflow's ``provider_info.schema.json`` describes it.
    """
    from lakebase_provider._airflow.connection import provider_info

    return provider_info.get_provider_info()
