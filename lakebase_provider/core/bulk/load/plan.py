"""What a load is to do: its options, checked before anything is sent."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from lakebase_provider.core.base.choices import require_choice
from lakebase_provider.core.base.sql.names import identifier
from lakebase_provider.core.base.sql.sql_text import with_inert_comments
from lakebase_provider.core.bulk.files.csv_format import CSV_OPTIONS, CsvFormat, CsvOptions
from lakebase_provider.core.bulk.load.result import Delete, Fallback, Mode, OnError, Since
from lakebase_provider.core.bulk.tables.schema_evolution import SCHEMA_EVOLUTIONS, SchemaEvolution
from lakebase_provider.core.errors import ColumnMismatchError, ConfigError

# Whatever else a load needs comes with the driver, which parsing a DAG file must not import.
if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

    from lakebase_provider.core.database.catalog import Table, TableName

#: A condition: the caller's SQL, SQL with parameters, columns with their values, or a function that returns
#: SQL for the table once it has the columns that the rows need.
Where: TypeAlias = (
    "str | sql.Composable | tuple[str, Any] | Mapping[str, Any] | Callable[[Table], sql.Composable]"
)
#: Where rejected rows go: a table's name, or a file's path as a :class:`~pathlib.Path`.
RejectTo: TypeAlias = "str | tuple[str, str] | TableName | os.PathLike[str]"

_CHOICES = {
    "mode": get_args(Mode),
    "delete": get_args(Delete),
    "schema_evolution": (None, *SCHEMA_EVOLUTIONS),
    "on_error": get_args(OnError),
    "since": (None, *get_args(Since)),
    "fallback": (None, *get_args(Fallback)),
}


class LoadOptions(CsvOptions, total=False):
    """The options of a load by name; :class:`LoadPlan` explains them."""

    mode: Mode
    keys: Sequence[str] | None
    columns: Sequence[str] | None
    version_column: str | None
    delete: Delete
    where: Where | None
    count_outside: bool
    load_id: str | None
    since: Since | None
    fallback: Fallback | None
    force: bool
    forced_by: str | None
    create: bool
    allow_empty: bool
    schema_evolution: SchemaEvolution | None
    on_error: OnError
    reject_to: RejectTo | None
    ledger_schema: str | None
    lsn: bool


#: Their names, for callers that have none of them.
LOAD_OPTIONS = tuple(LoadOptions.__annotations__)


@dataclass(frozen=True)
class LoadPlan(CsvFormat):
    """How rows go into a table. For CSV files the fields of :class:`.CsvFormat` are its own, too.

    Attributes:
        mode: ``"append"`` adds them; ``"merge"`` updates rows with the same key and adds the others;
            ``"replace"`` removes all other rows, in the whole table or where `where` holds.
        keys: For merge: names of the columns that identify a row; the primary key by default.
        columns: The table's columns that take the source's columns, in the source's order; by default matched
            by name, or for rows without names all that the server does not compute.
        version_column: For merge: the column that versions a row; a row with a smaller value does not update
            it.
        delete: For merge: ``"missing"`` removes rows whose key is not in the source.
        where: For replace: the slice that is replaced. For ``delete="missing"``: the slice in which rows may
            be removed. SQL, ``(SQL, parameters)``, a mapping of columns to values, or a function that
            returns SQL for the table, called once the table has the columns that the rows need; if those
            change while rows are replaced, before that as well.
        count_outside: Whether to count the source's rows for which `where` does not hold; in every mode.
        load_id: Identifies a load: a second attempt with the same id is skipped. None to load every time.
        since: For merge from a Delta table: ``"ledger"`` loads what has changed since the version that the
            ledger holds for this table and source, deletions included, by the change data feed. The first
            time all rows are merged.
        fallback: With `since`: ``"replace"`` replaces all rows of the table by the source's where the ledger
            or the feed cannot tell what has changed. By default that is an error, except for the first time.
        force: Whether to load even if one with that `load_id` took place; the ledger then records this one.
        forced_by: Who forces it, such as a run's id: a second load forced by the same one is skipped, so that
            an attempt whose success went unnoticed is not repeated. None to load at each forced attempt.
        create: Whether to create a missing table, and its schema, with the types of the source's columns;
            `keys` become its primary key.
        schema_evolution: What may happen to a table whose columns are not the source's: ``"error"`` refuses
            them, ``"add"`` adds columns, ``"widen"`` also makes types wider, ``"recreate"`` gives a table
            whose rows are all replaced the source's columns. By default the table stays as it is, and a
            column that the source lacks gets its default.
        allow_empty: If rows are removed (``mode="replace"``, ``delete="missing"``), whether an iterator, a
            stream or a cursor may have no rows. Without it that is an error: these can be read only once, and
            one that was consumed before looks the same. Lists, frames, tables and files may always be empty.
        on_error: ``"reject"`` sets aside rows that cannot be encoded, and loads the others.
        reject_to: Where they go: a table, created if missing, or a file of JSON lines.
        ledger_schema: Schema of the ledger; the table's by default.
        lsn: Whether the result is to hold the position of the server's log after the commit, for
            ``wait_in_delta``.

    Raises:
        ConfigError: Options contradict each other, or a name is invalid.
    """

    mode: Mode = "append"
    keys: Sequence[str] | None = None
    columns: Sequence[str] | None = None
    version_column: str | None = None
    delete: Delete = "none"
    where: Where | None = None
    count_outside: bool = False
    load_id: str | None = None
    since: Since | None = None
    fallback: Fallback | None = None
    force: bool = False
    forced_by: str | None = None
    create: bool = False
    allow_empty: bool = False
    schema_evolution: SchemaEvolution | None = None
    on_error: OnError = "fail"
    reject_to: RejectTo | None = None
    ledger_schema: str | None = None
    lsn: bool = False

    def __post_init__(self) -> None:
        check_load_options(vars(self))

    @property
    def removes(self) -> bool:
        """Whether rows that are not in the source are removed."""
        return self.mode == "replace" or self.delete == "missing"

    @property
    def forced_id(self) -> str | None:
        """The ledger entry of a forced load; None if each forced attempt should load."""
        if not self.force or self.load_id is None or self.forced_by is None:
            return None
        return f"{self.load_id} (forced by {self.forced_by})"

    @property
    def needs_ledger(self) -> bool:
        """Whether the ledger tells what is to be loaded, and holds what was."""
        return self.load_id is not None or self.since is not None

    @property
    def needs_columns(self) -> bool:
        """Whether it has to be known which columns the source's rows need, before they come."""
        return self.create or self.schema_evolution is not None

    @property
    def bears_repetition(self) -> bool:
        """Whether a second attempt is skipped if this one succeeds."""
        return self.needs_ledger and (not self.force or self.forced_id is not None)

    def merge_keys(self, table: Table) -> tuple[str, ...]:
        """The columns that identify a row of a table.

        Raises:
            ConfigError: None are given and the table has no primary key.
            ColumnMismatchError: The table has no such column.
        """
        keys = tuple(self.keys or table.primary_key)
        if not keys:
            raise ConfigError(
                f"{table.name} has no primary key, and no keys were given.",
                remedy="Set keys= to the columns that identify a row.",
            )
        wanted = keys if self.version_column is None else (*keys, self.version_column)
        missing = [name for name in wanted if table.column(name) is None]
        if missing:
            raise ColumnMismatchError(f"{table.name} has no column {', '.join(map(repr, missing))}.")
        return keys

    def slice(self, connection: psycopg.Connection[Any], table: Table) -> sql.Composable | None:
        """`where` as SQL, or None."""
        import psycopg
        from psycopg import sql

        if self.where is None or isinstance(self.where, sql.Composable):
            return self.where
        if callable(self.where):
            return self.where(table)
        if isinstance(self.where, str):
            return sql.SQL(self.where + "\n")  # SQL that ends in a comment must not swallow what follows
        if isinstance(self.where, tuple):
            condition, *values = self.where
            text = psycopg.ClientCursor(connection).mogrify(with_inert_comments(condition, *values), *values)
            return sql.SQL(text + "\n")
        return sql.SQL(" AND ").join(_equals(name, value) for name, value in self.where.items())


