"""What an unload writes, a load reads back equal, in every format, or it is refused by the column's name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from psycopg import sql
from pyarrow import parquet

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.sources.from_files import open_file
from lakebase_provider.core.bulk.types.literals import elements
from lakebase_provider.core.bulk.unload.destination import FORMATS
from lakebase_provider.core.errors import BadRowError, ColumnMismatchError, ConfigError, LoadError
from lakebase_provider.local import LocalLakebase
from tests.core.bulk.load.test_transfer import ODD, VALUES, insertion, rows_drawn
from tests.core.bulk.sample_tables import run
from tests.depth import examples

#: Values that Arrow's types have no place for: in Parquet and Arrow they are refused, each by its column.
_NOT_IN_ARROW = {
    "numeric": {"NaN", "Infinity", "-Infinity", "9" * 1000 + ".10", "1e-1000"},
    "numeric(12,2)[]": {"{1.10,NaN}"},
    "date": {"infinity", "-infinity"},
    "time": {"24:00"},
    "timestamp": {"infinity", "-infinity", "294276-12-31 23:59:59.999999"},
    "timestamptz": {"infinity", "-infinity"},
    "timestamptz[]": {"{infinity,NULL}"},
    "int4[]": {"[0:2]={1,2,3}", "{{1,NULL},{3,4}}", "[-1:0][5:5]={{1},{2}}"},
    "mood[]": {'[0:0]={"it\'s \\\\ \\"so\\""}'},
}
_MORE = {
    "numeric(50,2)": ["9" * 48 + ".10", "-0.01"],
    "varchar(5)[]": ['{"a,b\\"c",NULL,"NULL",""}'],
    "time(2)[]": ["{12:34:56.79}"],
    "bool[]": ["{t,NULL,f}"],
    "float8[]": ["{NaN,-Infinity,0.1,5e-324}"],
    "bytea[]": ['{"\\\\x00ff"}'],
    "date[]": ["{2026-01-02,NULL}"],
    "uuid[]": ["{00000000-0000-0000-0000-00000000000f}"],
    "json[]": ['{"{\\"a\\":1,\\"a\\":1.10}",NULL,"null"}'],
    "json": [
        '{"a": 1, "a":  2}',
        " [1.10]",
        '\n{"a":\n[1]\t}',
        '{"n": [0.48812409112942318, {}]}',
        "[]",
        "1e2",
    ],
    "interval": ["1 day", "24:00:00", "1 mon 00:00:00.000001", "-1 year"],
}
_CASES = [(kind, values) for kind, values in VALUES.items() if kind != "xml"] + list(_MORE.items())


@pytest.fixture
def typed(client: LakebaseClient, lakebase_server: LocalLakebase) -> Iterator[LakebaseClient]:
    """A client of a database with types of a user's own."""
    drop = "; ".join(f"drop type if exists {name} cascade" for name in ("mood", "pair"))
    drop += "; " + "; ".join(f"drop domain if exists {name} cascade" for name in ("short", "amount"))
    run(client, drop)
    run(
        client,
        """
        create type mood as enum ('calm', 'it''s \\ "so"');
        create type pair as (a int, b text, at timestamptz);
        create domain short as varchar(5) check (value <> 'no');
        create domain amount as numeric(10, 2);
        """,
    )
    yield client
    run(client, drop)


def _texts(client: LakebaseClient, table: str) -> list[tuple[Any, ...]]:
    # A numeric that declares no digits is a decimal of many: equal, with zeros behind it.
    return run(client, f"select md5(v::text) from {table} order by 1")


def _numbers(client: LakebaseClient, table: str) -> list[tuple[Any, ...]]:
    return run(client, f"select md5(trim_scale(v::numeric)::text) from {table} order by 1")


def _fill(client: LakebaseClient, kind: str, values: list[str]) -> None:
    run(client, f"drop table if exists source, target; create table source (v {kind})")
    with client.connection() as connection, connection.cursor() as cursor:
        for value in [*values, None, None]:
            cursor.execute(f"insert into source select %s::text::{kind}".encode(), [value])
    run(client, "create table target (like source)")


