"""From a task in Airflow's interface to the database, or the pipeline, in Databricks'."""

from __future__ import annotations

from lakebase_provider.links.console import (
    LakebaseConsoleLink,
    LakebasePipelineLink,
    console_url,
)

__all__ = [
    "LakebaseConsoleLink",
    "LakebasePipelineLink",
    "console_url",
]
