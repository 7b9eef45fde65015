"""insert_rows and upsert_rows write the same rows by COPY as by statements, or do not use COPY."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from lakebase_provider._airflow.rows import insert as rows_module
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.database.catalog import TableName
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.encoders import ENCODERS, encoded_by
from tests.forked import Forks

TYPES = (
    "smallint", "integer", "bigint", "real", "double precision", "numeric", "numeric(6, 2)", "text",
    "varchar(5)", "char(3)", "boolean", "date", "time", "timetz", "timestamp", "timestamptz", "interval",
    "bytea", "uuid", "json", "jsonb", "integer[]", "text[]", "double precision[]", "date[]", "json[]",
    "numeric(6, 2)[]", "int4range", "point", "xml", "inet", "money", "copied_mood", "copied_positive",
)  # fmt: skip
VALUES = (
    0, 1, -7, 70_000, 2**40, 2**70, 1.5, -0.0, 0.1 + 0.2, 1e-7, 1e16, 1e20, 1e22,
    123456789.12345678, float("nan"), float("inf"), True, False,
    Decimal("1.005"), Decimal("12.34"), Decimal("1E+3"), Decimal("NaN"), "", " ", "a", "ab  ", "abcdef",
    "1", "1.5", "12.345", "t", "yes", "NaN", "happy", "2026-01-02", "2026-01-02 03:04:05",
    "2026-01-02 03:04:05.1234567+02", "03:04", "1 day", "{1,2}", "[1]", '{"a": 1}', "null", "\\x00ff",
    "10.0.0.1", "12345678-1234-5678-1234-567812345678", "a\tb\\N\n", "é",
    date(2026, 1, 2), datetime(2026, 1, 2, 3, 4, 5, 6), datetime(2026, 1, 2, tzinfo=timezone.utc),
    datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=5))), time(3, 4, 5), time(3, tzinfo=timezone.utc),
    timedelta(days=1, seconds=2), b"", b"\x00\xff", UUID(int=7), {"a": [1, None]}, {}, [], [1, 2], [None],
    ["a", "b"], [0.1 + 0.2], [True], [Decimal("1.005")], [[1, 2], [3, 4]], None,
)  # fmt: skip


@pytest.fixture
def hook(lake: LocalLakebase) -> Iterator[LakebaseHook]:
    hook = LakebaseHook(log_sql=False)
    # Other tests share the database: what is left behind here would be in their way.
    gone = (
        "drop table if exists copied; drop type if exists copied_mood; drop domain if exists copied_positive"
    )
    hook.run(
        f"{gone}; create type copied_mood as enum ('happy', 'sad');"
        " create domain copied_positive as int check (value > 0)"
    )
    yield hook
    hook.run(gone)


def written(connection: LakebaseConnection, value: Any) -> Any:
    """What the server has of a value, as text, or that it was refused."""
    writer = rows_module.RowWriter(
        connection, TableName("copied"), ["value"], lambda width: "INSERT INTO copied (value) VALUES (%s)"
    )
    try:
        writer.write([(value,)])
        return connection.execute("select value::text from copied").fetchall()
    except psycopg.Error:
        return "refused"
    except TypeError:
        return "no JSON"
    finally:
        connection.rollback()


@pytest.mark.parametrize("kind", TYPES)
def test_each_value_becomes_the_same_by_copy_as_by_insert(
    hook: LakebaseHook, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    hook.run(f"create table copied (value {kind})")
    # The table stays as it is.
    monkeypatch.setattr(rows_module, "read_table", functools.cache(rows_module.read_table))
    with hook.client.connection() as connection:
        for value in VALUES:
            monkeypatch.setattr(rows_module, "_COPY_FROM", 2)
            by_insert = written(connection, value)
            monkeypatch.setattr(rows_module, "_COPY_FROM", 1)
            for name in ENCODERS:
                with encoded_by(name):
                    # What json.dumps cannot write, COPY may.
                    assert by_insert in (written(connection, value), "no JSON"), (name, value)


def statements(hook: LakebaseHook, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What each batch was written by, noted as it goes."""
    seen: list[str] = []
    copied, run = rows_module.copy_in, psycopg.Cursor.executemany

    def by_copy(*arguments: Any, **options: Any) -> Any:
        seen.append(f"copy {len(arguments[1])}")
        return copied(*arguments, **options)

    def by_statement(cursor: Any, query: Any, rows: Any, **options: Any) -> Any:
        rows = list(rows)
        seen.append(f"insert {len(rows)}")
        return run(cursor, query, rows, **options)

    monkeypatch.setattr(rows_module, "copy_in", by_copy)
    monkeypatch.setattr(psycopg.Cursor, "executemany", by_statement)
    return seen