@pytest.mark.parametrize("format", FORMATS)
def test_every_type_comes_back(typed: LakebaseClient, tmp_path: Path, format: Any) -> None:
    path = tmp_path / f"rows.{format}"
    for kind, values in _CASES:
        missing = _NOT_IN_ARROW.get(kind, set()) if format in ("parquet", "arrow") else set()
        kept = [value for value in values if value not in missing]
        _fill(typed, kind, kept)
        assert typed.unload("select * from source", path, format).rows == len(kept) + 2, kind
        typed.load(path, "target")
        loose = kind == "numeric" and format in ("parquet", "arrow")
        found = _numbers if loose else _texts
        assert found(typed, "target") == found(typed, "source"), kind
        before = path.read_bytes()
        for value in missing:
            _fill(typed, kind, [value])
            with pytest.raises(LoadError, match='"v"'):
                typed.unload("select * from source", path, format)
            assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("format", FORMATS)
def test_what_a_session_is_set_to_changes_nothing(
    typed: LakebaseClient, lakebase_env: LocalLakebase, tmp_path: Path, format: Any
) -> None:
    # The two sessions are set otherwise; the load's own is the client's.
    path = tmp_path / f"rows.{format}"
    role = run(typed, "select current_user")[0][0]
    kinds = {
        "float8": "0.48812409112942318",
        "date": "2026-02-01",
        "tstzrange": '[2026-02-01 00:00+00,"2026-03-01 00:00+00")',
        "interval": "-1 year 2 mons -3 days 04:05:06.000007",
        "bytea": "\\x00ff5c",
        "text": "läut",
        "pair": "(1,x,2026-02-01 00:00+00)",
    }
    try:
        for name, value in ODD.items():
            run(
                typed,
                sql.SQL("alter role {} set {} to {}").format(
                    sql.Identifier(role), sql.Identifier(name), sql.Literal(value)
                ),
            )
        for kind, value in kinds.items():
            _fill(typed, kind, [value])
            with LakebaseClient(lakebase_env.config()) as odd:
                odd.unload("select * from source", path, format)
            typed.load(path, "target")
            assert _texts(typed, "target") == _texts(typed, "source"), kind
    finally:
        run(typed, sql.SQL("alter role {} reset all").format(sql.Identifier(role)))


def test_numerics_are_their_text_where_that_is_asked(client: LakebaseClient, tmp_path: Path) -> None:
    _fill(client, "numeric", VALUES["numeric"])
    client.unload("select * from source", tmp_path / "rows.parquet", numeric="text")
    client.load(tmp_path / "rows.parquet", "target")
    assert _texts(client, "target") == _texts(client, "source")
    wrong: Any = "float"
    with pytest.raises(ConfigError, match="numeric"):
        client.unload("select 1", tmp_path / "x.parquet", numeric=wrong)


@pytest.mark.parametrize("format", ["parquet", "arrow"])
@pytest.mark.parametrize("numeric", ["decimal", "text"])
@pytest.mark.parametrize(
    "kind", ["numeric(50,2)", "numeric(50,40)", "numeric(5,2)", "numeric", "numeric(3,-2)"]
)
def test_arrays_of_numerics_come_back(
    client: LakebaseClient, tmp_path: Path, format: Any, numeric: Any, kind: str
) -> None:
    run(client, f"create table source (n int, v {kind}[]); create table target (like source);"
                " insert into source values (1, null), (2, '{}'), (3, '{NULL}'),"
                " (4, '{123.45,-1}')")  # fmt: skip
    if kind == "numeric(50,2)":
        run(client, "insert into source values (5, array[1e47, 0.01])")
    if numeric == "text":
        run(client, "insert into source values (6, '{NaN,1.50}')")
    path = tmp_path / f"rows.{format}"
    client.unload("select * from source", path, numeric=numeric)
    client.load(path, "target")
    # The digits of a numeric that declares none are the column's.
    compared = (
        "select n, v from {}" if kind == "numeric" and numeric == "decimal" else "select n, v::text from {}"
    )
    assert repr_of(run(client, compared.format("target"))) == repr_of(run(client, compared.format("source")))
    assert client.load(path, "created", create=True).rows == client.load(path, "target").rows