def _equals(name: str, value: Any) -> sql.Composable:
    from psycopg import sql

    column = sql.Identifier(identifier(name))
    if value is None:
        return sql.SQL("{} IS NULL").format(column)
    if isinstance(value, (list, set, frozenset)):
        some = sql.SQL("{} = ANY({})").format(column, sql.Literal([one for one in value if one is not None]))
        # NULL equals nothing, not even itself.
        return sql.SQL("({} OR {} IS NULL)").format(some, column) if None in value else some
    return sql.SQL("{} = {}").format(column, sql.Literal(value))


def check_load_options(given: Mapping[str, Any]) -> None:
    """Check the known options, before there is a connection and without the driver.

    Args:
        given: Options by name, as in :class:`LoadPlan`. What is not known yet, such as a template, is left
            out, and nothing that depends on it is checked.

    Raises:
        ConfigError: Options contradict each other, have unknown values, or a name is invalid.
    """
    for name, allowed in _CHOICES.items():
        if name in given:
            require_choice(name, given[name], allowed)
    for field in ("keys", "columns"):
        _check_names(field, given.get(field))
    for name in ("version_column", "ledger_schema"):
        if given.get(name) is not None:
            identifier(given[name])
    _check_merge(given)
    _check_where(given)
    _check_since(given)
    if {"on_error", "reject_to"} <= given.keys() and (given["on_error"] == "reject") != (
        given["reject_to"] is not None
    ):
        raise ConfigError("on_error='reject' and reject_to need each other.", remedy="Give both or neither.")
    if given.get("on_error") == "reject" and given.get("delete") == "missing":
        raise ConfigError(
            "on_error='reject' and delete='missing' cannot be combined: a rejected row would count as "
            "missing, and the table's row be deleted.",
            remedy="Load with on_error='fail' or delete='none'.",
        )
    _check_id("load_id", given.get("load_id"))
    _check_id("forced_by", given.get("forced_by"))
    for name in ("force", "allow_empty", "lsn"):
        if not isinstance(given.get(name, False), bool):
            # A string such as "false" would count as true.
            raise ConfigError(f"{name} is a {type(given[name]).__name__}.", remedy="Give True or False.")
    CsvFormat(**{name: given[name] for name in CSV_OPTIONS if name in given})


