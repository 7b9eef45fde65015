"""What is wrong with a file: an error that names it, where in it and what helps; no retry, no row loaded."""

from __future__ import annotations

import bz2
import gzip
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.sources import csv_text
from lakebase_provider.core.errors import BadRowError, ConfigError, LakebaseError
from tests.core.bulk.sample_tables import run

#: Longer than what is parsed at once, and of texts that do not pack well.
LONG = b"a,b\n" + b"".join(b"%d,x%d\n" % (i, i * i * 7919) for i in range(200_000))
LINES = b"".join(b'{"a":%d,"b":"%d"}\n' % (i, i * i * 7919) for i in range(100_000))
TABLE = pa.table({"a": range(100_000), "b": [str(i * i * 7919) for i in range(100_000)]})


def parquet_file() -> bytes:
    data = io.BytesIO()
    parquet.write_table(TABLE, data)
    return data.getvalue()


def arrow_file(new: Callable[..., Any] = pa.ipc.new_file) -> bytes:
    data = io.BytesIO()
    with new(data, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=10_000)
    return data.getvalue()


def damaged(data: bytes) -> bytes:
    return data[:5000] + b"\xff" * 4000 + data[9000:]


def zipped(data: bytes) -> bytes:
    return b"PK\x03\x04" + data


#: A name, what the file holds, what the error says of it, and what of the remedy.
CASES: dict[str, tuple[str, Callable[[], bytes], str, str]] = {
    "Latin-1": ("x.csv", lambda: "a,b\n1,é\n".encode("latin-1"), "byte 7, in line 2, is not UTF-8", "cp1252"),
    "Latin-1, too many fields": (
        "x.csv",
        lambda: "a,b\n1,é,3\n".encode("latin-1"),
        "byte 7, in line 2, is not UTF-8",
        "encoding=",
    ),
    "Latin-1, far behind": (
        "x.csv",
        lambda: LONG + "1,é\n".encode("latin-1"),
        f"byte {len(LONG) + 3:,}, in line 200,002, is not UTF-8",
        "encoding=",
    ),
    "Latin-1 in the header": ("x.csv", lambda: "a,é\n".encode("latin-1"), "byte 3, in line 1", "encoding="),
    "UTF-16": ("x.csv", lambda: "a,b\n1,é\n".encode("utf-16"), "begins like UTF-16", "encoding='utf-16'"),
    "UTF-16 without a mark": (
        "x.csv",
        lambda: "a,b\n1,é\n".encode("utf-16-be"),
        "begins like UTF-16",
        "encoding='utf-16-be'",
    ),
    "gzip named CSV": ("x.csv", lambda: gzip.compress(LONG), "begins like gzip data", "suffix"),
    "Excel named CSV": ("x.csv", lambda: zipped(b"..."), "Excel workbook", "suffix"),
    "Parquet named CSV": ("x.csv", parquet_file, "begins like a Parquet file", "suffix"),
    "CSV named gzip": ("x.csv.gz", lambda: LONG, "is not compressed with gzip", "Leave out the last suffix"),
    "gzip, cut": ("x.csv.gz", lambda: gzip.compress(LONG)[:-9], "gzip data end too early", "again"),
    "gzip, cut soon": ("x.csv.gz", lambda: gzip.compress(LONG)[:20], "gzip data end too early", "again"),
    "bzip2, cut": ("x.csv.bz2", lambda: bz2.compress(LONG)[:-9], "bz2 data end too early", "again"),
    "gzip, damaged": (
        "x.csv.gz",
        lambda: gzip.compress(LONG)[:10] + b"\xff" * 50,
        "gzip data are damaged",
        "again",
    ),
    "a quote left open": ("x.csv", lambda: b'a,b\n1,2\n3,"x\n4,y\n', "line 3 is not closed", "quote=None"),
    "too few fields": (
        "x.csv",
        lambda: b"a,b\n1,2\n3\n",
        "row 2 of .*1 fields, but the header has 2",
        "quotes",
    ),
    "too few fields, far behind": ("x.csv", lambda: LONG + b"3\n", "row 200,001 of", "quotes"),
    "another delimiter in the rows": ("x.csv", lambda: b"a\n1,2\n", "row 1 of", "delimiter=';'"),
    "a blank line": ("x.csv", lambda: b"a,b\n1,2\n\n3,4\n", "line 3 of the file is blank", "Remove"),
    "text named Parquet": ("x.parquet", lambda: LONG, "begins like text", "suffix"),
    "Arrow named Parquet": ("x.parquet", arrow_file, "begins like an Arrow file", "suffix"),
    "nothing named Parquet": ("x.parquet", lambda: b"", "it is empty", "again"),
    "Parquet, cut": ("x.parquet", lambda: parquet_file()[:-1000], "does not end as one", "again"),
    "Parquet, damaged": ("x.parquet", lambda: damaged(parquet_file()), "Parquet data are damaged", "again"),
    "text named Arrow": ("x.arrow", lambda: LONG, "begins like text", "suffix"),
    "Parquet named Arrow": ("x.arrow", parquet_file, "begins like a Parquet file", "suffix"),
    "Arrow, cut": ("x.arrow", lambda: arrow_file()[:-1000], "does not end as one", "again"),
    "a stream named Arrow": (
        "x.arrow",
        lambda: arrow_file(pa.ipc.new_stream),
        "stream of Arrow's IPC format",
        "open_stream",
    ),
    "JSON in UTF-16": ("x.jsonl", lambda: '{"a":1}\n'.encode("utf-16"), "begins like UTF-16", "UTF-8"),
    "JSON in Latin-1": (
        "x.jsonl",
        lambda: '{"a":1}\n{"a":"é"}\n'.encode("latin-1"),
        "row 2 of .*from byte 15 of the file",
        "UTF-8",
    ),
    "JSON, cut": (
        "x.jsonl",
        lambda: LINES[:-9],
        "row 100,000 of .*it may be truncated",
        "complete JSON object",
    ),
    "JSON in gzip, cut": (
        "x.jsonl.gz",
        lambda: gzip.compress(LINES)[:-9],
        "from row .* onwards: its gzip data end too early",
        "again",
    ),
    "a list of JSON": ("x.jsonl", lambda: b'[{"a":1},\n{"a":2}]\n', "begins with a list", "one object"),
    "Parquet named JSON": ("x.jsonl", parquet_file, "begins like a Parquet file", "suffix"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_broken_file_is_named_and_not_tried_again(
    client: LakebaseClient, tmp_path: Path, case: str
) -> None:
    run(client, "CREATE TABLE t (a text, b text)")
    name, data, words, remedy = CASES[case]
    path = tmp_path / name
    path.write_bytes(data())
    with pytest.raises(LakebaseError, match=words) as caught:
        client.load(path, "t")
    assert str(path) in str(caught.value)
    assert remedy in caught.value.remedy
    assert not caught.value.retryable
    assert caught.value.__cause__ is None  # Arrow's words quote what the file holds
    assert run(client, "SELECT count(*) FROM t") == [(0,)]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("file:///no/such/file.csv", "no file 'file:///no/such/file.csv'"),
        ("memory://no-such-file.parquet", "no file 'memory://no-such-file.parquet'"),
        ("/dev/null/x.csv", "no file '/dev/null/x.csv'"),
        ("/no/such/*.csv", "and none matches"),
        ("memory://none/*.csv", "and none matches"),
    ],
)
def test_a_file_that_is_not_there(client: LakebaseClient, name: str, words: str) -> None:
    run(client, "CREATE TABLE t (a text)")
    with pytest.raises(ConfigError, match=words.replace("*", r"\*")) as caught:
        client.load(name, "t")
    assert name in str(caught.value)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "source",
    [pd.Series([1]), pd.Series(["x"]), pd.Series([(1,)]), pd.Index([1]), pl.Series([1])],
    ids=lambda source: f"{type(source).__module__} {getattr(source, 'dtype', '')}",
)
def test_one_column_is_no_source(client: LakebaseClient, source: Any) -> None:
    run(client, "CREATE TABLE t (a text)")
    with pytest.raises(ConfigError, match="is one column") as caught:
        client.load(source, "t", mode="replace")
    assert "to_frame" in caught.value.remedy


