"""A text that a type would cut, or a fraction that it would round, is refused: from Python, Arrow and CSV."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import BadRowError, ColumnMismatchError
from tests.core.bulk.sample_tables import run

_HALF = dt.timedelta(seconds=1, microseconds=500_000)
#: The column's type, a value, and what arrives; None where it is refused.
VALUES: list[tuple[str, Any, str | None]] = [
    ('"char"', "A", "A"),
    ('"char"', "", ""),
    ('"char"', "\\", "\\"),
    ('"char"', "AB", None),
    ('"char"', "é", None),
    ('"char"', "\\x", None),
    ('"char"', "\\303", "\\303"),
    ('"char"[]', ["A", None, ""], '{A,NULL,""}'),
    ('"char"[]', ["A", "AB"], None),
    ('"char"[]', [["A"], ["é"]], None),
    ('"char"[]', '{A,"",NULL,"\\""}', '{A,"",NULL,"\\""}'),
    ('"char"[]', "[0:0]={A}", "[0:0]={A}"),
    ('"char"[]', "{A,AB}", None),
    ('"char"[]', '{A,"AB"}', None),
    ("name[]", ["n" * 64], None),
    ("interval(0)", _HALF, None),
    ("interval(1)", _HALF, "00:00:01.5"),
    ("interval(0)[]", [_HALF], None),
    ("interval(0)", "1.5 sec", None),
    ("interval", _HALF, "00:00:01.5"),
    ("interval day to second(0)", _HALF, None),
    ("timetz(0)", dt.time(12, 0, 0, 5, dt.timezone.utc), None),
    ("timetz(0)", dt.time(12, tzinfo=dt.timezone.utc), "12:00:00+00"),
]


def stored(client: LakebaseClient, kind: str, source: Any) -> str | None:
    run(client, f"drop table if exists t; create table t (v {kind})")
    try:
        client.load(source, "t", columns=["v"])
    except (BadRowError, ColumnMismatchError):
        return None
    ((found,),) = run(client, "select v::text from t")
    return str(found)


def test_values_of_python(client: LakebaseClient) -> None:
    for kind, value, shown in VALUES:
        assert stored(client, kind, [(value,)]) == shown, (kind, value)


def test_texts_of_arrow_and_files(client: LakebaseClient, tmp_path: Path) -> None:
    texts = [case for case in VALUES if isinstance(case[1], str)]
    for kind, value, shown in [*texts, ("name[]", "{" + "n" * 64 + "}", None)]:
        assert stored(client, kind, pa.table({"v": [value]})) == shown, (kind, value)
        if value and '"' not in value:
            (tmp_path / "v.csv").write_text(f'v\n"{value}"\n')
            assert stored(client, kind, tmp_path / "v.csv") == shown, (kind, value)


def test_the_row_is_named(client: LakebaseClient) -> None:
    run(client, 'create table t (v "char")')
    with pytest.raises(BadRowError, match="row 2, column 'v': str, longer than the one byte of") as caught:
        client.load([("A",), ("AB",)], "t")
    assert caught.value.row == 2
