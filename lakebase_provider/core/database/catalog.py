"""The table that rows go to or come from: its name, and what the catalog says about its columns."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from lakebase_provider.core.base.sql.names import identifier, split_name
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.errors import ColumnMismatchError, ConfigError, TableNotFoundError

#: Maximum number of columns of a Postgres table.
MAX_COLUMNS = 1600
#: The first key of the advisory locks, so that they meet only their like: "lkbs" as a number.
_LOCK_SPACE = 0x6C6B6273


def require_width(columns: int, what: str) -> None:
    """Refuse more columns than a table can have, before doing work for each of them.

    Args:
        columns: How many there are.
        what: What has them, for the error.

    Raises:
        ColumnMismatchError: There are more than 1,600.
    """
    if columns > MAX_COLUMNS:
        raise ColumnMismatchError(
            f"{what} has {columns:,} columns; a Postgres table has at most {MAX_COLUMNS:,}.",
            remedy="Name the ones to load, or put the rest into one JSON column.",
        )


@dataclass(frozen=True)
class TableName:
    """The name of a table.

    Attributes:
        table: The table's own name, without quotes.
        schema: Its schema's; None to follow the session's search path.
    """

    table: str
    schema: str | None = None

    def __post_init__(self) -> None:
        identifier(self.table, what="table")
        if self.schema is not None:
            identifier(self.schema, what="schema")

    @classmethod
    def parse(cls, name: str | tuple[str, str] | TableName) -> TableName:
        """A name as users write it.

        It is taken literally: upper case is kept, and it is always a name, never SQL. A dot separates schema
        and table; a part in double quotes may hold dots (and quotes, doubled).

        Args:
            name: ``"table"``, ``"schema.table"``, ``'"odd.schema"."a ""b"" table"'``, or (schema, table).

        Raises:
            ConfigError: It is none of these.

        Example:
            >>> TableName.parse('sales."2024.orders"')
            TableName(table='2024.orders', schema='sales')
        """
        if isinstance(name, TableName):
            return name
        if isinstance(name, tuple):
            if len(name) != 2:
                raise ConfigError(
                    f"A table's name has {len(name)} parts.", remedy="Give a tuple of schema and table."
                )
            return cls(name[1], name[0])
        parts = split_name(name)
        return cls(parts[-1], parts[0] if len(parts) == 2 else None)

    def sql(self) -> sql.Identifier:
        """The name, quoted."""
        return sql.Identifier(self.table) if self.schema is None else sql.Identifier(self.schema, self.table)

    def __str__(self) -> str:
        parts = (self.table,) if self.schema is None else (self.schema, self.table)
        return ".".join(part if re.fullmatch(r"[^\".]+", part) else _quote(part) for part in parts)


def _quote(part: str) -> str:
    return '"' + part.replace('"', '""') + '"'


@dataclass(frozen=True)
class Structure:
    """What a type's values consist of, by the types below domains.

    Attributes:
        type_oid: OID of the type.
        typmod: Its modifier, -1 for none.
        form: How its text holds parts: ``"array"``, ``"range"``, ``"multirange"`` or ``"record"``; empty for
            a type without any.
        parts: Those of an array's elements, of a range's bounds, of a multirange's ranges, or of each field.
    """

    type_oid: int
    typmod: int = -1
    form: str = ""
    parts: tuple[Structure, ...] = ()


@dataclass(frozen=True)
class Column:
    """A column as the catalog describes it.

    Attributes:
        name: Its name.
        type_name: Its declared type as SQL writes it, such as ``numeric(10,2)`` or a domain's name.
        type_oid: OID of its type; for a domain, of its underlying type.
        base_name: Name of the type of `type_oid` in the catalog, such as ``int4`` or ``vector``.
        typmod: The type's modifier (length, precision and scale), -1 for none.
        element_oid: OID of an array's elements, else 0.
        enum_labels: Labels of an enum, or of the enum that is an array's element; empty otherwise.
        identity: ``"always"``, ``"by default"`` or "" for no identity column.
        generated: Whether the server computes it.
        not_null: Whether it refuses NULL.
        has_default: Whether it has a default, identity included.
        binary: Whether its type has an input function for binary COPY, which the server looks up whether or
            not COPY fills the column.
        structure: What its values consist of, where it is a range, a record, or an array of these or domains.
    """

    name: str
    type_name: str
    type_oid: int
    base_name: str = ""
    typmod: int = -1
    element_oid: int = 0
    enum_labels: tuple[str, ...] = ()
    identity: str = ""
    generated: bool = False
    not_null: bool = False
    has_default: bool = False
    binary: bool = True
    structure: Structure | None = None

    def sql(self) -> sql.Identifier:
        """The name, quoted."""
        return sql.Identifier(self.name)


@dataclass(frozen=True)
class Table:
    """A table as the catalog describes it.

    Attributes:
        name: Its name, with the schema in which it was found.
        columns: Its columns in order.
        primary_key: Names of the primary key's columns, in its order; empty without one.
        oid: OID of the table.
        kind: The catalog's letter: ``r`` table, ``p`` partitioned, ``f`` foreign, ``v`` view, ``m``
            materialised view.
    """

    name: TableName
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    oid: int = field(default=0, compare=False)
    kind: str = "r"

    def column(self, name: str) -> Column | None:
        """The column of that name, or None."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def text_only(self) -> str | None:
        """Why COPY into the table must use text, whichever columns it fills; None if it need not."""
        found = next((column for column in self.columns if not column.binary), None)
        if found is None:
            return None
        return f"column {found.name!r} of type {found.type_name} has no binary form"

    @property
    def writable(self) -> tuple[Column, ...]:
        """The columns that accept values: those that the server does not compute."""
        return tuple(column for column in self.columns if not column.generated)


