"""Rows from Python into a table, batch by batch: large batches with COPY, small ones as statements.

COPY is used only if it writes what INSERT would: the table has nothing that only INSERT runs (rules, row
security, statement triggers), the session reads times as COPY does, in UTC, and all values have plain types.
If COPY cannot take a value unchanged, which INSERT may round or cast, INSERT writes its batch.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import psycopg
from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.types.json import Json

from lakebase_provider._airflow.rows.row_shapes import as_rows, named, refuse_frames, require_values
from lakebase_provider.core.bulk.load.copy_in import bad_row, copy_in
from lakebase_provider.core.bulk.load.plan import LOAD_OPTIONS
from lakebase_provider.core.bulk.sources.seen import read_once
from lakebase_provider.core.bulk.types import json_text
from lakebase_provider.core.bulk.types.postgres_types import BY_NAME, JSONS, PYTHON_TYPES
from lakebase_provider.core.bulk.types.target_columns import BadValueError
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.catalog import Column, Table, TableName, read_table, require_width
from lakebase_provider.core.errors import BadRowError, ConfigError, LakebaseError
from lakebase_provider.core.errors.remedy import without_options

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

    from lakebase_provider._airflow.statements.dialect import LakebaseDialect
    from lakebase_provider.core.connect.connection import LakebaseConnection

#: Maximum number of rows held, however many belong to one transaction: as statements, and with COPY.
_BATCH = 1000
_BIG_BATCH = 10_000
#: Number of rows from which COPY is faster: it takes a few more round trips, and to replace rows a temporary
#: table.
_COPY_FROM = 700
_STAGE_FROM = 2000
_NULL = frozenset({type(None)})
#: Types of values that COPY supports; psycopg may write a subclass differently.
_PLAIN = _NULL | PYTHON_TYPES
#: Names of the zone in which COPY reads times without a zone.
_UTC = ("UTC", "Etc/UTC", "GMT", "Etc/GMT")

# Triggers that fire once per statement: 1 is a row's, 4 is INSERT's.
_ONLY_INSERT_RUNS = """
SELECT c.relkind NOT IN ('r', 'p') OR c.relhasrules OR c.relrowsecurity
    OR EXISTS (SELECT FROM pg_catalog.pg_trigger t
               WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgtype & 5 = 4)
