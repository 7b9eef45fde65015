"""Operators of synced tables, which Databricks fills from Delta tables. Import them from here."""

from lakebase_provider.operators.sync.declaring import LakebaseSyncedTableOperator
from lakebase_provider.operators.sync.syncing import LakebaseSyncOperator

__all__ = ["LakebaseSyncOperator", "LakebaseSyncedTableOperator"]