@pytest.mark.parametrize("source", [pa.array([1]), pa.chunked_array([[1]])], ids=["array", "chunked array"])
def test_nor_is_one_of_arrow(client: LakebaseClient, source: Any) -> None:
    run(client, "CREATE TABLE t (a text)")
    with pytest.raises(ConfigError, match="holds one column") as caught:
        client.load(source, "t")
    assert "pyarrow.table" in caught.value.remedy


def test_a_value_of_the_file_is_named_with_the_file_and_its_row(
    client: LakebaseClient, tmp_path: Path
) -> None:
    run(client, "CREATE TABLE t (a int, b numeric(4, 1))")
    path = tmp_path / "x.csv"
    for text, words in (
        ("a,b\n1,2\n3,4.55\n", f"row 2 of '{path}', column 'b'"),  # seen here
        ("a,b\n1,2\nprivate,4\n", f"row 2 of '{path}', column a"),  # seen by the server
    ):
        path.write_text(text)
        with pytest.raises(BadRowError, match=words) as caught:
            client.load(path, "t")
        assert caught.value.row == 2
        assert "private" not in str(caught.value)


@pytest.mark.parametrize("quoted", [False, True])
def test_a_row_may_be_longer_than_what_is_read_at_once(
    client: LakebaseClient, tmp_path: Path, quoted: bool
) -> None:
    run(client, "CREATE TABLE t (a int, b text)")
    value = "x\n," * 1_000_000 if quoted else "x" * 3_000_000
    path = tmp_path / "x.csv"
    path.write_text(f"a,b\n1,short\n2,{chr(34) * quoted}{value}{chr(34) * quoted}\n3,last\n")
    assert client.load(path, "t").rows == 3
    assert run(client, "SELECT a, b FROM t ORDER BY a") == [(1, "short"), (2, value), (3, "last")]


def test_a_row_without_an_end_is_not_kept_for_ever(
    client: LakebaseClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_text, "LONGEST_ROW", 3 << 20)
    run(client, "CREATE TABLE t (a text, b text)")
    path = tmp_path / "x.csv"
    for begin, words in (('1,"', "line 2 is not closed"), ("1,", "row that does not end within 3 MiB")):
        path.write_text(f"a,b\n{begin}{'x' * (9 << 20)}")
        with pytest.raises(BadRowError, match=words):
            client.load(path, "t")


SCRIPT = """
import sys
from lakebase_provider.core.bulk.sources.open import open_source
source = open_source(sys.argv[1])
try:
    for batch in source.batches():
        pass
except Exception as error:
    print(type(error).__name__)
source.close()
"""


@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_the_process_ends_after_a_read_that_failed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    # The fault stands at the beginning, so that whoever reads ahead has much left to read.
    data = b"a,b\n1\n" + b"1,22222222222222222222222222222222\n" * 1_000_000
    path.write_bytes(gzip.compress(data, 1) if suffix.endswith("gz") else data)
    for _ in range(5):
        ended = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(path)], capture_output=True, timeout=60, check=False
        )
        assert (ended.returncode, ended.stdout.split(), ended.stderr) == (0, [b"BadValueError"], b"")