FROM pg_catalog.pg_class c WHERE c.oid = %s
"""

Row = Sequence[Any]


def batches(
    rows: Iterable[Row], commit_every: int, size: Callable[[], int]
) -> Iterator[tuple[list[Row], bool]]:
    """Rows in lists, each with a flag whether a transaction ends after it.

    Args:
        rows: The rows, consumed as needed.
        commit_every: Rows per transaction; 0 for all in one.
        size: Called for each list; returns how many rows it may hold.
    """
    rows = iter(rows)
    left = commit_every
    while True:
        most = min(size(), left) if commit_every else size()
        batch = list(islice(rows, most))
        if not batch:
            return
        left -= len(batch)
        ends = commit_every > 0 and left == 0
        if ends:
            left = commit_every
        yield batch, ends
        del batch


class RowWriter:
    """Runs a statement with each row's values in the form that the column types need, or an equivalent COPY.

    A mapping becomes JSON. A list becomes an array, or JSON if its column is ``json`` or ``jsonb``. psycopg
    handles everything else.

    Args:
        connection: The connection to write on.
        table: Name of the table.
        columns: Names of the columns of each row, as in the catalog; all of the table's if empty.
        statement: Returns the statement for rows with that many values.
        commit_every: Rows per transaction, and so at most per batch; 0 for any number.
    """

    def __init__(
        self,
        connection: LakebaseConnection,
        table: TableName,
        columns: Sequence[str],
        statement: Callable[[int], str],
        commit_every: int = 0,
    ) -> None:
        self._connection = connection
        self._name = table
        self._columns = columns
        self._statement = statement
        self._most = commit_every or math.inf
        self._table: Table | None = None
        self._json: list[bool] | None = None
        self._copies: bool | None = None
        self._begun = 0
        self._width = 0
        #: Why COPY left a batch to INSERT: row, column and kind of value.
        self.refusal: LakebaseError | None = None

    def batch_size(self) -> int:
        """How many rows to write at once."""
        return _BIG_BATCH if self._copies else _BATCH

    def write(self, rows: list[Row]) -> None:
        """Write rows.

        Raises:
            ColumnMismatchError: One has more values than a table can have columns.
            BadRowError: One of them is not a row, has more or fewer values than there are columns or than the
                first one has, or has a value that cannot be sent.
            psycopg.Error: The server refused one; the transaction has failed.
        """
        self.refusal = None
        rows = as_rows(rows, self._begun)
        require_width(max(map(len, rows), default=0), "A row")
        self._width = self._width or len(self._columns) or len(rows[0] if rows else ())
        require_values(rows, self._width, self._begun)
        self._begun += len(rows)
        if len(rows) >= _COPY_FROM and self._may_copy(rows) and self._copied(rows):
            return
        if not rows:
            return
        adapted = self._adapted(rows)
        try:
            with plain_cursor(self._connection) as cursor:
                cursor.executemany(self._statement(len(rows[0])), adapted)
        except (TypeError, ValueError, OverflowError, RecursionError):
            # Raised for a value that has no form; the server's errors and psycopg's are not among these.
            bad = self._bad_value(adapted)
            if bad is None:
                raise
            raise bad from None  # the other one may quote the value

    def _bad_value(self, rows: Sequence[Row]) -> BadRowError | None:
        """The error of the first value that cannot be sent."""
        transformer = psycopg.adapt.Transformer(self._connection)
        for number, row in enumerate(rows, self._begun - len(rows) + 1):
            for place, value in enumerate(row):
                try:
                    if value is not None:
                        transformer.get_dumper(value, psycopg.adapt.PyFormat.AUTO).dump(value)
                except psycopg.Error:
                    return None
                except (TypeError, ValueError, OverflowError, RecursionError) as error:
                    return bad_row(_reason(value, error), number, self._name_of(place))
        return None

    def _name_of(self, place: int) -> str | None:
        if self._columns:
            return self._columns[place]
        try:
            return self._read().columns[place].name
        except (psycopg.Error, LakebaseError, IndexError):  # such as in a failed transaction
            return None

    def _around_values(self, width: int) -> tuple[str, str, str]:
        """The statement before its values, the values, and what follows, such as how rows replace others."""
        before, values, after = self._statement(width).partition(f"VALUES ({','.join(['%s'] * width)})")
        return before, values, after.strip()

    def _may_copy(self, rows: list[Row]) -> bool:
        if self._copies is False or not set(map(type, rows)) <= {tuple, list}:
            return False
        kinds = [set(map(type, values)) for values in zip(*rows, strict=True)]
        if not set().union(*kinds) <= _PLAIN:
            return False
        if self._copies is None:
            worth = not self._around_values(len(rows[0]))[2] or self._most >= _STAGE_FROM
            self._copies = worth and self._table_takes_copy(len(rows[0]))
        return self._copies and all(
            found <= _alike(column) and (list not in found or _is_flat(column, rows, place))
            for place, (column, found) in enumerate(zip(self._targets(len(rows[0])), kinds, strict=True))
        )

    def _table_takes_copy(self, width: int) -> bool:
        idle = self._connection.info.transaction_status == TransactionStatus.IDLE
        table = self._read()
        cursor = plain_cursor(self._connection)
        only_insert = cursor.execute(_ONLY_INSERT_RUNS, (table.oid,)).fetchone()
        if idle and not self._connection.autocommit:
            # A batch that begins its transaction needs no savepoint.
            self._connection.rollback()
        targets = self._targets(width)
        return (
            only_insert == (False,)
            and self._connection.info.parameter_status("TimeZone") in _UTC
            and len(targets) == width
            and not any(column.generated or column.identity == "always" for column in targets)
        )

    def _copied(self, rows: list[Row]) -> bool:
        """Whether COPY wrote the rows; if not, none of them are written."""
        width = len(rows[0])
        before, values, after = self._around_values(width)
        if not values or (after and len(rows) < _STAGE_FROM):
            return False
        try:
            with without_options(*LOAD_OPTIONS), self._undone_on_error():
                if after:
                    self._stage(rows, before, after)
                else:
                    copy_in(
                        self._connection,
                        rows,
                        self._read(),
                        columns=[column.name for column in self._targets(width)],
                    )
        except (psycopg.DataError, psycopg.errors.CardinalityViolation):
            # INSERT's result on the server is the answer, such as for a row that occurs twice.
            return False
        except LakebaseError as error:
            if isinstance(error, psycopg.Error):
                # The server itself ended the statement or the session.
                raise
            self.refusal = error
            self._copies = False
            return False
        return True

    def _stage(self, rows: list[Row], before: str, after: str) -> None:
        table, names = self._read(), [column.name for column in self._targets(len(rows[0]))]
        stage = TableName(f"lakebase_rows_{secrets.token_hex(6)}", "pg_temp")
        columns = sql.SQL(", ").join(map(sql.Identifier, names))
        cursor = plain_cursor(self._connection)
        # With the table's types but without its constraints, which are checked when rows reach the table.
        cursor.execute(
            sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
                sql.Identifier(stage.table), columns, table.name.sql()
            )
        )
        copy_in(self._connection, rows, table, into=stage, columns=names)
        select = sql.SQL("SELECT {} FROM {}").format(columns, stage.sql()).as_string(self._connection)
        # With (empty) parameters, since percent signs in names in the statement are doubled.
        cursor.execute(f"{before}{select.replace('%', '%%')} {after}".encode(), ())
        cursor.execute(sql.SQL("DROP TABLE {}").format(stage.sql()))

    @contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """Undo the block's work on an error and keep the transaction; outside one, the block is one."""
        connection = self._connection
        if connection.autocommit:
            with connection.transaction():
                yield
            return
        begins = connection.info.transaction_status == TransactionStatus.IDLE
        cursor = plain_cursor(connection)
        if not begins:
            cursor.execute("SAVEPOINT lakebase_rows")
        try:
            yield
        except (psycopg.Error, LakebaseError):
            if begins:
                connection.rollback()
            elif not connection.closed:
                cursor.execute("ROLLBACK TO SAVEPOINT lakebase_rows")
            raise
        if not begins:
            cursor.execute("RELEASE SAVEPOINT lakebase_rows")

    def _targets(self, width: int) -> list[Column]:
        table = self._read()
        if not self._columns:
            return list(table.columns[:width])
        return [column for column in map(table.column, self._columns) if column is not None]

    def _read(self) -> Table:
        if self._table is None:
            self._table = read_table(self._connection, self._name)
        return self._table

    def _adapted(self, rows: list[Row]) -> Sequence[Row]:
        kinds = [set(map(type, values)) for values in zip(*rows, strict=True)]
        places = [place for place, found in enumerate(kinds) if _any_of((list, dict), found)]
        if not places:
            return rows
        # The catalog is needed only for lists: a mapping is JSON whatever its column is.
        json_columns: list[bool] = []
        if any(_any_of((list,), found) for found in kinds):
            json_columns = self._json_columns(len(kinds))
        adapted = [list(row) for row in rows]
        for place in places:
            json_kinds = (dict, list) if json_columns and json_columns[place] else dict
            for row in adapted:
                if isinstance(value := row[place], json_kinds):
                    row[place] = Json(value, _dumped)
        return adapted

    def _json_columns(self, width: int) -> list[bool]:
        if self._json is None:
            found = self._read()
            names = self._columns or [column.name for column in found.columns]
            self._json = [_is_json(found, name) for name in names]
        return self._json + [False] * (width - len(self._json))


