"""Operators that change a project's objects: branches, snapshots, endpoints. Import them from here."""

from lakebase_provider.operators.branches.endpoints import LakebaseEndpointOperator
from lakebase_provider.operators.branches.restoring import LakebaseRestoreOperator, LakebaseSnapshotOperator
from lakebase_provider.operators.branches.run_branches import (
    LakebaseCreateBranchOperator,
    LakebaseDeleteBranchOperator,
    LakebaseResetBranchOperator,
    LakebaseSweepBranchesOperator,
)

__all__ = [
    "LakebaseCreateBranchOperator",
    "LakebaseDeleteBranchOperator",
    "LakebaseEndpointOperator",
    "LakebaseResetBranchOperator",
    "LakebaseRestoreOperator",
    "LakebaseSnapshotOperator",
    "LakebaseSweepBranchesOperator",
]
