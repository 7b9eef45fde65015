"""What a query returns as JSON lines, made by the server, with every digit, and readable by a load."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from lakebase_provider.core.bulk.read.statement import bare
from lakebase_provider.core.bulk.read.stream import copy_out
from lakebase_provider.core.bulk.types.postgres_types import of_family, oids
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.refusals import readable
from lakebase_provider.core.errors import ColumnMismatchError

#: Booleans and numbers, which to_json writes as JSON's own, NaN and the infinities as texts.
_OWN = of_family("boolean", "integer", "oid", "float", "numeric")
_PLAIN, _PLAIN_ARRAYS = {kind.oid for kind in _OWN}, {kind.array_oid for kind in _OWN}
#: Whose cast to text is what their output function writes; that of a bpchar cuts blanks.
_TEXTS = of_family("text", "temporal", "interval", "uuid")
_TEXT_ARRAYS = {kind.array_oid for kind in _TEXTS if kind.name != "bpchar"}
_JSON, _JSONB = oids("json", "jsonb")

#: What no type's text loses anything by, as JSON's text. Of a row, IS NULL would ask for its fields.
_TEXT = "pg_catalog.to_json(pg_catalog.concat({0}))::text"
#: JSON within the line. Not null and texts, which would be read as NULL and as the text that holds JSON.
_OF_JSONB = f"CASE WHEN pg_catalog.left({{0}}::text, 1) IN ('\"', 'n') THEN {_TEXT} ELSE {{0}}::text END"
#: Nor, of json, which keeps what was written, a text of several lines or with white space around it.
_OF_JSON = f"CASE WHEN {{0}}::text ~ '^[\\s\"n]|[\\n\\r\\t]|\\s$' THEN {_TEXT} ELSE {{0}}::text END"
#: An array of JSON's, where that says all of it: of one dimension, counted from 1.
_OF_ARRAY = (
    "CASE WHEN pg_catalog.cardinality({{0}}) = 0 THEN '[]'"
    " WHEN pg_catalog.array_ndims({{0}}) = 1 AND pg_catalog.array_lower({{0}}, 1) = 1"
    " THEN pg_catalog.to_json({{0}}{cast})::text ELSE " + _TEXT.replace("{0}", "{{0}}") + " END"
)


def write_json_lines(connection: psycopg.Connection[Any], text: bytes, file: Any, batch_rows: int) -> int:
    """Write an object with the column names for each row, and return the number of rows.

    Args:
        connection: The connection in whose transaction the query runs.
        text: A plain query.
        file: To write to.
        batch_rows: Maximum number of rows written at once.

    Raises:
        ColumnMismatchError: Two columns share a name.
    """
    with plain_cursor(connection) as cursor:
        cursor.execute(b"SELECT * FROM (%s\n) AS q LIMIT 0" % bare(text))
        with readable("a description of the query's columns"):
            columns = [(column.name, column.type_code) for column in cursor.description or ()]
    require_distinct([name for name, _ in columns], "JSON lines")
    rows = 0
    with copy_out(connection, _statement(connection, text, columns)) as copy:
        for data, sizes in copy.batches(batch_rows):
            # The one column is JSON, whose control characters are escaped: COPY adds backslashes alone.
            file.write(data.replace(rb"\\", b"\\"))
            rows += len(sizes)
    return rows


def require_distinct(names: Sequence[str], format: str) -> None:
    """Refuse two columns with one name, since a file's readers find columns by name.

    Raises:
        ColumnMismatchError: There are two.
    """
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise ColumnMismatchError(
            f"Two columns of the query are called {twice!r}, of which {format} can hold only one.",
            remedy="Give one of them another name in the query: AS ….",
        )


def _statement(connection: psycopg.Connection[Any], text: bytes, columns: Sequence[tuple[str, int]]) -> bytes:
    # Under names of our own, which cannot be mistaken for another name.
    names = [sql.Identifier(f"c{number}") for number in range(len(columns))]
    members = [
        sql.SQL(
            "pg_catalog.concat({}, CASE WHEN {} IS NOT DISTINCT FROM NULL THEN 'null' ELSE {} END)"
        ).format(
            sql.Literal(f"{json.dumps(name, ensure_ascii=False)}: "),
            place,
            sql.SQL(_form(oid)).format(place),
        )
        for place, (name, oid) in zip(names, columns, strict=True)
    ]
    head = sql.SQL(
        "COPY (SELECT pg_catalog.concat('{{', pg_catalog.array_to_string(ARRAY[{}]::text[], ', '), '}}')"
        " FROM ("
    ).format(sql.SQL(", ").join(members))
    tail = sql.SQL(") AS q {}) TO STDOUT (FORMAT text, ENCODING 'UTF8')").format(
        sql.SQL("({})").format(sql.SQL(", ").join(names)) if names else sql.SQL("")
    )
    return b"%s%s\n%s" % (head.as_bytes(connection), bare(text), tail.as_bytes(connection))


def _form(oid: int) -> Any:
    if oid in _PLAIN:
        return "pg_catalog.to_json({0})::text"
    if oid in _PLAIN_ARRAYS:
        return _OF_ARRAY.format(cast="")
    if oid in _TEXT_ARRAYS:
        return _OF_ARRAY.format(cast="::text[]")
    return {_JSON: _OF_JSON, _JSONB: _OF_JSONB}.get(oid, _TEXT)
