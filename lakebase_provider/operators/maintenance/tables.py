"""Rows, statistics, views and sequences of tables, as tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lakebase_provider.core.upkeep.maintenance.maintenance_options import LONG_TRANSACTION, Concurrently
from lakebase_provider.operators.maintenance.maintaining import MaintainingOperator


class LakebaseVacuumOperator(MaintainingOperator):
    """Removes dead rows, partition by partition, and renews statistics.

    A table is skipped, and the report says why, while a long transaction, a prepared one or an unused
    replication slot keeps its dead rows from being removed. One whose lock is not acquired does not keep the
    others waiting; the task fails when they are done.

    Args:
        tables: Names of the tables or materialized views (templated); by default all that the role may
            vacuum.
        dead_share: The least share of dead rows, from 0 to 1, by the statistics; of tables that are named any
            by default, else 0.1.
        analyze: Whether to renew statistics, too.
        long_transaction: Seconds from which on a transaction counts as a long one.
        kwargs: Arguments of
            :class:`~lakebase_provider.operators.maintenance.maintaining.MaintainingOperator`.

    Example:
        >>> LakebaseVacuumOperator(task_id="vacuum", dead_share=0.2)
    """

    template_fields: Sequence[str] = (*MaintainingOperator.template_fields, "tables")
    options = ("tables", "dead_share", "analyze", "long_transaction")

    def __init__(
        self,
        *,
        tables: str | Sequence[str] | None = None,
        dead_share: float | None = None,
        analyze: bool = True,
        long_transaction: float = LONG_TRANSACTION,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tables = tables
        self.dead_share = dead_share
        self.analyze = analyze
        self.long_transaction = long_transaction
        self._check_options()

    def _method(self) -> str:
        return "vacuum"


class LakebaseAnalyzeOperator(MaintainingOperator):
    """Renews the statistics by which the server plans queries; of partitioned tables, too.

    Args:
        tables: Names of the tables or materialized views (templated); by default all that the role may
            analyze.
        kwargs: Arguments of
            :class:`~lakebase_provider.operators.maintenance.maintaining.MaintainingOperator`.

    Example:
        >>> LakebaseAnalyzeOperator(task_id="analyze", tables=["sales.orders"])
    """

    template_fields: Sequence[str] = (*MaintainingOperator.template_fields, "tables")
    options = ("tables",)

    def __init__(self, *, tables: str | Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tables = tables
        self._check_options()

    def _method(self) -> str:
        return "analyze"


class LakebaseRefreshMaterializedViewOperator(MaintainingOperator):
    """Refreshes materialized views in their order, beside their readers where that is possible.

    Args:
        views: Names of the views (templated).
        concurrently: Whether readers go on meanwhile, which needs rows in the view and a unique index on
            plain columns without a condition; ``"auto"`` does so where it is possible. Otherwise they wait.
        kwargs: Arguments of
            :class:`~lakebase_provider.operators.maintenance.maintaining.MaintainingOperator`.

    Example:
        >>> LakebaseRefreshMaterializedViewOperator(task_id="refresh", views=["sales.by_day"])
    """

    template_fields: Sequence[str] = (*MaintainingOperator.template_fields, "views")
    options = ("views", "concurrently")

    def __init__(
        self, *, views: str | Sequence[str], concurrently: Concurrently = "auto", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.views = views
        self.concurrently = concurrently
        self._check_options()

    def _method(self) -> str:
        return "refresh"


class LakebaseRepairSequencesOperator(MaintainingOperator):
    """Moves sequences on that would give values which rows have, as after a load with values of its own.

    Those of identity and serial columns, and of any default that takes from a sequence. None is moved back.

    Args:
        tables: Names of the tables (templated); by default all that the role owns.
        kwargs: Arguments of
            :class:`~lakebase_provider.operators.maintenance.maintaining.MaintainingOperator`.

    Example:
        >>> LakebaseRepairSequencesOperator(task_id="sequences", tables=["sales.orders"])
    """

    template_fields: Sequence[str] = (*MaintainingOperator.template_fields, "tables")
    options = ("tables",)

    def __init__(self, *, tables: str | Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tables = tables
        self._check_options()

    def _method(self) -> str:
        return "repair_sequences"


class LakebaseStatementsDigestOperator(MaintainingOperator):
    """Adds what pg_stat_statements knows of the database to a table: a suspended compute forgets it.

    Of statements that neither read nor write rows the first word alone is kept: they may hold secrets.

    Args:
        into: Name of the table, which is created (templated).
        top: How many statements are kept, those that took the longest in all.
        keep_days: Days after which rows of earlier digests are removed; None for never.
        kwargs: Arguments of
            :class:`~lakebase_provider.operators.maintenance.maintaining.MaintainingOperator`.

    Example:
        >>> LakebaseStatementsDigestOperator(task_id="digest", keep_days=30)
    """

    template_fields: Sequence[str] = (*MaintainingOperator.template_fields, "into")
    options = ("into", "top", "keep_days")

    def __init__(
        self,
        *,
        into: str = "public.lakebase_statements",
        top: int = 500,
        keep_days: int | None = 90,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.into = into
        self.top = top
        self.keep_days = keep_days
        self._check_options()

    def _method(self) -> str:
        return "digest_statements"