_COLUMNS = """
SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), b.oid, b.typname, b.typmod,
    CASE WHEN b.typcategory = 'A' THEN b.typelem ELSE 0::oid END,
    ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e
          WHERE e.enumtypid IN (b.oid, CASE WHEN b.typcategory = 'A' THEN b.typelem ELSE 0::oid END)
          ORDER BY e.enumsortorder),
    CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' ELSE '' END,
    a.attgenerated <> '', a.attnotnull, a.atthasdef OR a.attidentity <> '',
    pg_catalog.array_position(
        (SELECT i.indkey::int2[] FROM pg_catalog.pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary),
        a.attnum),
    c.relname, n.nspname, c.oid, c.relkind::text,
    (SELECT t.typreceive <> 0 FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid),
    b.typtype IN ('c', 'r', 'm') OR b.typcategory = 'A' AND EXISTS (
        SELECT FROM pg_catalog.pg_type e WHERE e.oid = b.typelem AND e.typtype IN ('c', 'd', 'r', 'm'))
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN LATERAL (
    WITH RECURSIVE below AS (
        SELECT t.oid, t.typname::text, t.typcategory, t.typelem, t.typtype, t.typbasetype,
            CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END AS typmod
        FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid
        UNION ALL
        SELECT t.oid, t.typname::text, t.typcategory, t.typelem, t.typtype, t.typbasetype,
            CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE below.typmod END
        FROM below JOIN pg_catalog.pg_type t ON t.oid = below.typbasetype
        WHERE below.typtype = 'd'
    )
    SELECT * FROM below WHERE typtype <> 'd'
) b ON true
WHERE c.oid = pg_catalog.to_regclass(%s)
ORDER BY a.attnum
"""


def read_table(connection: psycopg.Connection[Any], name: str | tuple[str, str] | TableName) -> Table:
    """Ask the catalog for a table's columns, in one query of the connection's transaction.

    Args:
        connection: A connection to the table's database.
        name: The table's name, as :meth:`TableName.parse` takes it.

    Raises:
        ConfigError: It is not a table name.
        TableNotFoundError: There is no such table.
    """
    table = TableName.parse(name)
    found = find_table(connection, table)
    if found is None:
        raise _not_found(connection, table)
    return found


def find_table(connection: psycopg.Connection[Any], name: TableName) -> Table | None:
    """As :func:`read_table`, but None if there is no such table; the transaction goes on in either case."""
    with plain_cursor(connection) as cursor:
        rows = cursor.execute(_COLUMNS, (name.sql().as_string(connection),)).fetchall()
    if not rows:
        return None
    relname, schema, oid, kind = rows[0][12:16]
    present = [row for row in rows if row[0] is not None]
    structures = _structures(connection, [row[2] for row in present if row[17]])
    key = sorted((row[11], row[0]) for row in present if row[11] is not None)
    return Table(
        name=TableName(relname, schema),
        columns=tuple(
            Column(
                name=row[0],
                type_name=row[1],
                type_oid=row[2],
                base_name=row[3],
                typmod=row[4],
                element_oid=row[5],
                enum_labels=tuple(row[6]),
                identity=row[7],
                generated=row[8],
                not_null=row[9],
                has_default=row[10],
                binary=row[16],
                structure=structures(row[2], row[4]) if row[17] else None,
            )
            for row in present
        ),
        primary_key=tuple(name for _, name in key),
        oid=oid,
        kind=kind,
    )


