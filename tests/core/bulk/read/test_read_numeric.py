"""What becomes of numerics that declare no digits: every one of them, or an error that names the column."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Context, Decimal, localcontext
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.read.batches import Batches
from lakebase_provider.core.bulk.read.to_frames import to_polars
from lakebase_provider.core.bulk.types.decimals import digits_of
from lakebase_provider.core.errors import ConfigError, LoadError
from lakebase_provider.local import LocalLakebase
from tests.core.bulk.read.test_read_fidelity import BY_CURSOR
from tests.depth import examples

#: Rows of more than one batch.
MANY = 40_000


@pytest.fixture(scope="module")
def client(lakebase_server: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_server.config()) as client:
        yield client


#: An expression, its Arrow type and its value.
RIGHT = {
    "1/3.0": (pa.decimal128(38, 20), Decimal("0.33333333333333333333")),
    "1/30000.0": (pa.decimal128(38, 24), Decimal("0.000033333333333333333333")),
    "1/3.0e9": (pa.decimal128(38, 28), Decimal("3.333333333333333333E-10")),
    "1.5": (pa.decimal128(38, 18), Decimal("1.5")),
    "0.0": (pa.decimal128(38, 18), Decimal(0)),
    "-123456789012345678901234567890.12": (
        pa.decimal128(38, 2),
        Decimal("-123456789012345678901234567890.12"),
    ),
    "repeat('9', 38)::numeric": (pa.decimal128(38, 0), Decimal("9" * 38)),
    "repeat('9', 39)::numeric": (pa.decimal256(76, 0), Decimal("9" * 39)),
    "1e-38": (pa.decimal128(38, 38), Decimal("1E-38")),
    "1e-76": (pa.decimal256(76, 76), Decimal("1E-76")),
    "array[1/3.0, null, 7]": (
        pa.list_(pa.decimal128(38, 20)),
        [Decimal("0.33333333333333333333"), None, Decimal(7)],
    ),
}


@pytest.mark.parametrize("expression", RIGHT)
@pytest.mark.parametrize("by_cursor", [False, True], ids=["copy", "cursor"])
def test_a_numeric_has_the_digits_that_it_needs(
    client: LakebaseClient, expression: str, by_cursor: bool
) -> None:
    kind, value = RIGHT[expression]
    query = f"select {expression} as n union all select null"
    table = client.fetch_arrow(BY_CURSOR + query if by_cursor else query)
    assert table.schema.field("n").type == kind
    assert table["n"].to_pylist() == [value, None]
    with closing(client.iter_batches(query)) as batches:
        assert pa.Table.from_batches(list(batches)).equals(client.fetch_arrow(query))


def test_the_commonest_reports_are_readable(client: LakebaseClient) -> None:
    query = (
        "select avg(g) as mean, sum(g) / 7.0 as seventh, stddev(g) as spread from generate_series(1, 10) g"
    )
    expected = {
        "mean": Decimal("5.5000000000000000"),
        "seventh": Decimal("7.8571428571428571"),
        "spread": Decimal("3.0276503540974917"),
    }
    assert client.fetch_arrow(query).to_pylist() == [expected]
    assert client.fetch_polars(query).to_dicts() == [expected]
    assert client.fetch_pandas(query).to_dict("records") == [expected]


Fetch = Callable[..., list[Any]]


def from_arrow(client: LakebaseClient, query: str, **options: Any) -> list[Any]:
    return list(client.fetch_arrow(query, **options)["n"].to_pylist())


def from_polars(client: LakebaseClient, query: str, **options: Any) -> list[Any]:
    return client.fetch_polars(query, **options)["n"].to_list()


def from_pandas(client: LakebaseClient, query: str, **options: Any) -> list[Any]:
    return [*client.fetch_pandas(query, **options)["n"]]


FETCHES = [from_arrow, from_polars, from_pandas]


@pytest.mark.parametrize("fetch", FETCHES)
@pytest.mark.parametrize("by_cursor", [False, True], ids=["copy", "cursor"])
def test_batches_of_other_digits_become_one_column(
    client: LakebaseClient, fetch: Fetch, by_cursor: bool
) -> None:
    query = (
        f"select case when g > {MANY - 2} then 1 / 3.0e5 else 1.5 end as n from generate_series(1, {MANY}) g"
    )
    third = Decimal("0.000003333333333333333333")
    assert fetch(client, BY_CURSOR + query if by_cursor else query)[-3:] == [Decimal("1.5"), third, third]


@pytest.mark.parametrize("fetch", FETCHES)
def test_lists_of_other_digits_become_one_column(client: LakebaseClient, fetch: Fetch) -> None:
    query = (
        f"select array[case when g = {MANY} then 1 / 3.0 else 1.5 end] as n from generate_series(1, {MANY}) g"
    )
    assert [*fetch(client, query)[-1]] == [Decimal("0.33333333333333333333")]


@pytest.mark.parametrize("fetch", [from_arrow, from_pandas])
def test_digits_of_several_batches_add_up(client: LakebaseClient, fetch: Fetch) -> None:
    query = f"select case when g = {MANY} then 1e-30 else 1e20 end as n from generate_series(1, {MANY}) g"
    assert fetch(client, query)[-2:] == [Decimal("1e20"), Decimal("1e-30")]


def test_polars_has_38_digits_in_all(client: LakebaseClient) -> None:
    for query in (
        f"select case when g = {MANY} then 1e-30 else 1e20 end as n from generate_series(1, {MANY}) g",
        "select repeat('9', 39)::numeric as n",
        "select repeat('9', 39)::numeric(40, 0) as n",
        "select array[repeat('9', 39)::numeric] as n",
        "select 1e-50::numeric as n",
        "select 1e-30::numeric / 3 as n",
        "select 1e-60::numeric(2, 60) as n",
        "select 1 as a, array[1e-50::numeric] as n",
    ):
        with pytest.raises(LoadError, match=r'(?s)^Column "n" .*numeric=\'text\''):
            client.fetch_polars(query)


def test_what_polars_can_hold_of_a_column_of_more_places_is_read(client: LakebaseClient) -> None:
    decimal = pl.Decimal(38, 38)
    assert client.fetch_polars("select 0.5::numeric(60, 50) as n")["n"].to_list() == [Decimal("0.5")]
    assert client.fetch_polars("select null::numeric(60, 50) as n")["n"].to_list() == [None]
    assert client.fetch_polars("select 1::numeric(60, 50) as n where false").schema == {"n": decimal}


def test_polars_own_errors_become_one_that_names_the_column() -> None:
    # No read gives this type, and Polars has none for it.
    interval = pa.array([pa.MonthDayNano([1, 2, 3])])
    batch = pa.RecordBatch.from_arrays([pa.array([1]), interval], names=["a", "n"])
    with pytest.raises(LoadError, match=r'^Column "n" holds what Polars cannot'):
        to_polars(Batches(batch.schema, iter([batch])))


def test_the_parts_of_a_file_have_one_type(client: LakebaseClient, tmp_path: Path) -> None:
    query = "select {} as n, g from generate_series(3, 4) g"
    folder = tmp_path / "parts"
    with pytest.raises(LoadError, match=r'(?s)Column "n" .*more than 18 digits behind the point .*Round'):
        client.unload(query.format("1 / g::numeric"), str(folder), parallel=2, by="g")
    client.unload(query.format("round(1 / g::numeric, 18)"), str(folder), parallel=2, by="g")
    parts = [pq.read_schema(part).field("n").type for part in folder.iterdir()]
    assert parts == [pa.decimal128(38, 18)] * 2


@pytest.mark.parametrize("fetch", FETCHES)
@pytest.mark.parametrize(
    "value", ["'NaN'::numeric", "'-Infinity'::numeric", "repeat('9', 77)::numeric", "1e-77"]
)
@pytest.mark.parametrize("form", ["{}", "array[{}]"])
def test_what_no_decimal_holds_is_refused_by_its_column_or_read_as_text(
    client: LakebaseClient, fetch: Fetch, value: str, form: str
) -> None:
    query = f"select {form.format(value)} as n"
    for statement in (query, BY_CURSOR + query):
        with pytest.raises(LoadError, match=r'(?s)^Column "n" holds a value that .*numeric=\'text\''):
            fetch(client, statement)
        with client.connection() as connection:
            (text,) = connection.execute(f"select ({value})::text").fetchone() or ()
        (found,) = fetch(client, statement, numeric="text")
        assert (found if form == "{}" else [*found]) == (text if form == "{}" else [text])


def test_numerics_as_text_are_as_postgres_writes_them(client: LakebaseClient) -> None:
    query = "select 1.50::numeric(5, 2) as d, avg(g) as a, 2 as i from generate_series(1, 2) g"
    table = client.fetch_arrow(query, numeric="text")
    assert table.to_pylist() == [{"d": "1.50", "a": "1.5000000000000000", "i": 2}]


def test_another_word_is_refused(client: LakebaseClient) -> None:
    with pytest.raises(ConfigError, match=r"(?s)numeric is 'float'.*decimal, text"):
        client.fetch_arrow("select 1", numeric="float")  # type: ignore[arg-type]


def test_a_stream_keeps_the_digits_of_its_first_batch(client: LakebaseClient) -> None:
    query = "select case when g = 3 then 1 / 3.0e5 else 1 / 3.0 end as n from generate_series(1, 3) g"
    with closing(client.iter_batches(query, batch_rows=2)) as batches:
        assert next(batches).schema.field("n").type == pa.decimal128(38, 20)
        with pytest.raises(LoadError, match=r"more than 20 digits behind the point \(row 3\)"):
            next(batches)
    with closing(client.iter_batches(query, batch_rows=2, numeric="text")) as batches:
        assert [batch.num_rows for batch in batches] == [2, 1]


def test_a_file_has_the_digits_that_it_needs(client: LakebaseClient, tmp_path: Path) -> None:
    client.unload("select avg(g) / 3 as n from generate_series(1, 10) g", str(tmp_path / "a.parquet"))
    assert pq.read_table(tmp_path / "a.parquet")["n"].to_pylist() == [Decimal("1.8333333333333333")]
    client.unload("select 1 / 3.0 as n", str(tmp_path / "b.arrow"), format="arrow")
    with pa.ipc.open_file(tmp_path / "b.arrow") as file:
        assert file.read_all()["n"].to_pylist() == [Decimal("0.33333333333333333333")]


def stripped(number: Decimal) -> Decimal:
    with localcontext(Context(prec=1000)):
        return number.normalize()


@pytest.mark.deep
@settings(
    max_examples=examples(15, 200),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    numbers=st.lists(
        st.none()
        | st.decimals(allow_nan=False, allow_infinity=False)
        | st.decimals(min_value=-(10**36), max_value=10**36, places=20)
        | st.fractions(max_denominator=999).map(lambda f: Decimal(f.numerator) / Decimal(f.denominator)),
        max_size=6,
    )
)
def test_any_numbers_are_whole_or_refused(client: LakebaseClient, numbers: list[Decimal | None]) -> None:
    """As psycopg reads them, or not at all."""
    query = "select n::numeric from unnest(%s::text[]) n"
    params = [[None if number is None else str(number) for number in numbers]]
    with client.connection() as connection:
        expected = [row[0] for row in connection.execute(query, params)]
    finite = [number for number in expected if number is not None]
    for read in (client.fetch_arrow, client.fetch_polars):
        try:
            found = read(query, params)
        except LoadError:
            found = None
        most = 38 if read == client.fetch_polars else 76
        # Zeros at the end need not be held.
        assert found is None or sum(digits_of(map(stripped, finite))) <= most
        assert found is not None or sum(digits_of(finite)) > most
        if found is not None:
            column = found["n"]
            assert (column.to_list() if isinstance(column, pl.Series) else column.to_pylist()) == expected