def repr_of(rows: list[tuple[Any, ...]]) -> list[str]:
    """Numbers by value: NaN equals nothing, not even itself."""
    return sorted(re.sub(r"\.0*(?=['},])|(\.[0-9]*[1-9])0+(?=['},])", r"\1", str(row)) for row in rows)


def test_texts_in_lists_are_read_as_the_elements_of_an_array(client: LakebaseClient) -> None:
    values = {
        "int": (["1", None], "x"), "numeric(5,2)": (["1.5"], "1.555"), "date": (["2026-01-02"], "Jan 2"),
        "float8": (["0.1", "NaN"], "1e400"), "timestamptz": (["2026-01-02T03:04Z"], "soon"),
        "boolean": (["t"], "2"),
    }  # fmt: skip
    for kind, (good, bad) in values.items():
        run(client, f"drop table if exists texts; create table texts (v {kind}[])")
        for source in (pa.table({"v": [good]}), pl.DataFrame({"v": [good]})):
            client.load(source, "texts", mode="replace")
            ((stored,),) = run(
                client, f"select v = '{{{','.join(one or 'NULL' for one in good)}}}' from texts"
            )
            assert stored, kind
        with pytest.raises(BadRowError, match="row 2, column 'v'"):
            client.load(pa.table({"v": [good, [bad]]}), "texts")
    frame = client.fetch_polars("select array[1.10, null, 'NaN']::numeric[] as v", numeric="text")
    run(client, "create table numbers (v numeric[])")
    client.load(frame, "numbers")
    assert run(client, "select v::text from numbers") == [("{1.10,NULL,NaN}",)]


def test_a_wide_numeric_is_a_decimal_in_parquet(client: LakebaseClient, tmp_path: Path) -> None:
    client.unload("select 1.5::numeric(50,2) as n", tmp_path / "rows.parquet")
    table = parquet.read_table(tmp_path / "rows.parquet")
    assert (table.schema.field("n").type, table["n"].to_pylist()) == (pa.decimal256(50, 2), [Decimal("1.50")])


#: Types of which Parquet and Arrow refuse some values.
_MAY_BE_REFUSED = {*_NOT_IN_ARROW, "interval"}


def _unload_what_fits(client: LakebaseClient, kinds: dict[str, str], path: Path, format: Any) -> list[str]:
    """Unload "source" without the columns that are refused by name, and return the others."""
    kept = dict(kinds)
    while True:
        try:
            client.unload(f"select {', '.join(kept)} from source", path, format)
            return list(kept)
        except LoadError as error:
            refused = re.search(r'"(c\d+)"', str(error))
            if not refused or format in ("csv", "jsonl") or kept.pop(refused[1]) not in _MAY_BE_REFUSED:
                raise


@pytest.mark.deep
@pytest.mark.parametrize("format", FORMATS)
def test_whatever_is_drawn_comes_back_or_is_refused(
    typed: LakebaseClient, tmp_path: Path, format: Any
) -> None:
    kinds = {f"c{number}": kind for number, kind in enumerate(VALUES) if kind != "xml"}
    columns = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
    path = tmp_path / f"rows.{format}"
    run(typed, f"create table source ({columns}); create table target (like source)")

    @settings(max_examples=examples(4, 60), deadline=None, suppress_health_check=list(HealthCheck))
    @given(rows_drawn(kinds.values()))
    def comes_back(rows: list[tuple[str | None, ...]]) -> None:
        run(typed, "truncate source, target")
        try:
            with typed.connection() as connection, connection.cursor() as cursor:
                cursor.executemany(insertion("source", kinds.values()), rows)
        except psycopg.DataError:
            reject()  # out of the type's range
        kept = _unload_what_fits(typed, kinds, path, format)
        typed.load(path, "target")
        loose = format in ("parquet", "arrow")
        texts = ", ".join(
            # One that declares no digits is a decimal of many: equal, with zeros behind it.
            f"trim_scale({name})::text" if loose and kinds[name] == "numeric" else f"{name}::text"
            for name in kept
        )
        rows_of = f"select {texts} from {{}} order by {', '.join(map(str, range(1, len(kept) + 1)))}"
        assert run(typed, rows_of.format("target")) == run(typed, rows_of.format("source"))

    comes_back()


_WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8) | st.sampled_from(
    [
        "",
        " ",
        '"',
        "\\",
        "\\.",
        "\\N",
        "a\nb",
        "\r\n",
        "\r",
        "NULL",
        "null",
        "{}",
        "[1]",
        "\ufeff",
        "🐘",
        "\x7f\x01",
    ]
)
_ROWS = st.lists(
    st.tuples(
        st.none() | _WORDS,
        st.none() | st.lists(st.none() | _WORDS, max_size=3),
        st.none() | st.binary(max_size=5),
        st.none() | st.floats(),
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.booleans(),
        st.none()
        | st.recursive(
            st.none() | st.booleans() | _WORDS | st.integers(),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_WORDS, inner, max_size=2),
            max_leaves=4,
        ).map(lambda value: json.dumps(value)),
    ),
    max_size=6,
)


@pytest.mark.deep
@settings(
    max_examples=examples(8, 100), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(rows=_ROWS)
def test_any_rows_come_back(client: LakebaseClient, tmp_path: Path, rows: list[tuple[Any, ...]]) -> None:
    run(
        client,
        "drop table if exists mixed, again; create table mixed"
        " (w text, a text[], b bytea, f float8, i int8, t bool, j json); create table again (like mixed)",
    )
    with client.connection() as connection, connection.cursor() as cursor:
        cursor.executemany("insert into mixed values (%s, %s, %s, %s, %s, %s, %s)", rows)
    digests = "select md5(t::text) from {} t order by 1"
    for format in FORMATS:
        path = tmp_path / f"rows.{format}"
        client.unload("select * from mixed", path, format)
        run(client, "truncate again")
        client.load(path, "again")
        assert run(client, digests.format("again")) == run(client, digests.format("mixed")), format
        # Alone, so that an empty text and NULL are a line of their own.
        client.unload("select w from mixed", path, format)
        run(client, "truncate again")
        client.load(path, "again")
        assert run(client, "select w from again order by 1") == run(client, "select w from mixed order by 1")


def test_a_csv_of_one_column_keeps_its_nulls(client: LakebaseClient, tmp_path: Path) -> None:
    run(client, "create table words (v text)")
    path = tmp_path / "words.csv"
    query = "select v from (values (1, 'a'), (2, null), (3, 'b'), (4, null), (5, '')) x (n, v) order by n"
    client.unload(query, path, "csv")
    assert path.read_text() == 'v\na\n\nb\n\n""\n'
    assert client.load(path, "words").rows == 5
    path.write_bytes(b'v\r\na\r\n\r\nb\r\n\r\n""\r\n')
    assert client.load(path, "words").rows == 5
    nulls = "select count(*), count(v), count(*) filter (where v = '') from words"
    assert run(client, nulls) == [(10, 6, 2)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a,b\n1,2\n\n3,4\n", 3),
        ("a,b\r\n1,2\r\n\r\n3,4\r\n", 3),
        ('a,b\n"1\n\n""",2\n,\n\n3,4\n', 6),
        ("a,b\n1,2\n\n", 3),
        ("a,b\n" + "1,2\n" * 600_000 + "\n3,4\n", 600_002),
        ("a,b\n" + "x" * (2**20 - 6) + ",\n\n3,4\n", 3),
    ],
)
def test_a_blank_line_among_several_columns_is_a_fault(
    client: LakebaseClient, tmp_path: Path, text: str, line: int
) -> None:
    run(client, "create table pairs (a text, b text)")
    path = tmp_path / "pairs.csv"
    path.write_bytes(text.encode())
    with pytest.raises(
        BadRowError, match=f"line {line:,} of the file is blank, but the header has 2 columns"
    ):
        client.load(path, "pairs")
    assert run(client, "select * from pairs") == []


