"""What a load shall do: its options, checked before anything is sent."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

import psycopg
from psycopg import sql

from lakebase_provider.core.bulk.result import Mode
from lakebase_provider.core.bulk.table import Table, TableName, identifier
from lakebase_provider.core.errors import ColumnMismatchError, ConfigError
from lakebase_provider.core.sql_text import with_inert_comments

#: A condition: SQL of the caller's own, SQL with its parameters, or columns with their values.
Where = str | sql.Composable | tuple[str, Any] | Mapping[str, Any]
#: Where rejected rows go: a table's name, or a file's path as a :class:`~pathlib.Path`.
RejectTo = str | tuple[str, str] | TableName | os.PathLike[str]


class LoadOptions(TypedDict, total=False):
    """The options of a load by name; :class:`LoadPlan` says what they mean."""

    mode: Mode
    keys: Sequence[str] | None
    columns: Sequence[str] | None
    version_column: str | None
    delete: Literal["none", "missing"]
    where: Where | None
    load_id: str | None
    force: bool
    forced_by: str | None
    create: bool
    on_error: Literal["fail", "reject"]
    reject_to: RejectTo | None
    ledger_schema: str | None


@dataclass(frozen=True)
class LoadPlan:
    """How rows go into a table.

    Attributes:
        mode: ``"append"`` adds them; ``"merge"`` changes rows of the same key and adds the others;
            ``"replace"`` leaves no other rows than these, in the whole table or where `where` holds.
        keys: For merge: names of the columns that identify a row; the primary key by default.
        columns: The table's columns that the source's columns go to, in the source's order; by default
            those of the source's names, or all that the server does not compute for rows without names.
        version_column: For merge: a row is only changed by one whose value here is not smaller.
        delete: For merge: ``"missing"`` removes rows whose key the source does not have.
        where: For replace: the slice that is replaced. For ``delete="missing"``: the slice in which rows may
            be removed. SQL, ``(SQL, parameters)``, or a mapping of columns to values.
        load_id: What makes two attempts the same load: the second one is skipped. None to load every time.
        force: Whether to load although one of that `load_id` took place; this one is then the one that the
            ledger knows.
        forced_by: Who forces it, such as a run's id: of the same one a second forced load is skipped, so that
            an attempt whose success nobody heard of is not made twice. None to load at each forced attempt.
        create: Whether to create a missing table, with the types of the source's columns; `keys` become
            its primary key.
        on_error: ``"reject"`` puts rows aside that cannot be encoded, and loads the others.
        reject_to: Where they are put: a table, created if missing, or a file of JSON lines.
        ledger_schema: Schema of the ledger; that of the table by default.

    Raises:
        ConfigError: Options contradict each other, or a name is none.
    """

    mode: Mode = "append"
    keys: Sequence[str] | None = None
    columns: Sequence[str] | None = None
    version_column: str | None = None
    delete: Literal["none", "missing"] = "none"
    where: Where | None = None
    load_id: str | None = None
    force: bool = False
    forced_by: str | None = None
    create: bool = False
    on_error: Literal["fail", "reject"] = "fail"
    reject_to: RejectTo | None = None
    ledger_schema: str | None = None

    def __post_init__(self) -> None:
        _one_of("mode", self.mode, get_args(Mode))
        _one_of("delete", self.delete, ("none", "missing"))
        _one_of("on_error", self.on_error, ("fail", "reject"))
        for field in ("keys", "columns"):
            names = getattr(self, field)
            if isinstance(names, str):
                raise ConfigError(f"{field} is a str.", remedy=f"Give a list: {field}=[{names!r}].")
            for name in names or ():
                identifier(name)
            if names is not None and (not names or len(set(names)) != len(names)):
                raise ConfigError(f"{field} is empty or names a column twice.", remedy="Name each once.")
        for name in (self.version_column, self.ledger_schema):
            if name is not None:
                identifier(name)
        if self.mode != "merge":
            self._only("merge", version_column=self.version_column, delete=self.delete != "none" or None)
            if not self.create:
                self._only("merge", keys=self.keys)
        if self.where is not None and not self.where:
            raise ConfigError(
                "where= is empty.", remedy="Leave it out for the whole table, or say which rows it holds for."
            )
        if self.where is not None and self.mode != "replace" and self.delete != "missing":
            raise ConfigError(
                f"where= has no meaning with mode={self.mode!r}.",
                remedy="Leave it out, or use mode='replace', or mode='merge' with delete='missing'.",
            )
        if (self.on_error == "reject") != (self.reject_to is not None):
            raise ConfigError(
                "on_error='reject' and reject_to go together.", remedy="Give both, or neither of them."
            )
        if self.on_error == "reject" and self.delete == "missing":
            raise ConfigError(
                "on_error='reject' and delete='missing' exclude each other: a row that is put aside would"
                " count as missing, and its predecessor be deleted.",
                remedy="Load with on_error='fail', or delete='none'.",
            )
        _check_id("load_id", self.load_id)
        _check_id("forced_by", self.forced_by)
        if not isinstance(self.force, bool):
            # A text such as "false" would count as true.
            raise ConfigError(f"force is a {type(self.force).__name__}.", remedy="Give True or False.")

    @property
    def forced_id(self) -> str | None:
        """The entry of the ledger that tells of a forced load; None where each forced attempt is to load."""
        if not self.force or self.load_id is None or self.forced_by is None:
            return None
        return f"{self.load_id} (forced by {self.forced_by})"

    @property
    def bears_repetition(self) -> bool:
        """Whether a second attempt is skipped if this one succeeds."""
        return self.load_id is not None and (not self.force or self.forced_id is not None)

    def _only(self, mode: str, **given: object) -> None:
        for name, value in given.items():
            if value is not None:
                raise ConfigError(
                    f"{name}= has no meaning with mode={self.mode!r}.",
                    remedy=f"Leave it out, or use mode={mode!r}.",
                )

    def merge_keys(self, table: Table) -> tuple[str, ...]:
        """The columns that identify a row of a table.

        Raises:
            ConfigError: None are given, and the table has no primary key.
            ColumnMismatchError: The table has no such column.
        """
        keys = tuple(self.keys or table.primary_key)
        if not keys:
            raise ConfigError(
                f"{table.name} has no primary key, and no keys are given.",
                remedy="Give keys= the columns that identify a row.",
            )
        wanted = keys if self.version_column is None else (*keys, self.version_column)
        missing = [name for name in wanted if table.column(name) is None]
        if missing:
            raise ColumnMismatchError(f"{table.name} has no column {', '.join(map(repr, missing))}.")
        return keys

    def slice(self, connection: psycopg.Connection[Any]) -> sql.Composable | None:
        """`where` as SQL, or None."""
        if self.where is None or isinstance(self.where, sql.Composable):
            return self.where
        if isinstance(self.where, str):
            return sql.SQL(self.where + "\n")  # what ends in a comment must not swallow what follows
        if isinstance(self.where, tuple):
            condition, *values = self.where
            text = psycopg.ClientCursor(connection).mogrify(with_inert_comments(condition, *values), *values)
            return sql.SQL(text + "\n")
        return sql.SQL(" AND ").join(_equals(name, value) for name, value in self.where.items())


def _equals(name: str, value: Any) -> sql.Composable:
    column = sql.Identifier(identifier(name))
    if value is None:
        return sql.SQL("{} IS NULL").format(column)
    if isinstance(value, (list, set, frozenset)):
        some = sql.SQL("{} = ANY({})").format(column, sql.Literal([one for one in value if one is not None]))
        # NULL equals nothing, not even itself.
        return sql.SQL("({} OR {} IS NULL)").format(some, column) if None in value else some
    return sql.SQL("{} = {}").format(column, sql.Literal(value))


def _one_of(field: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{field} is {value!r}.", remedy=f"Use one of {', '.join(map(repr, allowed))}.")


def _check_id(field: str, value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value or "\0" in value):
        raise ConfigError(
            f"{field} is {value!r}."[:200],
            remedy="Give a text that is the same at each attempt, such as dag/task/run/map index.",
        )
