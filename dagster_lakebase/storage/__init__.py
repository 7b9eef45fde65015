"""Dagster's own runs, events and schedules in Lakebase."""

from __future__ import annotations

from dagster_lakebase.storage.storage import (
    LakebaseEventLogStorage,
    LakebaseRunStorage,
    LakebaseScheduleStorage,
    LakebaseStorage,
)

__all__ = [
    "LakebaseEventLogStorage",
    "LakebaseRunStorage",
    "LakebaseScheduleStorage",
    "LakebaseStorage",
]