def _check_names(field: str, names: Any) -> None:
    if isinstance(names, str):
        raise ConfigError(f"{field} is a str.", remedy=f"Give a list: {field}=[{names!r}].")
    for name in names or ():
        identifier(name)
    if names is not None and (not names or len(set(names)) != len(names)):
        raise ConfigError(f"{field} is empty or names a column twice.", remedy="Name each once.")


def _check_merge(given: Mapping[str, Any]) -> None:
    if "mode" not in given or given["mode"] == "merge":
        return
    only = {
        "version_column": given.get("version_column"),
        "delete": None if given.get("delete", "none") == "none" else given["delete"],
        # A created table has them as its primary key.
        "keys": None if given.get("create", True) else given.get("keys"),
    }
    for name, value in only.items():
        if value is not None:
            raise ConfigError(
                f"{name}= has no meaning with mode={given['mode']!r}.",
                remedy="Leave it out, or use mode='merge'.",
            )


def _check_where(given: Mapping[str, Any]) -> None:
    where = given.get("where")
    if where is None:
        if given.get("count_outside") and "where" in given:
            raise ConfigError(
                "count_outside= has no meaning without where=.", remedy="Give both, or neither."
            )
        return
    if not where:
        raise ConfigError(
            "where= is empty.", remedy="Leave it out for the whole table, or say which rows it covers."
        )
    if given.get("count_outside"):
        return
    if given.get("mode", "replace") != "replace" and given.get("delete", "missing") != "missing":
        raise ConfigError(
            f"where= has no meaning with mode={given['mode']!r}.",
            remedy="Leave it out, or use mode='replace', or mode='merge' with delete='missing'.",
        )


def _check_since(given: Mapping[str, Any]) -> None:
    if given.get("since") is None:
        if given.get("fallback") is not None and "since" in given:
            raise ConfigError("fallback= has no meaning without since=.", remedy="Give both, or neither.")
        return
    if given.get("mode", "merge") != "merge":
        raise ConfigError(
            f"since= has no meaning with mode={given['mode']!r}.",
            remedy="Leave it out, or use mode='merge'.",
        )
    for name in ("load_id", "force", "version_column", "where", "count_outside"):
        if given.get(name):
            raise ConfigError(
                f"{name}= cannot be combined with since=, for the ledger tells what is to be loaded.",
                remedy="Leave one of them out.",
            )
    if given.get("on_error") == "reject":
        raise ConfigError(
            "on_error='reject' cannot be combined with since=: of what is set aside, the table would never "
            "learn.",
            remedy="Load with on_error='fail'.",
        )


def _check_id(field: str, value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value or "\0" in value):
        raise ConfigError(
            f"{field} is {value!r}."[:200],
            remedy="Give a string that is the same at each attempt, such as dag/task/run/map index.",
        )
