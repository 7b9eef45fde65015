"""Indexes and partitions, as tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from lakebase_provider._airflow.task.arguments import moment_of
from lakebase_provider.operators.maintenance.maintaining import MaintainingOperator

if TYPE_CHECKING:
    from datetime import datetime

    from lakebase_provider.core.upkeep.maintenance.structures.periods import Every

#: Arguments of an index's declaration, and their defaults.
_DECLARED = {"on": None, "unique": False, "method": "btree", "include": (), "where": None}


class LakebaseIndexOperator(MaintainingOperator):
    """Has an index as it is declared, rebuilds indexes, or drops one, while others write.

    ``create`` drops an invalid index of that name, which a killed build has left, and leaves a valid one
    alone that is the same; on a partitioned table it builds on one partition after another. ``reindex`` drops
    what a killed rebuild has left (``_ccnew``, ``_ccold``) first.

    Args:
        action: ``"create"``, ``"reindex"`` or ``"drop"``.
        table: The table (templated): of the index that is created, or all of whose indexes are rebuilt.
        index: Name of the index (templated). To create one it is without a schema, and follows from the table
            and the columns by default.
        on: The columns, as a list; or all that stands in the parentheses, as SQL (templated).
        unique: Whether it refuses a second row of the same.
        method: Its access method, such as ``"gin"`` or ``"hnsw"``.
        include: Columns that it holds besides.
        where: Condition of the rows that it holds, in SQL (templated).
        kwargs: Arguments of
            :class:`~lakebase_provider.operators.maintenance.maintaining.MaintainingOperator`.

    Example:
        >>> LakebaseIndexOperator(task_id="index", table="sales.orders", on=["customer_id"])
    """

    template_fields: Sequence[str] = (*MaintainingOperator.template_fields, "table", "index", "on", "where")

    def __init__(
        self,
        *,
        action: Literal["create", "reindex", "drop"] = "create",
        table: str | None = None,
        index: str | None = None,
        on: str | Sequence[str] | None = None,
        unique: bool = False,
        method: str = "btree",
        include: Sequence[str] = (),
        where: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.action = action
        self.table = table
        self.index = index
        self.on = on
        self.unique = unique
        self.method = method
        self.include = include
        self.where = where
        self._check_options()
        _require_of_action(self)

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        super()._check_arguments(given)
        if "action" in given:
            from lakebase_provider.core.base.choices import require_choice

            require_choice("'action'", given["action"], ("create", "reindex", "drop"))

    def _method(self) -> str:
        return "reindex" if self.action == "reindex" else f"{self.action}_index"

    def _options(self) -> dict[str, Any]:
        if self.action == "drop":
            return {"index": self.index}
        if self.action == "reindex":
            return {"table": self.table, "index": self.index}
        return {"table": self.table, "name": self.index, **{name: getattr(self, name) for name in _DECLARED}}


def _require_of_action(operator: LakebaseIndexOperator) -> None:
    from lakebase_provider.core.base.choices import require_choice
    from lakebase_provider.core.errors import ConfigError

    require_choice("'action'", operator.action, ("create", "reindex", "drop"))
    needed = {"create": ("table", "on"), "drop": ("index",)}.get(operator.action, ())
    for name in needed:
        if getattr(operator, name) is None:
            raise ConfigError(f"'{name}' is missing.", remedy=f"Give {name}: to {operator.action} needs it.")
    if operator.action == "reindex" and (operator.table is None) == (operator.index is None):
        raise ConfigError("Either 'table' or 'index' is to be given.", remedy="Name one of them.")
    if operator.action == "drop" and operator.table is not None:
        raise ConfigError(
            "'table' has no meaning here.", remedy="Leave it out: an index is found by its name."
        )
    given = [name for name, usual in _DECLARED.items() if getattr(operator, name) != usual]
    if operator.action != "create" and given:
        raise ConfigError(f"'{given[0]}' is of an index that is created.", remedy=f"Leave out {given[0]}.")


class LakebasePartitionsOperator(MaintainingOperator):
    """Makes a table's partitions of time before they are needed, and retires those that are old.

    The table is partitioned by range of one ``date`` or timestamp column; bounds are in UTC. A partition that
    is old is detached, if possible concurrently, archived and dropped; what a killed try has left half-way is
    finished. A period whose rows stand in the default partition is reported and left alone.

    Args:
        table: The partitioned table (templated).
        every: How much time a partition holds: ``"month"``, ``"week"``, which begins on Monday, or ``"day"``.
        premake: How many partitions are made beyond that of now.
        keep: How many whole periods before that of now are kept; all by default.
        archive: Path or URI of the file that a partition's rows go to before it is dropped (templated), with
            ``{partition}`` for its name: ``"/lake/{partition}.parquet"``. Its end says the format.
        at: The moment that counts as now (templated), such as ``"{{ logical_date }}"``; by default it is now.
        kwargs: Arguments of
            :class:`~lakebase_provider.operators.maintenance.maintaining.MaintainingOperator`.

    Example:
        >>> LakebasePartitionsOperator(task_id="partitions", table="events", every="month", keep=12)
    """

    template_fields: Sequence[str] = (*MaintainingOperator.template_fields, "table", "archive", "at")
    options = ("table", "every", "premake", "keep", "archive", "at")

    def __init__(
        self,
        *,
        table: str,
        every: Every,
        premake: int = 3,
        keep: int | None = None,
        archive: str | None = None,
        at: datetime | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.every = every
        self.premake = premake
        self.keep = keep
        self.archive = archive
        self.at = at
        self._check_options()

    def _method(self) -> str:
        return "partitions"

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "at": moment_of("at", self.at)}
