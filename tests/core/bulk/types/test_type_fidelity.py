"""Every type with edge values, through every kind of source, read back equal; both formats agree."""

from __future__ import annotations

import csv
import datetime as dt
import ipaddress
import json
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Json, Jsonb
from pyarrow import parquet

from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.core.bulk.load.copy_in import copy_in
from lakebase_provider.core.database.catalog import read_table
from lakebase_provider.local import LocalLakebase
from tests.depth import examples
from tests.encoders import encoded_by

_UTC = dt.timezone.utc
_MOODS = ("calm", "läut", 'it\'s \\ "so"')


def _float4(value: float) -> float:
    found: float = struct.unpack("f", struct.pack("f", value))[0]
    return found


def _decimals(digits: int, places: int) -> st.SearchStrategy[Decimal]:
    # By text: arithmetic would round to the context's 28 digits.
    return st.integers(1 - 10**digits, 10**digits - 1).map(lambda number: Decimal(f"{number}E-{places}"))


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20) | st.sampled_from(
    [
        "",
        " ",
        "\\",
        "\\.",
        "\n\\.\n",
        "\\N",
        "NULL",
        "a\tb\r\nc",
        '"',
        "'",
        ",",
        "{}",
        "🐘",
        "\ufeff",
        "x" * 300,
    ]
)
_MOMENT = st.datetimes() | st.sampled_from([dt.datetime(2000, 1, 1), dt.datetime.min, dt.datetime.max])
# From the year 2 on, so that it has a year in every zone.
_ZONED = st.datetimes(dt.datetime(2, 1, 1), timezones=st.just(_UTC)) | st.sampled_from(
    [dt.datetime(1970, 1, 1, tzinfo=_UTC)]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(-1e15, 1e15) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_OBJECT = st.dictionaries(_TEXT, _JSON, max_size=3)


@dataclass(frozen=True)
class Kind:
    """A column: its SQL type, Arrow's, its values, and how CSV writes one."""

    sql: str
    arrow: pa.DataType
    values: st.SearchStrategy[Any]
    csv: Callable[[Any], str] = str


KINDS = {
    "flag": Kind("bool", pa.bool_(), st.booleans()),
    "small": Kind("int2", pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    "middle": Kind("int4", pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "big": Kind("int8", pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "single": Kind("float4", pa.float32(), st.floats(width=32, allow_nan=False), repr),
    "double": Kind("float8", pa.float64(), st.floats(allow_nan=False), repr),
    "money": Kind("numeric(12,2)", pa.decimal128(12, 2), _decimals(12, 2)),
    "wide": Kind("numeric(50,20)", pa.decimal256(50, 20), _decimals(50, 20)),
    "free": Kind("numeric", pa.decimal128(30, 6), _decimals(30, 6)),
    "words": Kind("text", pa.string(), _TEXT),
    "short": Kind(
        "varchar(10)", pa.large_string(), st.text(st.characters(codec="ascii", min_codepoint=32), max_size=10)
    ),
    "raw": Kind("bytea", pa.binary(), st.binary(max_size=20), lambda value: "\\x" + value.hex()),
    "ident": Kind("uuid", pa.binary(16), st.uuids()),
    "doc": Kind("jsonb", pa.string(), _OBJECT, json.dumps),
    "plain_doc": Kind("json", pa.string(), _OBJECT, json.dumps),
    "day": Kind("date", pa.date32(), st.dates()),
    "clock": Kind("time", pa.time64("us"), st.times()),
    "moment": Kind("timestamp", pa.timestamp("us"), _MOMENT),
    "zoned": Kind("timestamptz", pa.timestamp("us", "UTC"), _ZONED),
    "mood": Kind("fidelity_mood", pa.dictionary(pa.int8(), pa.string()), st.sampled_from(_MOODS)),
    "ints": Kind(
        "int4[]", pa.list_(pa.int32()), st.lists(st.none() | st.integers(-(2**31), 2**31 - 1), max_size=4)
    ),
    "texts": Kind("text[]", pa.list_(pa.string()), st.lists(st.none() | _TEXT, max_size=4)),
    "moments": Kind("timestamptz[]", pa.list_(pa.timestamp("us", "UTC")), st.lists(_ZONED, max_size=3)),
    "grid": Kind(
        "int8[]",
        pa.list_(pa.list_(pa.int64())),
        st.lists(st.lists(st.integers(-9, 9), min_size=2, max_size=2), min_size=1, max_size=3),
    ),
}
#: Types that only text COPY carries.
TEXT_KINDS = {
    "address": Kind("inet", pa.string(), st.ip_addresses()),
    "network": Kind("cidr", pa.string(), st.just(ipaddress.ip_network("10.0.0.0/8"))),
    "span": Kind("interval", pa.string(), st.timedeltas(dt.timedelta(days=-9999), dt.timedelta(days=9999))),
}
#: What CSV can write without a notation of its own for arrays.
_ARRAYS = ("ints", "texts", "moments", "grid")


def _carried(kinds: dict[str, Kind], source: str) -> dict[str, Kind]:
    """The columns that a kind of source can hold."""
    lacks = {"CSV": _ARRAYS, "Polars": ("wide",), "Polars lazy": ("wide",)}.get(source, ())
    return {name: kind for name, kind in kinds.items() if name not in lacks}


def _rows(kinds: dict[str, Kind]) -> st.SearchStrategy[list[dict[str, Any]]]:
    columns = {name: st.none() | kind.values for name, kind in kinds.items()}
    return st.lists(st.fixed_dictionaries(columns), min_size=1, max_size=4)


def _arrow(rows: list[dict[str, Any]], kinds: dict[str, Kind]) -> pa.Table:
    def value(name: str, found: Any) -> Any:
        if found is None:
            return None
        if kinds[name].sql in ("json", "jsonb"):
            return json.dumps(found)
        if kinds[name].sql == "uuid":
            return found.bytes
        return str(found) if kinds[name].sql in ("inet", "cidr", "interval") else found

    arrays = []
    for name, kind in kinds.items():
        plain = kind.arrow.value_type if pa.types.is_dictionary(kind.arrow) else kind.arrow
        array = pa.array([value(name, row[name]) for row in rows], type=plain)
        arrays.append(array.dictionary_encode() if plain is not kind.arrow else array)
    return pa.table(arrays, names=list(kinds))


def _csv(rows: list[dict[str, Any]], kinds: dict[str, Kind], folder: Path) -> Path:
    path = folder / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(kinds)
        for row in rows:
            # Quotes say that a text is empty, and not NULL.
            fields = (
                "" if row[n] is None else '"' + k.csv(row[n]).replace('"', '""') + '"'
                for n, k in kinds.items()
            )
            file.write(",".join(fields) + "\n")
    return path


def _parquet(rows: list[dict[str, Any]], kinds: dict[str, Kind], folder: Path) -> Path:
    path = folder / "rows.parquet"
    parquet.write_table(_arrow(rows, kinds), path)
    return path


Make = Callable[[list[dict[str, Any]], dict[str, Kind], Path], Any]
SOURCES: dict[str, Make] = {
    "tuples": lambda rows, kinds, folder: [tuple(row[name] for name in kinds) for row in rows],
    "lists": lambda rows, kinds, folder: iter([[row[name] for name in kinds] for row in rows]),
    "dicts": lambda rows, kinds, folder: rows,
    "pandas objects": lambda rows, kinds, folder: pd.DataFrame(
        {name: pd.Series([row[name] for row in rows], dtype=object) for name in kinds}
    ),
    "pandas on Arrow": lambda rows, kinds, folder: pd.DataFrame(
        {
            name: pd.array(column.combine_chunks(), dtype=pd.ArrowDtype(column.type))
            for name, column in zip(kinds, _arrow(rows, kinds).columns, strict=True)
        }
    ),
    "Polars": lambda rows, kinds, folder: pl.from_arrow(_arrow(rows, kinds)),
    "Polars lazy": lambda rows, kinds, folder: pl.from_arrow(_arrow(rows, kinds)).lazy(),
    "Arrow table": lambda rows, kinds, folder: _arrow(rows, kinds),
    "Arrow batches": lambda rows, kinds, folder: iter(_arrow(rows, kinds).to_batches(max_chunksize=3)),
    "CSV": _csv,
    "Parquet": _parquet,
}


def _cursor(
    connection: psycopg.Connection[Any], rows: list[dict[str, Any]], kinds: dict[str, Kind]
) -> psycopg.Cursor[Any]:
    """A DB-API cursor that has run its query, with the values as that driver gives them."""
    wrappers = {"json": Json, "jsonb": Jsonb}
    values = [
        None if row[name] is None else wrappers.get(kind.sql, _itself)(row[name])
        for row in rows
        for name, kind in kinds.items()
    ]
    marks = ", ".join(f"%s::{kind.sql}" for kind in kinds.values())
    query = f"SELECT * FROM (VALUES {', '.join([f'({marks})'] * len(rows))}) AS v ({', '.join(kinds)})"
    return connection.execute(query.encode(), values)


def _itself(value: Any) -> Any:
    return value


def _source(
    connection: psycopg.Connection[Any],
    name: str,
    rows: list[dict[str, Any]],
    kinds: dict[str, Kind],
    folder: Path,
) -> Any:
    if name == "cursor":
        return _cursor(connection, rows, kinds)
    return SOURCES[name](rows, kinds, folder)


@pytest.fixture(scope="module")
def connection(lakebase_server: LocalLakebase) -> Iterator[psycopg.Connection[Any]]:
    lakebase_server.admin.reset()
    with (
        LakebaseClient(LakebaseConfig.from_env(lakebase_server.env())) as client,
        client.connection() as found,
    ):
        labels = psycopg.sql.SQL(", ").join(map(psycopg.sql.Literal, _MOODS))
        found.execute(psycopg.sql.SQL("CREATE TYPE fidelity_mood AS ENUM ({})").format(labels))
        for name, kinds in (("fidelity", KINDS), ("fidelity_text", {**KINDS, **TEXT_KINDS})):
            columns = ", ".join(f"{column} {kind.sql}" for column, kind in kinds.items())
            found.execute(f"CREATE TABLE {name} (place serial, {columns})".encode())
        found.execute("SET TIME ZONE 'America/New_York'")
        yield found
        found.rollback()


def _load(
    connection: psycopg.Connection[Any], name: str, source: Any, kinds: dict[str, Kind]
) -> tuple[Any, list[tuple[Any, ...]]]:
    table = read_table(connection, name)
    with connection.transaction(force_rollback=True):
        result = copy_in(connection, source, table, columns=list(kinds))
        read = ", ".join(f"{column}::text" if column == "mood" else column for column in kinds)
        with connection.cursor(binary=True) as cursor:
            cursor.execute(f"SELECT {read} FROM {name} ORDER BY place".encode())
            return result, [tuple(map(_in_utc, row)) for row in cursor]


def _in_utc(value: Any) -> Any:
    """The same moment; one that a zone's clocks show twice equals none of another zone in Python."""
    if isinstance(value, list):
        return list(map(_in_utc, value))
    return value.astimezone(_UTC) if isinstance(value, dt.datetime) and value.tzinfo else value


def _expected(rows: list[dict[str, Any]], kinds: dict[str, Kind]) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in kinds) for row in rows]


def _same(found: list[tuple[Any, ...]], wanted: list[tuple[Any, ...]]) -> None:
    assert len(found) == len(wanted)
    for got, want in zip(found, wanted, strict=True):
        for left, right in zip(got, want, strict=True):
            assert type(left) is type(right)
            assert left == right
            if isinstance(left, float) and left == 0:
                assert math.copysign(1, left) == math.copysign(1, right)
            if isinstance(left, Decimal):
                assert str(left) == str(right)  # its scale too


#: Sources of Python values, which psycopg writes if they are few.
_PYTHON = ("tuples", "lists", "dicts", "cursor")
#: The values are wide, so that shrinking a failure would take minutes and say little more.
_PATIENT = settings(
    max_examples=examples(6, 60),
    deadline=None,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


@pytest.mark.parametrize("source", [*SOURCES, "cursor"])
@pytest.mark.deep
@_PATIENT
@given(rows=_rows(KINDS))
def test_every_type_survives(
    connection: psycopg.Connection[Any], tmp_path: Path, source: str, rows: list[dict[str, Any]]
) -> None:
    kinds = _carried(KINDS, source)
    for encoder in ("Arrow", "psycopg") if source in _PYTHON else ("Arrow",):
        with encoded_by(encoder):
            given = _source(connection, source, rows, kinds, tmp_path)
            result, found = _load(connection, "fidelity", given, kinds)
        assert result.format == ("text" if source == "CSV" or encoder == "psycopg" else "binary")
        assert result.rows == len(rows)
        _same(found, _expected(rows, kinds))


@pytest.mark.parametrize("source", ["tuples", "Arrow table", "Polars", "CSV", "cursor"])
@pytest.mark.deep
@_PATIENT
@given(rows=_rows({**KINDS, **TEXT_KINDS}))
def test_text_carries_the_same(
    connection: psycopg.Connection[Any], tmp_path: Path, source: str, rows: list[dict[str, Any]]
) -> None:
    kinds = _carried({**KINDS, **TEXT_KINDS}, source)
    result, found = _load(
        connection, "fidelity_text", _source(connection, source, rows, kinds, tmp_path), kinds
    )
    assert result.format == "text"
    _same(found, _expected(rows, kinds))
