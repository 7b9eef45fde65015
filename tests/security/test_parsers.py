"""Files, JSON and the workspace's answers of any bytes: a result or one error of ours, and never for long."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from lakebase_provider.core import LakebaseClient, LakebaseError
from lakebase_provider.core.bulk.sources.open import open_source
from lakebase_provider.core.bulk.types.target_columns import BadValueError, Target
from lakebase_provider.core.bulk.types.values import check
from lakebase_provider.core.config.allowed_hosts import allowed_origin
from lakebase_provider.core.errors import ConfigError, ControlPlaneError, LoadError
from lakebase_provider.core.workspace.answers import Answer, parse_json
from lakebase_provider.local import LocalLakebase
from tests.depth import examples

#: Seconds that any of these inputs may take, on a machine that is busy.
LONG = 20.0


def in_time(work: Callable[[], Any]) -> Any:
    begun = time.monotonic()
    try:
        return work()
    finally:
        assert time.monotonic() - begun < LONG


def read_file(folder: Path, name: str, data: bytes) -> list[tuple[Any, ...]] | Exception:
    """The rows, or the error: of ours, or the one that a load makes a BadRowError of."""
    path = folder / name
    path.write_bytes(data)

    def rows() -> list[tuple[Any, ...]] | Exception:
        try:
            with open_source(path) as source:
                return [batch.row(index) for batch in source.batches() for index in range(batch.rows)]
        except (LakebaseError, BadValueError) as error:
            return error

    found: list[tuple[Any, ...]] | Exception = in_time(rows)
    return found


BIG = b"x" * (3 << 20)
CSV: dict[str, tuple[bytes, type[Exception] | None]] = {
    "nothing": (b"", ConfigError),
    "a NUL": (b"\0", None),
    "UTF-16": ("a,b\n1,2\n".encode("utf-16"), ConfigError),
    "a header that is not UTF-8": (b"\xff,b\n1,2\n", ConfigError),
    "a surrogate": (b"\xed\xa0\x80\n1\n", ConfigError),
    "a row that is not UTF-8, in the header's block": (b"a,b\n\xff,2\n", ConfigError),
    "a row that is not UTF-8, far behind": (b"a,b\n" + b"1,2\n" * 9999 + b"\xff,2\n", BadValueError),
    "a quote that is left open": (b'a,b\n"1,2\n', BadValueError),
    "a quote that is left open in the header": (b'a,"b\n1,2\n', None),
    "a quote left open for long": (b'a,b\n"' + BIG, BadValueError),
    "a name of 200,000 characters": (b"a" * 200_000 + b"\n1\n", ConfigError),
    "a value of 3 MB": (b"a,b\n" + BIG + b",1\n", None),
    "a cut in a field in quotes": (b'a,b\n1,"2\n3,4\n', BadValueError),
    "too few fields": (b"a,b\n1\n", BadValueError),
    "too many fields": (b"a,b\n1,2,3\n", BadValueError),
}


@pytest.mark.parametrize("case", CSV)
def test_csv_that_is_none(tmp_path: Path, case: str) -> None:
    data, expected = CSV[case]
    for name, content in (("rows.csv", data), ("rows.csv.gz", gzip.compress(data))):
        found = read_file(tmp_path, name, content)
        if expected is not None:
            assert isinstance(found, (expected, LakebaseError, BadValueError)), found
            assert "xxx" not in str(found)


@pytest.mark.parametrize("suffix", ["csv.gz", "csv.bz2", "csv.zst", "parquet", "pq"])
@pytest.mark.parametrize("data", [b"", b"\0", b"PAR1", b"PAR1\xff\xff\xff\x7fPAR1", b"\x1f\x8b", b"BZh9"])
def test_a_file_that_is_not_what_its_suffix_says(tmp_path: Path, suffix: str, data: bytes) -> None:
    found = read_file(tmp_path, f"rows.{suffix}", data)
    assert isinstance(found, ConfigError)
    assert f"rows.{suffix}" in str(found)


def test_a_packed_file_that_is_cut_off(tmp_path: Path) -> None:
    whole = gzip.compress(b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(200_000)))
    for cut in (1, 9, len(whole) // 2, len(whole) - 3):
        found = read_file(tmp_path, "rows.csv.gz", whole[:cut])
        assert isinstance(found, (ConfigError, LoadError))
        assert "rows.csv.gz" in str(found)


def a_parquet_file() -> bytes:
    data = io.BytesIO()
    table = pa.table({"a": [1, 2, None], "b": ["x", None, "z"], "c": [[1], [], None]})
    parquet.write_table(table, data)
    return data.getvalue()


PARQUET = a_parquet_file()
COMMON = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


def holds(property_: Callable[..., None], **strategies: Any) -> None:
    few = examples(True, False)
    settings(COMMON, max_examples=examples(100, 10_000), derandomize=few)(given(**strategies)(property_))()


CSV_BYTES = st.binary(max_size=60) | st.lists(
    st.sampled_from([b"a", b"1", b",", b'"', b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"\xc3\xa9", b" "]),
    max_size=40,
).map(b"".join)


@pytest.mark.deep
def test_any_bytes_as_csv(tmp_path: Path) -> None:
    def looked_at(data: bytes) -> None:
        read_file(tmp_path, "rows.csv", data)

    holds(looked_at, data=CSV_BYTES)


@pytest.mark.deep
def test_a_damaged_file(tmp_path: Path) -> None:
    packed = gzip.compress(b"a,b\n" + b"1,2\n" * 50)

    def looked_at(places: list[tuple[int, int]], cut: int) -> None:
        for name, whole in (("rows.parquet", PARQUET), ("rows.csv.gz", packed)):
            data = bytearray(whole)
            for place, value in places:
                data[place % len(data)] = value
            read_file(tmp_path, name, bytes(data[: len(data) - cut]))

    places = st.lists(
        st.tuples(st.integers(0, len(PARQUET) - 1), st.integers(0, 255)), min_size=1, max_size=4
    )
    holds(looked_at, places=places, cut=st.sampled_from([0, 0, 0, 1, 9]))


JSON_TEXT = st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())
HARD_JSON = [
    b"[" * 200_000,
    b'{"a":' * 100_000,
    b"9" * 100_000,
    b"-" + b"9" * 5_000,
    b"1e999999",
    b"NaN",
    b"Infinity",
    b'"\\ud800"',
    b'"\\u0000"',
    b"\xef\xbb\xbf{}",
    b'{"a": 1, "a": 2}',
    b"\xff",
    b"",
]


def looked_at_as_json(text: bytes) -> None:
    """As a value of a column, and as an answer of the workspace."""
    for kind in ("json", "jsonb"):
        target = Target(name="c", type_name=kind, kind=kind, oid=114)
        for value in (text, text.decode(errors="replace")):
            try:
                check(value, target).encode()
            except BadValueError as error:
                assert error.reason  # noqa: PT017 - it is one of two ways to end
    try:
        found = parse_json(text)
    except ValueError:
        return
    if isinstance(found, dict):
        looked_at_as_answer(dict.fromkeys(FIELDS, found) | found)


@pytest.mark.parametrize("text", HARD_JSON, ids=lambda text: repr(text[:12]))
def test_json_that_is_hard(text: bytes) -> None:
    in_time(lambda: looked_at_as_json(text))


@pytest.mark.deep
def test_any_bytes_as_json() -> None:
    holds(looked_at_as_json, text=JSON_TEXT)


FIELDS = ("object", "flag", "text", "state", "host", "user_name", "token", "seconds", "workspace_id", "url")


def looked_at_as_answer(fields: dict[str, Any]) -> None:
    """Each reader of a field, on fields of any type."""
    answer = Answer(fields, "endpoint e")
    for name in fields:
        readers: list[Callable[[str], Any]] = [
            getattr(answer, reader) for reader in FIELDS if reader != "url"
        ]
        for reader in readers:
            try:
                reader(name)
            except ControlPlaneError as error:
                assert not error.retryable  # noqa: PT017 - it is one of two ways to end
        with contextlib.suppress(ControlPlaneError):
            answer.url_at(allowed_origin("https://w.databricks.com"), name)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.deep
def test_any_values_as_an_answers_fields() -> None:
    holds(looked_at_as_answer, fields=st.dictionaries(st.text(max_size=5), ANY, max_size=3))


@pytest.fixture
def client(lakebase_env: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config()) as found:
        with found.connection() as connection:
            connection.execute("DROP TABLE IF EXISTS taken; CREATE TABLE taken (a text, b jsonb, c int)")
        yield found


def not_utf8(count: int) -> pa.Table:
    offsets = pa.array([0, 1], pa.int32()).buffers()[1]
    text = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff")])
    return pa.table(dict.fromkeys("abc"[:count], text))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("rows.csv", b"a\n\xff\n"),
        ("rows.csv", b"a,b\n" + b"x,{}\n" * 20_000 + b"\xff,{}\n"),
        ("rows.csv", b'a,b\nx,"' + b"[" * 200_000 + b'"\n'),
        ("rows.csv", b"a,b\nx,{\n"),
        ("rows.csv", b"a,c\nx," + b"9" * 200_000 + b"\n"),
        ("rows.csv", b"a\na\0b\n"),
        ("rows.parquet", PARQUET[:-9] + b"\xff" + PARQUET[-8:]),
        *[("rows.parquet", not_utf8(count)) for count in (1, 2, 3)],
    ],
    ids=range(10),
)
def test_a_load_of_what_is_no_data(client: LakebaseClient, tmp_path: Path, name: str, data: Any) -> None:
    path = tmp_path / name
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        parquet.write_table(data, path)
    with pytest.raises((ConfigError, LoadError)):
        in_time(lambda: client.load(path, "taken"))
    with client.connection() as connection:
        assert connection.execute("SELECT count(*) FROM taken").fetchone() == (0,)