def test_what_only_looks_like_a_blank_line_is_none(client: LakebaseClient, tmp_path: Path) -> None:
    run(client, "create table pairs (a text, b text)")
    path = tmp_path / "pairs.csv"
    for text in ('a,b\n"1\n\n2",x\n,\n', 'a,b\n,\n"1\r\n\r\n2","\n\n"\n', "a,b\n1,2\n,\n,"):
        path.write_bytes(text.encode())
        client.load(path, "pairs", mode="replace")
        assert run(client, "select 1 from pairs where a is null and b is null") != []


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_two_columns_of_one_name_are_refused(client: LakebaseClient, tmp_path: Path, format: Any) -> None:
    path = tmp_path / f"rows.{format}"
    with pytest.raises(ColumnMismatchError, match="Two columns of the query are called 'a'"):
        client.unload("select 1 as a, 2 as b, 3 as a", path, format)
    assert list(tmp_path.iterdir()) == []
    assert client.fetch_arrow("select 1 as one").num_rows == 1


@pytest.mark.parametrize("end", ["", ".gz", ".bz2"])
def test_json_lines_of_others(client: LakebaseClient, tmp_path: Path, end: str) -> None:
    import bz2
    import gzip

    pack: Any = {".gz": gzip.compress, ".bz2": bz2.compress}.get(end, bytes)
    run(client, "create table mixed (n numeric, t text, a int[], g text[], d jsonb, at timestamptz)")
    lines = (
        '\ufeff{"n":1.10,"t":"x","a":[1,null],"g":[["a","\\\\\\""],["b","NULL"]],'
        '"d":{"k": 1.10},"at":"2026-01-02T03:04Z"}\r\n'
        ' { "t" : 12.50 , "n" : 1e400, "a" : [] , "g" : null , "d" : [true], "at" : null } \n'
        '{"n": 7, "t": {"b": 1,  "b": 2}, "a": "{3,4}", "g": ["a,b"], "d": false, "at": null}'
    )
    path = tmp_path / f"rows.ndjson{end}"
    path.write_bytes(pack(lines.encode()))
    assert client.load(path, "mixed").rows == 3
    assert run(
        client, "select n::text, t, a::text, g::text, d::text, at is null from mixed order by mixed.n"
    ) == [
        ("1.10", "x", "{1,NULL}", '{{a,"\\\\\\""},{b,"NULL"}}', '{"k": 1.10}', False),
        ("7", '{"b": 1,  "b": 2}', "{3,4}", '{"a,b"}', "false", True),
        ("1" + "0" * 400, "12.50", "{}", None, "[true]", True),
    ]


