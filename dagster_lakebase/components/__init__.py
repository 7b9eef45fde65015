"""What Dagster's ``dg`` finds: it registers every component that this module exports, so it exports only."""

from __future__ import annotations

__all__: list[str] = []
