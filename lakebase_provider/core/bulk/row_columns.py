"""How each column of a query is sent and read so that its values are those of psycopg's cursor."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import psycopg
from psycopg.adapt import AdaptersMap, Loader, Transformer
from psycopg.pq import Format
from psycopg.types import bool as bools
from psycopg.types import datetime as datetimes
from psycopg.types import json as jsons
from psycopg.types import numeric, string, uuid

from lakebase_provider.core.bulk.row_times import dates, intervals, times, timestamps, zoned_timestamps
from lakebase_provider.core.bulk.row_values import (
    Load,
    Reader,
    booleans,
    decimals,
    documents,
    loaded,
    numbers,
    pieces,
    texts,
)

#: psycopg's own loaders of types whose binary form can be read in its place.
_LOADERS: Mapping[str, type[Loader]] = {
    "bool": bools.BoolLoader,
    "int2": numeric.IntLoader,
    "int4": numeric.IntLoader,
    "int8": numeric.IntLoader,
    "oid": numeric.IntLoader,
    "float8": numeric.FloatLoader,
    "numeric": numeric.NumericLoader,
    "bytea": string.ByteaLoader,
    "uuid": uuid.UUIDLoader,
    "date": datetimes.DateLoader,
    "time": datetimes.TimeLoader,
    "timestamp": datetimes.TimestampLoader,
    "timestamptz": datetimes.TimestamptzLoader,
    "interval": datetimes.IntervalLoader,
}
_NUMBERS = {
    "int2": (">i2", 2),
    "int4": (">i4", 4),
    "int8": (">i8", 8),
    "oid": (">u4", 4),
    "float8": (">f8", 8),
}
#: Digits of a numeric.
_NARROW = 18
#: Types whose binary form is their text.
_TEXT = ("text", "varchar", "bpchar", "name", "json", "void")
#: Types of which a cast to text gives another text than their output function.
_CAST_TO_TEXT = ("bool", '"char"', "inet", "cidr", "xml")
#: Oids from here on are of types that extensions and users have made, which may have such a cast, too.
_FIRST_USER_OID = 16_384
#: What concat() writes is the text of the output function; IS NOT NULL would look into a composite value.
_OUTPUT = "CASE WHEN pg_catalog.num_nulls({0}) = 0 THEN pg_catalog.concat({0}) END"


@dataclass(frozen=True)
class RowColumn:
    """A column of a result.

    Attributes:
        cast: What the server is to send in its place, of the expression given as ``{0}``; None for itself.
        read: Makes values of what it sends.
    """

    cast: str | None
    read: Reader


def row_columns(
    connection: psycopg.Connection[Any], description: Sequence[psycopg.Column]
) -> list[RowColumn]:
    """How the columns of a result are sent and read.

    Where psycopg's own loader would read a type in the way of its default, many values are read at once.
    Any other type, and any for which the connection has another loader, comes as the text that the server
    sends to a cursor, and is read by that loader.

    Args:
        connection: Whose loaders count, and whose session's time zone and styles.
        description: The columns, as psycopg describes them.
    """
    transformer = Transformer(connection)
    return [
        _row_column(connection, column, transformer.get_loader(column.type_code, Format.TEXT))
        for column in description
    ]


def _row_column(connection: psycopg.Connection[Any], column: psycopg.Column, loader: Any) -> RowColumn:
    oid = column.type_code
    info = connection.adapters.types.get(oid)
    name = info.name if info is not None and info.oid == oid else ""
    # Of numbers with more digits, or any number of them, few would be read at once.
    narrow = name != "numeric" or (column.precision or _NARROW + 1) <= _NARROW
    if narrow and type(loader) is _psycopgs(_LOADERS.get(name)):
        read = _native(connection, name, loader.load)
        if read is not None:
            return RowColumn(None, read)
    if name in ("json", "jsonb"):
        # jsonb's binary form is its text after the number of the form's version.
        skip = int(name == "jsonb")
        return RowColumn(None, (documents if _reads_standard_json(loader) else loaded)(loader.load, skip))
    plain = type(loader) is _psycopgs(string.TextLoader) and connection.info.encoding == "utf-8"
    read = texts if plain else loaded(loader.load)
    if name in _TEXT:
        return RowColumn(None, read)
    return RowColumn(_OUTPUT if name in _CAST_TO_TEXT or oid >= _FIRST_USER_OID else "{0}::text", read)


def _native(connection: psycopg.Connection[Any], name: str, load: Load) -> Reader | None:
    """What reads the type's binary form as psycopg reads its text; None if the session's settings forbid."""
    if name in _NUMBERS:
        return numbers(*_NUMBERS[name])
    if name == "bool":
        return booleans
    if name == "bytea":
        return pieces
    if name == "numeric":
        return decimals(_binary(numeric.NumericBinaryLoader))
    if name == "uuid":
        return loaded(_binary(uuid.UUIDBinaryLoader))
    if name == "time":
        return times(load)
    if name == "interval":
        return intervals(load) if connection.info.parameter_status("IntervalStyle") == "postgres" else None
    if not (connection.info.parameter_status("DateStyle") or "").startswith("ISO"):
        return None
    if name == "timestamptz":
        zone = connection.info.timezone
        # Of a zone that Python does not know psycopg makes UTC: only the server can say what it writes then.
        known = zone is not dt.timezone.utc or connection.info.parameter_status("TimeZone") == "UTC"
        return zoned_timestamps(load, zone) if known else None
    return dates(load) if name == "date" else timestamps(load)


@cache
def _psycopgs(loader: type[Loader] | None) -> type[Any] | None:
    """The class that psycopg uses for one of its loaders: the same, or its twin in C."""
    if loader is None:
        return None
    adapters = AdaptersMap()
    adapters.register_loader(0, loader)
    return adapters.get_loader(0, loader.format)


def _binary(loader: type[Loader]) -> Load:
    chosen = _psycopgs(loader)
    assert chosen is not None
    load: Load = chosen(0).load
    return load


def _reads_standard_json(loader: Any) -> bool:
    """Whether a loader does with ``json.loads`` what psycopg's does, and the text is in UTF-8."""
    own = isinstance(loader, (jsons.JsonLoader, jsons.JsonbLoader))
    encoding = loader.connection.info.encoding if own and loader.connection is not None else ""
    return encoding == "utf-8" and type(loader).load is jsons.JsonLoader.load and loader.loads is json.loads
