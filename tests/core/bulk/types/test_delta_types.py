"""Every type of a Delta table, by the library's own writer, as Postgres has it: no value is changed."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import LakebaseError
from tests.core.bulk.sample_tables import run
from tests.depth import examples

UTC = timezone.utc
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


def whole(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    most = 10**precision - 1
    # Not scaleb, which rounds to the digits of the context.
    return st.integers(-most, most).map(lambda number: Decimal(f"{number}E-{scale}"))


#: By Delta's name: the Arrow type, the type of a new column, values, and what Postgres gives back for one.
TYPES: dict[str, tuple[pa.DataType, str, st.SearchStrategy[Any]]] = {
    "byte": (pa.int8(), "smallint", whole(8)),
    "short": (pa.int16(), "smallint", whole(16)),
    "integer": (pa.int32(), "integer", whole(32)),
    "long": (pa.int64(), "bigint", whole(64)),
    "float": (pa.float32(), "real", st.floats(width=32)),
    "double": (pa.float64(), "double precision", st.floats()),
    "decimal(38,18)": (pa.decimal128(38, 18), "numeric(38,18)", decimals(38, 18)),
    "decimal(10,2)": (pa.decimal128(10, 2), "numeric(10,2)", decimals(10, 2)),
    "decimal(38,0)": (pa.decimal128(38, 0), "numeric(38,0)", decimals(38, 0)),
    "string": (pa.string(), "text", TEXTS),
    "binary": (pa.binary(), "bytea", st.binary(max_size=12)),
    "boolean": (pa.bool_(), "boolean", st.booleans()),
    "date": (pa.date32(), "date", st.dates()),
    "timestamp": (
        pa.timestamp("us", "UTC"),
        "timestamp with time zone",
        st.datetimes(timezones=st.just(UTC)),
    ),
    "timestamp_ntz": (pa.timestamp("us"), "timestamp without time zone", st.datetimes()),
    "array<integer>": (pa.list_(pa.int32()), "integer[]", st.lists(st.none() | whole(32), max_size=4)),
    "array<string>": (pa.list_(pa.string()), "text[]", st.lists(st.none() | TEXTS, max_size=4)),
}
#: Nested types are JSON, in which a time and a decimal are what JSON has for them.
NESTED: dict[str, tuple[pa.DataType, st.SearchStrategy[Any], Callable[[Any], Any]]] = {
    "struct": (
        pa.struct([("a", pa.int64()), ("b", pa.string()), ("c", pa.list_(pa.int32()))]),
        st.fixed_dictionaries(
            {
                "a": st.none() | whole(64),
                "b": st.none() | TEXTS,
                "c": st.none() | st.lists(whole(32), max_size=3),
            }
        ),
        lambda value: value,
    ),
    "map": (
        pa.map_(pa.string(), pa.int64()),
        st.dictionaries(TEXTS, st.none() | whole(64), max_size=3).map(lambda found: list(found.items())),
        dict,
    ),
    "struct of struct": (
        pa.struct([("s", pa.struct([("x", pa.float64()), ("y", pa.bool_())]))]),
        st.fixed_dictionaries(
            {
                "s": st.none()
                | st.fixed_dictionaries(
                    {"x": st.floats(allow_nan=False, allow_infinity=False), "y": st.none() | st.booleans()}
                )
            }
        ),
        lambda value: value,
    ),
}


def through_delta(client: LakebaseClient, folder: Path, kind: pa.DataType, values: list[Any]) -> list[Any]:
    """The values as the database has them after a load from a Delta table."""
    place = folder / "lake"
    shutil.rmtree(place, ignore_errors=True)
    table = pa.table({"id": pa.array(range(len(values)), pa.int64()), "v": pa.array(values, kind)})
    write_deltalake(place, table)
    run(client, "DROP TABLE IF EXISTS t")
    client.load(f"delta:{place}", "t", create=True)
    return [value for (value,) in run(client, "SELECT v FROM t ORDER BY id")]


def alike(one: Any, other: Any, packed: str = "d") -> bool:
    """Whether two values are the same; floats are where their bytes are, and NaN is."""
    if isinstance(one, float) and isinstance(other, float):
        return struct.pack(packed, one) == struct.pack(packed, other) or (one != one and other != other)
    if isinstance(one, bytes):
        return one == bytes(other)
    return type(one) is type(other) and bool(one == other)


@pytest.mark.deep
@pytest.mark.parametrize("name", TYPES)
def test_every_value_of_a_type_arrives_unchanged(
    client: LakebaseClient, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    kind, declared, values = TYPES[name]
    folder = tmp_path_factory.mktemp("types")

    @settings(
        max_examples=examples(4, 60), deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(st.lists(st.none() | values, min_size=1, max_size=30))
    def check(found: list[Any]) -> None:
        arrived = through_delta(client, folder, kind, found)
        packed = "f" if name == "float" else "d"
        assert all(alike(*pair, packed) for pair in zip(found, arrived, strict=True)), (found, arrived)
        assert run(client, "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = 't'::regclass AND attname = 'v'") == [(declared,)]  # fmt: skip

    check()


@pytest.mark.deep
@pytest.mark.parametrize("name", NESTED)
def test_every_nested_value_arrives_as_json(
    client: LakebaseClient, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    kind, values, as_json = NESTED[name]
    folder = tmp_path_factory.mktemp("types")

    @settings(
        max_examples=examples(4, 60), deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(st.lists(st.none() | values, min_size=1, max_size=20))
    def check(found: list[Any]) -> None:
        arrived = through_delta(client, folder, kind, found)
        assert with_floats(arrived) == [None if value is None else as_json(value) for value in found]
        assert run(client, "SELECT pg_typeof(v)::text FROM t LIMIT 1") == [("jsonb",)]

    check()


def with_floats(value: Any) -> Any:
    """The values with each number under "x" as the float that it was: jsonb writes 1e16 as a whole number."""
    if isinstance(value, list):
        return [with_floats(one) for one in value]
    if isinstance(value, dict):
        return {
            key: float(one) if key == "x" and isinstance(one, int) else with_floats(one)
            for key, one in value.items()
        }
    return value


EDGES: dict[str, list[Any]] = {
    "byte": [-128, 127],
    "long": [-(2**63), 2**63 - 1],
    "float": [float("inf"), float("-inf"), -0.0, 1.401298464324817e-45, 3.4028234663852886e38],
    "double": [float("inf"), float("-inf"), float("nan"), 5e-324, 1.7976931348623157e308],
    "decimal(38,18)": [Decimal("99999999999999999999.999999999999999999"), Decimal("-0.000000000000000001")],
    "string": ["", "ä\u2028\U0001f600", "NULL", "\\N", '"', "a\nb"],
    "binary": [b"", b"\0\xff"],
    "date": [date(1, 1, 1), date(9999, 12, 31)],
    "timestamp": [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)],
    "timestamp_ntz": [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)],
    "array<string>": [[], [None], ["", "NULL", '"', "{}"]],
}


@pytest.mark.parametrize("name", EDGES)
def test_values_at_the_edge_arrive_unchanged(client: LakebaseClient, tmp_path: Path, name: str) -> None:
    found = EDGES[name]
    arrived = through_delta(client, tmp_path, TYPES[name][0], found)
    packed = "f" if name == "float" else "d"
    assert all(alike(*pair, packed) for pair in zip(found, arrived, strict=True)), (found, arrived)


def test_a_text_with_a_nul_is_refused_by_its_row_and_column(client: LakebaseClient, tmp_path: Path) -> None:
    with pytest.raises(LakebaseError, match="column v"):
        through_delta(client, tmp_path, pa.string(), ["a", "b\0"])


def test_nested_types_with_times_and_decimals_are_json_of_their_texts(
    client: LakebaseClient, tmp_path: Path
) -> None:
    kind = pa.struct([("at", pa.timestamp("us", "UTC")), ("n", pa.decimal128(38, 18)), ("d", pa.date32())])
    value = {"at": datetime(2027, 1, 31, 6, tzinfo=UTC), "n": Decimal("1.5"), "d": date(2027, 1, 31)}
    through_delta(client, tmp_path, kind, [value])
    (text,) = run(client, "SELECT v::text FROM t")[0]
    assert json.loads(text, parse_float=str) == {
        "at": "2027-01-31T06:00:00Z",
        "n": "1.500000000000000000",
        "d": "2027-01-31",
    }