def _any_of(kinds: tuple[type, ...], found: Iterable[type]) -> bool:
    return any(issubclass(kind, kinds) for kind in found)


def _is_json(table: Table, name: str) -> bool:
    column = table.column(name)
    return column is not None and column.base_name in JSONS


def _alike(column: Column) -> frozenset[type]:
    """The types of values that COPY and INSERT write identically into a column, besides NULL."""
    name = column.base_name
    kind = BY_NAME.get(name.removeprefix("_"))
    return frozenset((kind.alike if kind else {str}) | _NULL | ({list} if name[:1] == "_" else set()))


def _is_flat(column: Column, rows: list[Row], place: int) -> bool:
    """Whether a column's lists are JSON, or one-dimensional arrays of values that are written identically."""
    if column.base_name in JSONS:
        return True
    lists = (row[place] for row in rows if type(row[place]) is list)
    return set(map(type, chain.from_iterable(lists))) <= _alike(column) - {list}


def _dumped(value: Any) -> str | bytes:
    """JSON as psycopg writes it, or as a load does if Python's json has no form."""
    try:
        return json.dumps(value)
    except TypeError:
        return json_text.encode(value)


def _reason(value: Any, error: Exception) -> BadValueError:
    if isinstance(value, Json):
        return BadValueError("in which a value has no JSON form", kind=type(value.obj).__name__)
    text = isinstance(error, UnicodeError)
    invalid = "text that is not valid Unicode, such as half of a surrogate pair"
    reason = invalid if text else "which cannot be sent"
    return BadValueError(reason, kind=type(value).__name__)


