"""What PostgresHook does wrong on psycopg 3, each with a test that it is right here.

The last two of the list, a task that is out of time or asked to end while its statement runs on, need a
supervised task: they are tested in ``test_kills.py``. Here, that the hook can cancel.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from airflow.providers.common.sql.hooks.handlers import fetch_all_handler

from lakebase_provider.core.errors import ConfigError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.eventually import eventually


@pytest.fixture
def hook(lake: LocalLakebase) -> LakebaseHook:
    return LakebaseHook()


@pytest.fixture
def table(hook: LakebaseHook) -> Iterator[str]:
    hook.run("drop table if exists defects; create table defects (id int primary key, tags int[], doc jsonb)")
    yield "defects"
    hook.run("drop table defects")


# 1. Several statements with parameters.


@pytest.mark.parametrize("split", [False, True])
def test_several_statements_take_parameters(hook: LakebaseHook, table: str, split: bool) -> None:
    sql = f"insert into {table} values (%(id)s); select id, %(text)s from {table}; -- done"
    row = {"id": 1, "text": "it's 100% \\ ; %s"}
    found = hook.run(sql, parameters=row, handler=fetch_all_handler, split_statements=split)
    assert found == [(1, row["text"])]


def test_parameters_by_position_are_used_up_across_a_text(hook: LakebaseHook, table: str) -> None:
    found = hook.get_records(f"insert into {table} values (%s); select %s::int + id from {table}", (1, 10))
    assert found == [(11,)]


def test_several_statements_share_a_transaction(hook: LakebaseHook, table: str) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        hook.run(f"insert into {table} values (%(id)s); select 1 / 0", parameters={"id": 1})
    assert hook.get_first(f"select count(*) from {table}") == (0,)


# 2. Parameters that a statement does not use.


@pytest.mark.parametrize("parameters", [(7,), {"id": 7, "other": 0}])
def test_statements_need_not_use_the_parameters(hook: LakebaseHook, table: str, parameters: Any) -> None:
    placeholder = "%(id)s" if isinstance(parameters, dict) else "%s"
    statements = [
        f"truncate {table}",
        f"insert into {table} values ({placeholder})",
        f"select id from {table}",
    ]
    assert hook.get_records(statements, parameters)[-1] == [(7,)]


def test_too_many_parameters_for_the_placeholders_are_an_error(hook: LakebaseHook) -> None:
    with pytest.raises(psycopg.ProgrammingError, match="1 placeholder"):
        hook.get_first("select %s", (1, 2))


# 3. A percent sign that is meant as one.


@pytest.mark.parametrize(
    ("sql", "parameters", "expected"),
    [
        ("select 'ab' like 'a%' and 1 = %s", (1,), True),
        ("select 'a test' like '%test%' and 1 = %s", (1,), True),
        ("select 'ab' like 'a%%' and 1 = %s", (1,), True),
        ("select 'ab' like 'a%' and 1 = %(n)s", {"n": 1}, True),
        ("select 7 % 4 = %s", (3,), True),
        ("select format('%s and %s', 1, 2) = %s", ("1 and 2",), True),
        ("select /* 50% /* of */ %s */ 1 = %s -- 100%", (1,), True),
        ("select E'it\\'s %' = %s", ("it's %",), True),
        ("select $f$100%$f$ = %s", ("100%",), True),
        ('select "%" = %s from (values (1)) t ("%")', (1,), True),
        # Without parameters nothing is read into a percent sign, doubled or not.
        ("select 'a%%s'", None, "a%%s"),
        ("select 7 % 4", (), 3),
    ],
)
def test_a_percent_sign_is_text(hook: LakebaseHook, sql: str, parameters: Any, expected: object) -> None:
    assert hook.get_first(sql, parameters) == (expected,)


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("select interval '%s days'", (3,)),
        ("select interval '%(n)s days'", {"n": 3}),
        ("select '%s', %s", (1, 2)),
    ],
)
def test_a_value_that_gets_nowhere_is_an_error(hook: LakebaseHook, sql: str, parameters: Any) -> None:
    with pytest.raises(psycopg.ProgrammingError, match="inside quotes"):
        hook.get_first(sql, parameters)


# 4. IN with a tuple.


@pytest.mark.parametrize(
    ("sql", "parameters", "expected"),
    [
        ("select 2 in %s", ((1, 2, 3),), True),
        ("select 'b' IN %(names)s", {"names": ["a", "b"]}, True),
        ("select 2 not in\n %s and 5 = %s", ({1, 3}, 5), True),
        ("select (1, 'a') in %s", (((1, "a"), (2, "b")),), True),
        ("select 2 = any(%s)", ([1, 2],), True),
        ("select 1 in (%s)", (1,), True),
        ("select x.in = %s from (select 4 as in) x", (4,), True),
    ],
)
def test_in_takes_a_tuple(hook: LakebaseHook, sql: str, parameters: Any, expected: object) -> None:
    assert hook.get_first(sql, parameters) == (expected,)


def test_in_without_values_is_an_error_that_says_what_to_use(hook: LakebaseHook) -> None:
    with pytest.raises(psycopg.ProgrammingError, match=r"= ANY"):
        hook.get_first("select 1 in %s", ((),))


# 5. A list into an array.


def test_a_list_goes_into_an_array_and_into_json(hook: LakebaseHook, table: str) -> None:
    rows = [(1, [1, 2], [1, {"a": None}]), (2, [], []), (3, None, {"k": [1]}), (4, [None], ["x"])]
    hook.insert_rows(table, rows)
    assert hook.get_records(f"select * from {table} order by id") == rows
    hook.run(f"truncate {table}")
    hook.insert_rows(table, [(["a"], 1)], target_fields=["doc", "id"])
    assert hook.get_records(f"select id, doc from {table}") == [(1, ["a"])]


# 6. polars with parameters.


@pytest.mark.parametrize("parameters", [{"n": 3, "t": "a%"}, ["a%", 3]])
def test_polars_takes_parameters(hook: LakebaseHook, parameters: Any) -> None:
    names = ("%(t)s", "%(n)s") if isinstance(parameters, dict) else ("%s", "%s")
    sql = "select i, {}::text as t from generate_series(1, {}::int) i".format(*names)
    frame = hook.get_df(sql, parameters=parameters, df_type="polars")
    assert frame.rows() == [(1, "a%"), (2, "a%"), (3, "a%")]
    chunks = list(hook.get_df_by_chunks(sql, parameters=parameters, chunksize=2, df_type="polars"))
    assert [chunk.height for chunk in chunks] == [2, 1]


# 7. Upsert by the primary key of a table that is named without its schema.


def test_an_upsert_finds_the_primary_key(hook: LakebaseHook, table: str) -> None:
    hook.insert_rows(table, [(1, [1])], target_fields=["id", "tags"])
    hook.insert_rows(table, [(1, [2]), (2, [3])], target_fields=["id", "tags"], replace=True)
    hook.insert_rows(f"public.{table}", [(2, [4], {})], replace=True)
    assert hook.get_records(f"select id, tags from {table} order by id") == [(1, [2]), (2, [4])]


# 8. A file that is not there.


def test_loading_a_missing_file_fails_and_makes_none(hook: LakebaseHook, table: str, tmp_path: Path) -> None:
    missing = tmp_path / "missing.tsv"
    with pytest.raises(FileNotFoundError, match=r"missing\.tsv"):
        hook.bulk_load(table, str(missing))
    assert not missing.exists()


# 9. The direction of a COPY.


def test_copy_tells_its_direction_from_the_statement(hook: LakebaseHook, table: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.tsv"
    hook.insert_rows(table, [(1, [1], None)])
    hook.copy_expert(f"COPY (SELECT id, ' from stdin ' FROM {table} /* from stdin */) TO STDOUT", str(file))
    assert file.read_text() == "1\t from stdin \n"
    file.write_text("2\n3\n")
    hook.copy_expert(f"copy {table} (id)\n FROM\n  STDIN -- not: to stdout", file)
    assert hook.get_records(f"select id from {table} order by id") == [(1,), (2,), (3,)]
    with pytest.raises(ConfigError, match="not a COPY with FROM STDIN or TO STDOUT"):
        hook.copy_expert(f"COPY {table} FROM '/etc/passwd'", file)


def test_a_copy_that_fails_leaves_the_file_as_it_was(hook: LakebaseHook, tmp_path: Path) -> None:
    file = tmp_path / "rows.tsv"
    file.write_text("before")
    with pytest.raises(psycopg.errors.DivisionByZero):
        hook.copy_expert("COPY (SELECT 1 / (3 - i) FROM generate_series(1, 5) i) TO STDOUT", file)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.tsv"]
    assert file.read_text() == "before"


# 10. What a failed insert logs.


def test_a_failed_insert_logs_no_values(
    hook: LakebaseHook, table: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    rows = [(1, [1], {"canary": 1}), ("canary", [2], None)]
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        hook.insert_rows(table, rows)
    written = caplog.text + "".join(capfd.readouterr())
    assert "INSERT INTO" in written
    assert "canary" not in written
    assert hook.get_first(f"select count(*) from {table}") == (0,)


# 11, 12. A statement that outlives its task.


def test_the_hook_cancels_its_statement_and_no_other(hook: LakebaseHook) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            hook.run("select pg_sleep(60) -- mine")
        except psycopg.Error as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    active = b"select count(*) from pg_stat_activity where state = 'active' and query like '%%-- mine'"
    with hook.client.connect(autocommit=True) as observer:
        eventually(lambda: observer.execute(active).fetchone() == (1,))
        LakebaseHook().cancel()
        assert observer.execute(active).fetchone() == (1,)
        hook.cancel()
        thread.join(10)
        assert observer.execute(active).fetchone() == (0,)
    assert [type(failure) for failure in failures] == [psycopg.errors.QueryCanceled]
    # What the pool has lent to somebody else since is none of this hook's.
    other = LakebaseHook()
    with closing(other.get_conn()) as connection:
        hook.cancel()
        assert connection.execute("select 1").fetchone() == (1,)