@pytest.mark.parametrize(
    ("lines", "row", "reason"),
    [
        ('{"a": 1}\n\n{"a": 2}\n', 2, "a blank line"),
        ('{"a": 1}\n{"a": NaN}\n', 2, "not a JSON object"),
        ('{"a": 1}\n{"a": [NaN]}\n', 2, "not a JSON object"),
        ('{"a": 1}\n[["a", 2]]\n', 2, "not a JSON object"),
        ('{"a": 1}\n{"a": 2} x\n', 2, "not a JSON object"),
        ('{"a": 1}\n{"a": {} } x\n', 2, "not a JSON object"),
        ('{"a": 1}\n{"a": {}, \n', 2, "not a JSON object"),
        ('{"a": 1}\n{"a": 01}\n', 2, "not a JSON object"),
        ('{"a": 1}\n{"a": 2, "a": 3}\n', 2, "a duplicate key"),
        ('{"a": 1}\n{"b": 2}\n', 2, "no value for 'a'"),
        ('{"a": 1}\n{"a": 2, "secret": 3}\n', 2, "a key that the first line does not have"),
        ('{"a": 1}\n{"a": "\\ud800"}\n', 2, "surrogate"),
        ('{"a": 1}\n' + '{"a": ' + "[" * 100_000, 2, "not a JSON object"),
        ('{"a": 1}\n' + '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", 2, "nested too deep"),
        ('{"a": 1}\n{}\n', 2, "no value for 'a'"),
    ],
)
def test_a_line_that_is_no_row_is_told(
    client: LakebaseClient, tmp_path: Path, lines: str, row: int | None, reason: str
) -> None:
    run(client, "create table rows (a text)")
    (tmp_path / "x.jsonl").write_text(lines)
    with pytest.raises(BadRowError, match=reason) as caught:
        client.load(tmp_path / "x.jsonl", "rows")
    assert caught.value.row == row
    assert "secret" not in str(caught.value)
    # Such a line cannot be put aside, and nobody is told so.
    assert "on_error" not in str(caught.value)
    with pytest.raises(BadRowError, match=reason):
        client.load(tmp_path / "x.jsonl", "rows", on_error="reject", reject_to="rejected")
    assert run(client, "select * from rows") == []


@pytest.mark.parametrize("form", FORMATS)
def test_arrays_of_boxes_and_domains_come_back(client: LakebaseClient, tmp_path: Path, form: Any) -> None:
    run(
        client,
        "create domain several as int[]; create domain spans as interval[];"
        "create table origin (b box[], d several, i spans); create table goal (like origin);"
        """insert into origin values
        ('{(1,1),(0,0);(2.5,2),(1,1);NULL}', '{1,NULL}', '{"1 mon 2 days",NULL}'),
        ('{}', '{}', '{1 day}'), (null, null, null)""",
    )
    if form in ("csv", "jsonl"):
        # Of more dimensions Arrow has no arrays.
        run(client, "insert into origin values ('{{(1,1),(0,0)};{(2,2),(1,1)}}', '{{1},{2}}', '{}')")
    try:
        client.unload("select * from origin", tmp_path / f"rows.{form}", format=form)
        client.load(tmp_path / f"rows.{form}", "goal")
        text = "select o::text from {} o order by 1"
        assert run(client, text.format("goal")) == run(client, text.format("origin"))
    finally:
        run(client, "drop table origin, goal; drop domain several, spans")


@pytest.mark.parametrize("name", ["x.jsonl", "x.arrow", "x.jsonl.gz"])
def test_a_file_of_another_kind_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xff\xfesecret")
    with pytest.raises(ConfigError, match="cannot be read as") as caught:
        open_file(tmp_path / name)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("format", FORMATS)
def test_no_rows_come_back_as_none(client: LakebaseClient, tmp_path: Path, format: Any) -> None:
    run(client, "create table empty (a int)")
    path = tmp_path / f"x.{format}"
    assert client.unload("select * from empty", path, format).rows == 0
    assert client.load(path, "empty").rows == 0


@pytest.mark.parametrize("format", ["parquet", "arrow"])
@pytest.mark.parametrize("year", ["0001 BC", "0044 BC", "4713 BC", "10000", "32768", "294247"])
def test_years_far_away_come_back_beside_columns_without_a_binary_form(
    client: LakebaseClient, tmp_path: Path, format: Any, year: str
) -> None:
    columns = "host inet, day date, moment timestamp, instant timestamptz"
    with client.connection() as connection:
        for table in ("source", "target"):
            connection.execute(f"DROP TABLE IF EXISTS {table}; CREATE TABLE {table} ({columns})")
        number, *era = year.split()
        moment = " ".join([f"{number}-01-02 01:02:03.000004", *era])
        rows = [("10.0.0.1", moment, moment, moment), ("10.0.0.2", *["2026-11-30 01:02:03"] * 3)]
        for row in rows:
            connection.execute("INSERT INTO source VALUES (%s, %s::timestamp, %s, %s)", row)
    path = tmp_path / f"rows.{format}"
    client.unload("SELECT * FROM source", path)
    assert client.load(path, "target").format == "text"
    with client.connection() as connection:
        found = [
            connection.execute(f"SELECT t::text FROM {table} t ORDER BY host").fetchall()
            for table in ("source", "target")
        ]
    assert found[0] == found[1]


def test_elements_that_the_server_would_round_are_refused(client: LakebaseClient, tmp_path: Path) -> None:
    run(client, "create table rounded (a numeric(4,1)[], c varchar(2)[])")
    path = tmp_path / "x.csv"
    for line in ('"{1.1,1.25}",{a}', '{1.1},"{""a  ""}"'):
        path.write_text(f"a,c\n{{1.0}},{{ab}}\n,\n{line}\n")
        with pytest.raises(BadRowError) as caught:
            client.load(path, "rounded")
        assert caught.value.row == 3
    path.write_text('a,c\n"[0:1]={1.1,NULL}","{""a"",""""}"\n')
    assert client.load(path, "rounded").rows == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{}", []),
        ('[0:1]={a,"NULL",NULL, null }', ["a", "NULL"]),
        ('{{"a,\\"b","{}"},{"\\\\",""}}', ['a,"b', "{}", "\\", ""]),
        ("[1:1][-2:-1]={{1,2}}", ["1", "2"]),
    ],
)
def test_elements_of_an_arrays_text(text: str, found: list[str]) -> None:
    assert elements(text) == found