def check_commit_every(commit_every: object) -> int:
    """The number of rows of a transaction.

    Raises:
        ConfigError: It is not a whole number of at least 0.
    """
    if isinstance(commit_every, bool) or not isinstance(commit_every, int) or commit_every < 0:
        raise ConfigError(
            f"commit_every is {commit_every!r}.", remedy="Use a number of rows, or 0 for one transaction."
        )
    return commit_every


def insert_rows(
    hook: DbApiHook,
    dialect: LakebaseDialect,
    table: str,
    rows: Iterable[Any],
    fields: Sequence[str] | None,
    commit_every: int,
    replace: bool,
    autocommit: bool,
    options: dict[str, Any],
) -> None:
    """:meth:`LakebaseHook.insert_rows`, whose arguments these are."""
    commit_every = check_commit_every(commit_every)
    require_width(len(fields or ()), "target_fields")
    refuse_frames(rows)
    items, reading = read_once(rows)
    with closing(reading):
        fields, items = named(items, fields, dialect.unquoted)
        # Before a connection is borrowed, so that the catalog needs no second one.
        if replace and not options.get("replace_index"):
            options["replace_index"] = dialect.get_primary_keys(table)
        if not fields and replace:
            fields = dialect.get_column_names(table)
        elif not fields and hook._resolve_target_fields:
            fields = dialect.get_target_fields(table)
        _insert(hook, dialect, table, items, fields, commit_every, replace, autocommit, options)


def _insert(
    hook: DbApiHook,
    dialect: LakebaseDialect,
    table: str,
    rows: Iterator[Any],
    fields: Sequence[str] | None,
    commit_every: int,
    replace: bool,
    autocommit: bool,
    options: dict[str, Any],
) -> None:
    columns = [dialect.unquoted(name) for name in fields or ()]
    done = 0
    text = ""

    def statement(width: int) -> str:
        nonlocal text
        text = str(hook._generate_insert_sql(table, (None,) * width, fields, replace, **options))
        return text

    with closing(hook.get_conn()) as connection:
        connection.autocommit = autocommit
        name = dialect.table_name(table)
        writer = RowWriter(connection, name, columns, statement, commit_every)
        for batch, ends in batches(rows, commit_every, writer.batch_size):
            try:
                writer.write(batch)
            except Exception:  # whatever it is, it is raised again after the log says how far it got
                hook.log.error("Failed after %s rows were loaded into %s: %s", done, table, text)
                if writer.refusal is not None:
                    hook.log.error("Counted from there: %s", writer.refusal)
                raise
            if ends and not autocommit:
                connection.commit()
            done += len(batch)
            hook.log.info("Loaded %s rows into %s so far", done, table)
        if not autocommit:
            connection.commit()
    if text:
        send_sql_hook_lineage(context=hook, sql=text, row_count=done)
    hook.log.info("Done loading. Loaded a total of %s rows into %s", done, table)
