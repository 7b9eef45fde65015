"""Operators that look after tables in use, one for each kind of maintenance. Import them from here."""

from lakebase_provider.operators.maintenance.structures import (
    LakebaseIndexOperator,
    LakebasePartitionsOperator,
)
from lakebase_provider.operators.maintenance.tables import (
    LakebaseAnalyzeOperator,
    LakebaseRefreshMaterializedViewOperator,
    LakebaseRepairSequencesOperator,
    LakebaseStatementsDigestOperator,
    LakebaseVacuumOperator,
)

__all__ = [
    "LakebaseAnalyzeOperator",
    "LakebaseIndexOperator",
    "LakebasePartitionsOperator",
    "LakebaseRefreshMaterializedViewOperator",
    "LakebaseRepairSequencesOperator",
    "LakebaseStatementsDigestOperator",
    "LakebaseVacuumOperator",
]