@pytest.mark.parametrize("autocommit", [False, True])
@pytest.mark.parametrize(
    ("commit_every", "expected", "transactions"),
    [
        (0, ["copy 1000", "copy 10000", "copy 1500"], 1),
        (1000, ["copy 1000"] * 12 + ["insert 500"], 13),
        (400, ["insert 400"] * 31 + ["insert 100"], 32),
    ],
)
def test_many_rows_go_by_copy_and_few_as_statements(
    hook: LakebaseHook,
    monkeypatch: pytest.MonkeyPatch,
    commit_every: int,
    expected: list[str],
    transactions: int,
    autocommit: bool,
) -> None:
    hook.run(
        "create table copied"
        " (id int, name text default 'none', twice int generated always as (id * 2) stored,"
        " transaction bigint default txid_current())"
    )
    seen = statements(hook, monkeypatch)
    hook.insert_rows(
        "copied", ((i,) for i in range(12_500)), ["id"], commit_every=commit_every, autocommit=autocommit
    )
    assert seen == expected
    found = "select count(*), sum(twice), min(name), count(distinct transaction) from copied"
    assert hook.get_first(found) == (
        12_500,
        12_499 * 12_500,
        "none",
        len(expected) if autocommit else transactions,
    )


@pytest.mark.parametrize("commit_every", [0, 6000])
def test_many_rows_replace_by_copy(
    hook: LakebaseHook, monkeypatch: pytest.MonkeyPatch, commit_every: int
) -> None:
    hook.run('create table copied (id int primary key, "a-b" text, other int default 7)')
    hook.insert_rows("copied", [(i, "old", 1) for i in range(3000)])
    seen = statements(hook, monkeypatch)
    fields = ["id", '"a-b"']
    rows = [(i, f"new {i}") for i in range(7000)]
    hook.upsert_rows("copied", rows, fields, ["id"], commit_every=commit_every)
    assert "copy 6000" in seen or "copy 5000" in seen, seen
    found = "select count(*), count(*) filter (where \"a-b\" = 'new ' || id), sum(other) from copied"
    assert hook.get_first(found) == (7000, 7000, 3000 + 4000 * 7)
    # Rows that are there stay as they are.
    hook.upsert_rows("copied", [(i, "x") for i in range(8000)], fields, ["id"], [], commit_every=commit_every)
    assert hook.get_first("select count(*) from copied where \"a-b\" = 'x'") == (1000,)


def test_of_rows_with_one_key_the_last_one_counts(hook: LakebaseHook) -> None:
    hook.run("create table copied (id int primary key, n int)")
    hook.upsert_rows("copied", [(i % 4000, i) for i in range(12_000)], ["id", "n"], ["id"], commit_every=0)
    assert hook.get_first("select count(*), min(n) from copied") == (4000, 8000)


BAR = {
    "a rule": "create rule r as on insert to copied do also notify copied",
    "row security": "alter table copied enable row level security",
    "a statement's trigger": "create function f() returns trigger language plpgsql"
    " as 'begin return null; end';"
    "create trigger t after insert on copied execute function f()",
    "an identity": "alter table copied alter id set not null, alter id add generated by default as identity;"
    "alter table copied alter id set generated always",
    "a time zone": "alter role current_user set timezone = 'Asia/Tokyo'",
}


@pytest.mark.parametrize("bar", BAR)
def test_what_only_insert_does_is_left_to_it(
    hook: LakebaseHook, monkeypatch: pytest.MonkeyPatch, bar: str
) -> None:
    hook.run("drop function if exists f cascade; create table copied (id int, at timestamptz)")
    hook.run(BAR[bar])
    hook.client.close()
    seen = statements(hook, monkeypatch)
    try:
        hook.insert_rows("copied", [(i, datetime(2026, 1, 1)) for i in range(800)])
    except psycopg.errors.GeneratedAlways:
        assert bar == "an identity"
    finally:
        hook.run("alter role current_user reset timezone")
        hook.client.close()
    assert seen == ["insert 800"]
    if bar == "a time zone":
        assert hook.get_first("select distinct at at time zone 'UTC' from copied") == (
            datetime(2025, 12, 31, 15),
        )


def test_what_copy_would_have_to_change_is_left_to_insert(
    hook: LakebaseHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook.run("create table copied (id int, rounded int)")
    hook.insert_rows("copied", [(i, i + 0.4) for i in range(2500)], commit_every=0)
    assert hook.get_first("select count(*) from copied where id = rounded") == (2500,)


@pytest.mark.parametrize("commit_every", [0, 1000])
def test_a_bad_row_is_named_without_its_value(
    hook: LakebaseHook, capsys: pytest.CaptureFixture[str], commit_every: int
) -> None:
    hook.run("create table copied (id int, day date)")
    rows: list[Any] = [(i, date(2026, 1, 1)) for i in range(1700)]
    rows[1650] = (1650, {"canary": 1})
    with pytest.raises(psycopg.Error):
        hook.insert_rows("copied", rows, commit_every=commit_every)
    said = capsys.readouterr().out
    assert "Failed after 1000 rows" in said
    assert "row 651, column 'day'" in said
    assert "canary" not in said
    assert hook.get_first("select count(*) from copied") == (1000 if commit_every else 0,)


def test_tens_of_thousands_of_rows_are_not_worth_an_import(
    hook: LakebaseHook, forks: Forks, tmp_path: Path
) -> None:
    hook.run("create table copied (id int, name text)")
    code = """
import sys
from lakebase_provider.hooks.lakebase import LakebaseHook
hook = LakebaseHook(log_sql=False)
for size in (500, 9_500, 30_000, 20_000):
    hook.insert_rows("copied", [(i, "x") for i in range(size)])
    print("pyarrow" in sys.modules)
"""
    done = forks.run("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-4:] == ["False", "False", "False", "True"]
    assert hook.get_first("select count(*) from copied") == (60_000,)
