"""From a task in Airflow's interface to the database in Databricks'."""

from __future__ import annotations

from lakebase_provider.links.console import (
    LakebaseConsoleLink,
    console_url,
)

__all__ = [
    "LakebaseConsoleLink",
    "console_url",
]
