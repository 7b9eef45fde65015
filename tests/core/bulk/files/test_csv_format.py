"""How CSV may be written: each option, and what is refused early instead of being passed over."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.files.csv_format import CSV_OPTIONS, CsvFormat
from lakebase_provider.core.bulk.load.plan import LoadOptions, LoadPlan
from lakebase_provider.core.errors import BadRowError, ColumnMismatchError, ConfigError
from tests.core.bulk.sample_tables import run

ROWS = [("1", "é"), ("2", None)]


@pytest.fixture
def table(client: LakebaseClient) -> LakebaseClient:
    run(client, "CREATE TABLE t (a text, b text)")
    return client


def loaded(client: LakebaseClient, path: Path, **options: Any) -> list[tuple[Any, ...]]:
    client.load(path, "t", mode="replace", **options)
    return run(client, 'SELECT a, b FROM t ORDER BY a COLLATE "C"')


@pytest.mark.parametrize(
    ("name", "data", "options"),
    [
        ("x.csv", "a;b\n1;é\n2;\n", {"delimiter": ";"}),
        ("x.csv", "a|b\n1|é\n2|\n", {"delimiter": "|"}),
        ("x.tsv", "a\tb\n1\té\n2\t\n", {}),
        ("x.tsv", "a,b\n1,é\n2,\n", {"delimiter": ","}),
        ("x.csv", "a,b\n1,é\n2,NULL\n", {"null": "NULL"}),
        ("x.csv", "a,b\n1,é\n2,\\N\n", {"null": ["", "\\N"]}),
        ("x.csv", "b,a\né,1\n,2\n", {}),
        ("x.csv", "1,é\n2,\n", {"header": False}),
        ("x.csv", "é,1\n,2\n", {"header": False, "columns": ["b", "a"]}),
        ("x.csv", "a,b\n1,'é'\n2,\n", {"quote": "'"}),
        ("x.csv", "\ufeffa,b\r\n1,é\r\n2,", {}),
        ("x.csv", "a,b\r1,é\r2,\r", {}),
    ],
)  # fmt: skip
def test_each_option(table: LakebaseClient, tmp_path: Path, name: str, data: str, options: Any) -> None:
    path = tmp_path / name
    path.write_text(data, encoding="utf-8", newline="")
    assert loaded(table, path, **options) == ROWS


@pytest.mark.parametrize(
    ("written", "given"),
    [
        ("latin-1", "latin-1"),
        ("cp1252", "windows-1252"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("utf-8-sig", "utf-8-sig"),
        ("utf-8-sig", "UTF8"),
        ("utf-32", "utf-32"),
        ("cp037", "cp037"),
    ],
)
def test_encodings(table: LakebaseClient, tmp_path: Path, written: str, given: str) -> None:
    path = tmp_path / "x.csv"
    # More than is read at once, so that characters lie across two reads.
    rows = [(f"{number:06}", "é" * 10) for number in range(60_000)]
    path.write_bytes("".join(["a,b\n", *(f"{a},{b}\n" for a, b in rows)]).encode(written))
    assert loaded(table, path, encoding=given) == rows


def test_what_is_not_in_its_encoding_is_named_by_its_byte(table: LakebaseClient, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"a,b\n" + b"1,2\n" * 500_000 + b"1,\x81\n")
    with pytest.raises(BadRowError, match="byte 2,000,007 of the file is not cp1252") as caught:
        loaded(table, path, encoding="cp1252")
    assert str(path) in str(caught.value)
    path.write_bytes("a,b\n1,2\n".encode("utf-16")[:-1])
    with pytest.raises((BadRowError, ConfigError), match="byte 17 of the file is not utf-16"):
        loaded(table, path, encoding="utf-16")


def test_quotes_that_mean_nothing_are_text(table: LakebaseClient, tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text('a\tb\n"1\t5"\n2\t"x"\n')
    assert loaded(table, path, quote=None) == [('"1', '5"'), ("2", '"x"')]


def test_an_empty_text_and_null(table: LakebaseClient, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('a,b\n1,\n2,""\n3,NA\n4,"NA"\n')
    assert loaded(table, path) == [("1", None), ("2", ""), ("3", "NA"), ("4", "NA")]
    # As Postgres' own COPY: another text for NULL leaves an empty field an empty text.
    assert loaded(table, path, null="NA") == [("1", ""), ("2", ""), ("3", None), ("4", "NA")]


def test_without_a_header_columns_go_by_position(table: LakebaseClient, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("1,x,y\n")
    with pytest.raises(ColumnMismatchError, match="3 values for 2 columns"):
        table.load(path, "t", header=False)
    with pytest.raises(
        ColumnMismatchError, match=r"(?s)first row of '.*x\.csv' has 3 fields for the 2 columns"
    ):
        table.load(path, "t", header=False, columns=["a", "b"])
    with pytest.raises(ConfigError, match="no column names with which to create a table"):
        table.load(path, "new", header=False, create=True)
    assert table.load(path, "new", header=False, create=True, columns=["a", "b", "c"]).rows == 1
    assert run(table, "SELECT a, b, c FROM new") == [("1", "x", "y")]
    path.write_text("")
    assert table.load(path, "t", header=False).rows == 0


@pytest.mark.parametrize(
    "options",
    [
        {"delimiter": ""},
        {"delimiter": ",,"},
        {"delimiter": "\n"},
        {"delimiter": "§"},
        {"delimiter": '"'},
        {"delimiter": 1},
        {"quote": ""},
        {"quote": "''"},
        {"encoding": "utf-99"},
        {"encoding": "base64"},
        {"encoding": None},
        {"null": None},
        {"null": []},
        {"null": [1]},
        {"header": "a,b"},
        {"header": ["a", "b"]},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_anything_is_sent(options: Any) -> None:
    (field,) = options
    for kind in (CsvFormat, LoadPlan):
        with pytest.raises(ConfigError, match=field):
            kind(**options)


@pytest.mark.parametrize("options", [{"delimiter": ";"}, {"header": False}, {"null": "x"}], ids=str)
def test_an_option_that_means_nothing_is_refused(table: LakebaseClient, tmp_path: Path, options: Any) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1, "b": 2}\n')
    (field,) = options
    for source in (path, [{"a": 1, "b": 2}]):
        with pytest.raises(ConfigError, match=f"{field}= is for CSV files"):
            table.load(source, "t", **options)


def test_a_header_that_was_taken_for_one_name(table: LakebaseClient, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a;b\n1;2\n")
    for options in ({}, {"columns": ["a", "b"]}):
        with pytest.raises(ColumnMismatchError, match="no column 'a") as caught:
            table.load(path, "t", **options)  # type: ignore[arg-type]
        assert "delimiter=';'" in caught.value.remedy


def test_a_mark_of_byte_order_within_is_text(table: LakebaseClient, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    rows = [(f"\ufeff{number:06}", "x" * 20) for number in range(80_000)]
    path.write_text("\ufeffa,b\n" + "".join(f"{a},{b}\n" for a, b in rows), encoding="utf-8")
    assert loaded(table, path) == rows


@pytest.mark.parametrize("name", ["ORCID", "BZh", "PAR1", "ARROW1"])
def test_a_columns_name_is_not_taken_for_a_mark_of_another_format(
    table: LakebaseClient, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"{name},b\n1,é\n")
    assert table.load(path, "made", create=True).rows == 1


@pytest.mark.parametrize("null", [5, True, [5], [], None, b"x", {"a"}, {"a": 1}], ids=repr)
def test_what_is_no_text_for_null_is_refused(null: Any) -> None:
    with pytest.raises(ConfigError, match="null is"):
        CsvFormat(null=null)


def test_the_options_of_a_load_are_the_fields_of_its_plan() -> None:
    annotated = {name: kind.__forward_arg__ for name, kind in LoadOptions.__annotations__.items()}
    assert annotated == {field.name: field.type for field in fields(LoadPlan)}
    assert set(CSV_OPTIONS) == {field.name for field in fields(CsvFormat)}
