"""Retries that know which failures are transient."""

from __future__ import annotations

from lakebase_provider.retries.policy import (
    lakebase_retries,
    lakebase_retry_policy,
)

__all__ = [
    "lakebase_retries",
    "lakebase_retry_policy",
]
