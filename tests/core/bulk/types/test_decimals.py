"""Casts to decimals: Arrow's own makes another number of what passes 128 bits, and says nothing."""

from __future__ import annotations

from decimal import Context, Decimal, localcontext
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg.types.range import Range

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.load.load import load
from lakebase_provider.core.bulk.types.arrow import array_of
from lakebase_provider.core.bulk.types.decimals import cast
from lakebase_provider.core.errors import BadRowError, LakebaseError
from lakebase_provider.local import LocalLakebase
from tests.depth import examples

#: More digits than a decimal of 38, 18 of them behind the point, has before it.
TOO_LARGE = 10**24 + 10**20
INTEGERS = st.integers(min_value=-(10**38) + 1, max_value=10**38 - 1) | st.integers(-(10**20), 10**20)


def sources(number: int, scale: int) -> list[pa.Array]:
    """The number with so many digits behind the point, as each kind of array that is cast."""
    with localcontext(Context(prec=100)):
        value = Decimal(number).scaleb(-scale)
    small = pa.array([value], pa.decimal128(38, scale))
    return [
        small,
        pa.array([value], pa.decimal256(76, scale)),
        pa.array([f"{value:f}"]),
        pa.array([[value]], pa.list_(small.type)),
    ]


@pytest.mark.deep
@settings(max_examples=examples(100, 2000), deadline=None)
@given(number=INTEGERS, scale=st.integers(0, 38), wanted=st.integers(0, 38))
@example(number=TOO_LARGE, scale=0, wanted=18)
def test_a_number_is_the_same_or_refused(number: int, scale: int, wanted: int) -> None:
    kind = pa.decimal128(38, wanted)
    with localcontext(Context(prec=100)):
        value = Decimal(number).scaleb(-scale)
        fits = abs(value) < Decimal(10) ** (38 - wanted) and value == round(value, wanted)
    for array in sources(number, scale):
        try:
            (found,) = cast(array, kind).to_pylist()
        except pa.ArrowInvalid:
            found = None
        assert (found[0] if isinstance(found, list) else found) == (value if fits else None), array.type


@pytest.mark.parametrize("as_text", [False, True])
def test_a_load_changes_no_number_either(lakebase_server: LocalLakebase, as_text: bool) -> None:
    numbers = pa.array([Decimal(TOO_LARGE)], pa.decimal128(38, 0))
    source = pa.table({"n": numbers.cast(pa.string()) if as_text else numbers})
    with LakebaseClient(lakebase_server.config()) as client:
        with client.connection() as connection:
            connection.execute("drop table if exists decimals; create table decimals (n numeric(38, 18))")
        with pytest.raises(BadRowError):
            client.load(source, "decimals")
        with client.connection() as connection:
            assert connection.execute("select count(*) from decimals").fetchone() == (0,)
            connection.execute("drop table decimals")


@pytest.mark.parametrize("text", ["9" * 5_000, "1" + "0" * 300, "1E-2000000000", "0.5E+20000"], ids=len)
def test_a_text_of_more_digits_than_a_decimal_becomes_no_other_number(text: str) -> None:
    for texts in (pa.array(["1.5", None, text]), pa.array([["1.5", None], [text]])):
        with pytest.raises(pa.ArrowInvalid):
            cast(texts, pa.decimal128(6, 2))
    with pytest.raises(pa.ArrowInvalid):
        array_of([Decimal("1.5"), Decimal(text)], pa.decimal128(6, 2))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["integer", "oid", "money", "integer[]", "int8range"])
def test_a_number_of_a_huge_exponent_is_refused_at_once(lakebase_server: LocalLakebase, kind: str) -> None:
    huge: Any = Decimal("-1E+2000000000")
    value = {"integer[]": [huge], "int8range": Range(huge, None)}.get(kind, huge)
    with LakebaseClient(lakebase_server.config()) as client, client.connection() as connection:
        connection.execute(f"create temp table huge (n {kind})")
        with pytest.raises(LakebaseError, match=r"row 1|huge"):
            load(connection, [(value,)], "huge")