_STRUCTURES = """
WITH RECURSIVE reached (oid) AS (
    SELECT pg_catalog.unnest(%s::oid[])
    UNION
    SELECT p.oid FROM reached JOIN pg_catalog.pg_type t USING (oid), LATERAL (
        SELECT t.typbasetype WHERE t.typtype = 'd'
        UNION ALL SELECT t.typelem WHERE t.typcategory = 'A'
        UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid
        UNION ALL SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE r.rngmultitypid = t.oid
        UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
            WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) p (oid)
)
SELECT t.oid, CASE WHEN t.typtype IN ('c', 'd', 'm', 'r') THEN t.typtype
        WHEN t.typcategory = 'A' THEN 'a' ELSE '' END,
    CASE t.typtype WHEN 'd' THEN t.typbasetype
        WHEN 'r' THEN (SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid)
        WHEN 'm' THEN (SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE r.rngmultitypid = t.oid)
        ELSE t.typelem END,
    t.typtypmod,
    ARRAY(SELECT ARRAY[a.atttypid::int8, a.atttypmod] FROM pg_catalog.pg_attribute a
          WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
          ORDER BY a.attnum)
FROM pg_catalog.pg_type t JOIN reached USING (oid)
"""
_FORMS = {"a": "array", "r": "range", "m": "multirange", "c": "record"}


def _structures(connection: psycopg.Connection[Any], oids: list[int]) -> Callable[[int, int], Structure]:
    """A function from one of these types and a modifier to what the type's values consist of."""
    rows: dict[int, tuple[Any, ...]] = {}
    if oids:
        with plain_cursor(connection) as cursor:
            rows = {row[0]: row[1:] for row in cursor.execute(_STRUCTURES, (oids,)).fetchall()}

    def structure(oid: int, typmod: int) -> Structure:
        form, part, own, fields = rows[oid]
        if form == "d":
            # Only where the domain has no modifier of its own there may be one below.
            return structure(part, own)
        if not form:
            return Structure(oid, typmod)
        inner = fields if form == "c" else [(part, typmod if form == "a" else -1)]
        return Structure(oid, typmod, _FORMS[form], tuple(structure(*one) for one in inner))

    return structure


def ensure_schema(connection: psycopg.Connection[Any], name: str) -> None:
    """Create the schema if it is not there; a role that may not create one needs no right if it is."""
    query = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s"
    if plain_cursor(connection).execute(query, [name]).fetchone() is None:
        lock(connection, f"schema {name}")
        identifier(name, what="schema")
        plain_cursor(connection).execute(
            sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(name))
        )


def lock(connection: psycopg.Connection[Any], what: str) -> None:
    """Wait until no other transaction of this package does the same; the lock ends with the transaction."""
    plain_cursor(connection).execute(
        "SELECT pg_catalog.pg_advisory_xact_lock(%s, pg_catalog.hashtext(%s))", [_LOCK_SPACE, what]
    )


def resolve_name(connection: psycopg.Connection[Any], name: TableName) -> TableName:
    """The name with its schema: where the table is found, or would be created.

    Args:
        connection: A connection to the table's database.
        name: The table's name.
    """
    if name.schema is not None:
        return name
    query = (
        "SELECT coalesce((SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n"
        " ON n.oid = c.relnamespace WHERE c.oid = pg_catalog.to_regclass(%s)),"
        " pg_catalog.current_schema())"
    )
    with plain_cursor(connection) as cursor:
        found = cursor.execute(query, (name.sql().as_string(connection),)).fetchone()
    return name if found is None or found[0] is None else TableName(name.table, found[0])


def _not_found(connection: psycopg.Connection[Any], table: TableName) -> TableNotFoundError:
    """The error for a missing table, with the name that was probably meant."""
    query = (
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE lower(c.relname) = lower(%s) AND c.relkind IN ('r', 'p', 'f', 'v', 'm')"
        " ORDER BY pg_catalog.pg_table_is_visible(c.oid) DESC, 1, 2 LIMIT 1"
    )
    with plain_cursor(connection) as cursor:
        near = cursor.execute(query, (table.table,)).fetchone()
    remedy = None
    if near is not None:
        remedy = f"There is a table {TableName(near[1], near[0])}: write its name as it stands there."
    return TableNotFoundError(f"There is no table {table}.", remedy=remedy)