def test_json_lines_of_several_files_at_once(client: LakebaseClient, tmp_path: Path) -> None:
    client.unload(
        "select i, i / 3.0 as q from generate_series(1, 2000) i", tmp_path / "to", "jsonl", parallel=2, by="i"
    )
    files = sorted((tmp_path / "to").iterdir())
    assert [file.name for file in files] == ["part-00000.jsonl", "part-00001.jsonl"]
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert sorted(line["i"] for line in lines) == list(range(1, 2001))


def test_json_is_json_where_that_says_all_of_it(client: LakebaseClient, tmp_path: Path) -> None:
    query = """
        select 1.10::numeric(50,2) as "a ""b", '{"k": [1]}'::jsonb as doc, 'null'::jsonb as jnull,
            null::jsonb as n, '{1,NULL}'::int[] as list, '{}'::text[] as none, '[0:0]={1}'::int[] as bounds,
            'NaN'::float8 as nan, date '2026-01-02' as day, true as flag
    """
    client.unload(query, tmp_path / "x.jsonl", "jsonl")
    assert json.loads((tmp_path / "x.jsonl").read_text(), parse_float=str) == {
        'a "b': "1.10",
        "doc": {"k": [1]},
        "jnull": "null",
        "n": None,
        "list": [1, None],
        "none": [],
        "bounds": "[0:0]={1}",
        "nan": "NaN",
        "day": "2026-01-02",
        "flag": True,
    }


def test_as_many_columns_as_a_query_has(client: LakebaseClient, tmp_path: Path) -> None:
    columns = ", ".join(f"{n} as c{n}" for n in range(1600))
    client.unload(f"select {columns}", tmp_path / "x.jsonl", "jsonl")
    assert json.loads((tmp_path / "x.jsonl").read_text())["c1599"] == 1599


@pytest.mark.parametrize("text", ["{}\n", "{}\n{}\n", '{}\n{"a": 1}\n'])
def test_json_lines_without_a_key_have_no_columns(client: LakebaseClient, tmp_path: Path, text: str) -> None:
    run(client, "create table rows (a int)")
    (tmp_path / "x.jsonl").write_text(text)
    for source in (tmp_path / "x.jsonl", pl.DataFrame(), [{}]):
        for create in (False, True):
            with pytest.raises(ColumnMismatchError, match="has no columns"):
                client.load(source, "rows" if not create else "made", create=create)
