"""Where statements, quotes and comments end: told as the server itself tells it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg.pq import ExecStatus

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.base.sql.sql_text import (
    SPACE,
    ends_transaction,
    is_query,
    statements,
    tokens,
    with_inert_comments,
    without_end,
)
from lakebase_provider.local import LocalLakebase
from tests.depth import examples

SPLITS: dict[str, list[str]] = {
    "": [],
    " ; ;\n": [],
    "-- only a comment; here\n/* and; /* here; */ */ ;": [],
    "select 'a' ||-- note; here\n 'b'; select 2": ["select 'a' ||-- note; here\n 'b'", "select 2"],
    "select 1/*x*/as foo": ["select 1/*x*/as foo"],
    "/* a; */ select 1; -- why; so\nselect 2 -- end;": ["/* a; */ select 1", "-- why; so\nselect 2 -- end;"],
    "/* a /* b; */ ; */ select 1; select 2": ["/* a /* b; */ ; */ select 1", "select 2"],
    "select 1 /*/ ; */; select 2": ["select 1 /*/ ; */", "select 2"],
    "select ';', 'it''s;'; select E'\\';'; select '\\'; select e'\\\\'; select 2": [
        "select ';', 'it''s;'", "select E'\\';'", "select '\\'", "select e'\\\\'", "select 2",
    ],
    "select E'a'\n  '\\';'; select 'a' -- b;\n';'; select 'a'\n'\\'; select 2": [
        "select E'a'\n  '\\';'", "select 'a' -- b;\n';'", "select 'a'\n'\\'", "select 2",
    ],
    "select U&'d\\0061;', U&\"d;\\0061\" from (select 1 as \"d;a\") x; select 2": [
        "select U&'d\\0061;', U&\"d;\\0061\" from (select 1 as \"d;a\") x", "select 2",
    ],
    "select B'1', X'1F' as \";\"\";\"; select 2": ["select B'1', X'1F' as \";\"\";\"", "select 2"],
    "select $$;$$, $a$ $b$;$a$, $ä$;$ä$; select 2": ["select $$;$$, $a$ $b$;$a$, $ä$;$ä$", "select 2"],
    "select 1 as a$b$; select 2 as c$b$": ["select 1 as a$b$", "select 2 as c$b$"],
    "select $a$ ;$A$; $a$; select 2": ["select $a$ ;$A$; $a$", "select 2"],
    "select 1 as ä$$; select 2 as ü$$": ["select 1 as ä$$", "select 2 as ü$$"],
    "select @-1; select 2+--;\n3; select 2*/*;*/3": ["select @-1", "select 2+--;\n3", "select 2*/*;*/3"],
    "create rule r as on insert to t do (select 1; select 2); select 3": [
        "create rule r as on insert to t do (select 1; select 2)", "select 3",
    ],
    "create function f() returns int begin atomic select case when true then 1 else 2 end;"
    " select 1 as end; end; select 3": [
        "create function f() returns int begin atomic select case when true then 1 else 2 end;"
        " select 1 as end; end", "select 3",
    ],
    "Create Or /* ; */ Replace Procedure p() Begin Atomic End; select 1": [
        "Create Or /* ; */ Replace Procedure p() Begin Atomic End", "select 1",
    ],
    "begin; select 1; end": ["begin", "select 1", "end"],
    "do $$ begin perform 1; end $$; select 1": ["do $$ begin perform 1; end $$", "select 1"],
    # A no-break space is a letter for Postgres, and an end of line is one by itself.
    "select 1 as\u00a0;select 2 --\r, 3": ["select 1 as\u00a0", "select 2 --\r, 3"],
    # What is not ended goes on to the end, where the server says what it is.
    "select 'a; select 2": ["select 'a; select 2"],
    "select 1; select $a$; 2": ["select 1", "select $a$; 2"],
    "select /* ; /* ; */": ["select /* ; /* ; */"],
    'select E\'a\'\'\\': ['select E\'a\'\'\\'],
}  # fmt: skip


@pytest.mark.parametrize("sql", SPLITS, ids=lambda sql: repr(sql[:50]))
def test_statements_end_where_they_do_for_psql(sql: str) -> None:
    assert statements(sql) == SPLITS[sql]
    assert "".join(sql[start:end] for _, start, end in tokens(sql)) == sql


def test_the_semicolon_may_stay() -> None:
    assert statements("select 1 ; -- a\nselect 2", keep_semicolons=True) == ["select 1 ;", "-- a\nselect 2"]


@pytest.mark.parametrize(
    "piece",
    ["select 1;", "'", "/*", "--", "'a' ", "'a'\n", "'a'\n-- - --\n", "$a$ ", "$", '"', '"a""', "(", "%(",
     "E'\\'", "'a' -- -- --", "1.", "a", "\\", "/**/", "--\n"],
)  # fmt: skip
def test_time_grows_with_the_text_and_no_faster(piece: str) -> None:
    def seconds(times: int) -> float:
        started = time.thread_time()
        statements(piece * times, placeholders=True)
        return time.thread_time() - started

    # Squared, four times the text would take sixteen times as long.
    shorter = min(seconds(5_000) for _ in range(3))
    assert min(seconds(20_000) for _ in range(3)) < max(0.05, 10 * shorter)


def test_a_text_of_many_tokens_has_no_limit() -> None:
    sql = f"select array[{', '.join(map(str, range(20_000)))}]; select 2"
    assert len(statements(sql)) == 2


def test_a_query_is_told_from_what_changes_data() -> None:
    for query in (
        "select 1", "-- a\n/* b /* c */ */ (select 1)", "values (1)", "table t",
        "with a as (select 1) table a",
        "with a as (select 'update', \"delete\" from t) select 1 for update", "with a as (select 1) select 1"
        " from a for no key update",
    ):  # fmt: skip
        assert is_query(query), query
    for other in (
        "", "-- select 1", "update t set a = 1", "show all", "with a as (select 1) delete from t",
        "with a as (insert into t values (1) returning 1) select * from a", "explain select 1", "'select'",
    ):  # fmt: skip
        assert not is_query(other), other


def test_the_end_of_a_transaction_is_told(server: psycopg.Connection[Any]) -> None:
    ends = ["COMMIT", "/* x */ commit and chain", "END", "abort work", "ROLLBACK", "rollback transaction"]
    goes_on = [
        "SAVEPOINT s",
        "ROLLBACK TO s",
        "rollback work to savepoint s",
        "ROLLBACK TRANSACTION/**/TO s",
        "RELEASE s",
        "SELECT 'COMMIT'",
        "-- COMMIT\nSELECT 1",
        "CREATE OR REPLACE FUNCTION pg_temp.f() RETURNS int BEGIN ATOMIC SELECT 1; END",
    ]
    server.autocommit = False
    for statement in [*ends, *goes_on]:
        server.rollback()
        server.execute("SAVEPOINT before; SAVEPOINT s")
        server.execute(statement)
        try:
            server.execute("ROLLBACK TO before")
            over = False
        except psycopg.errors.InvalidSavepointSpecification:
            over = True
        assert ends_transaction(statement) is over, statement
    server.rollback()
    assert ends_transaction("PREPARE TRANSACTION 'x'")
    assert not ends_transaction("PREPARE x AS SELECT 1")
    assert not ends_transaction("")


def test_what_follows_a_statement_is_cut_off() -> None:
    assert without_end("select ';' -- a\n ; -- b;") == "select ';'"
    assert without_end("select 1 -- a  ") == "select 1 -- a"


def test_comments_ask_for_no_value() -> None:
    sql = "select %(a)s, 50 %% 7, '%(b)s' -- %(c)s, 5 %\n/* %s */"
    assert with_inert_comments(sql, {}) == "select %(a)s, 50 %% 7, '%(b)s' -- %%(c)s, 5 %%\n/* %%s */"
    assert with_inert_comments(sql, None) == sql
    assert with_inert_comments("--ä %s\n1".encode(), ()) == "--ä %%s\n1".encode()


# What is put together at random, the server takes apart: as many results of the whole, in one message, as we
# see statements, and each statement's own result when it is sent alone.

#: Expressions that mean something by themselves, most with an end or a quote of something else within.
ATOMS = [
    "1", "'a;b'", "'it''s;'", "E'\\';\\\\'", "e'a'';'", "U&'\\0061;'", "$$;'$$", "$t$;$$;$t$", "B'10;'::text",
    "X'1f'::text", "'a'\n';'", "'a' -- ';\n ';b'", "E'a'\n'\\';'", "'\\'", "';' /* ' ; */", "N';'", "'--;'",
    "'/*;'", "(select ';')", "case when true then ';' end", "2*/*;*/3", "2+--;\n3", "- -1", "@-1", "1.5",
    ".5", "1e-3", "array[1,2]::text", "$b$;--$b$", "'$$;'", '(select ";$" from (select 1 as ";$") q)', "0x1F",
    "(select a$b$ from (select 1 as a$b$) q)", "$ä$;$ä$", "'\u00a0;'", "U&'!0061;' uescape '!'", "'%s;%'",
    "5%3",
]  # fmt: skip
GAPS = [
    " ",
    "\n",
    "\t",
    "/**/",
    "/*;*/",
    "/* /* ; */ ' */",
    "--;\n",
    "-- '\n",
    "/*/ ; */",
    "\r",
    " \f",
    "/*$$*/",
]
ENDS = [";", " ;", ";;", "; -- a;\n", ";/*;*/;", "\n;\n"]

_expression = st.sampled_from(ATOMS)
_gap = st.sampled_from(GAPS)
_statement = st.tuples(
    _gap, st.lists(st.tuples(_expression, _gap), min_size=1, max_size=4), st.sampled_from(["", *GAPS])
).map(lambda s: s[0] + "select" + "".join(f"{gap}{atom}," for atom, gap in s[1])[:-1] + s[2])
_texts = st.lists(st.tuples(_statement, st.sampled_from(ENDS)), min_size=1, max_size=4).map(
    lambda parts: "".join(statement + end for statement, end in parts)
)
#: Not all of it is SQL, and then the server must say so of one of the parts at least.
_LOOSE = [*ATOMS, *GAPS, ";", "select ", "'", '"', "$", "a", "E", "\\", "(", ")"]
_soup = st.lists(st.sampled_from(_LOOSE), max_size=12).map("".join)


@pytest.fixture(scope="module")
def server(lakebase_server: LocalLakebase) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(lakebase_server.superuser_dsn, autocommit=True) as connection:
        yield connection


def results(connection: psycopg.Connection[Any], sql: str) -> list[Any]:
    """The rows that each statement of a simple query returns, or ``error`` at its end."""
    pgconn = connection.pgconn
    pgconn.send_query(sql.encode())
    found: list[Any] = []
    while (result := pgconn.get_result()) is not None:
        if result.status == ExecStatus.TUPLES_OK:
            found.append(
                [[result.get_value(r, c) for c in range(result.nfields)] for r in range(result.ntuples)]
            )
        elif result.status == ExecStatus.FATAL_ERROR:
            found.append("error")
        elif result.status != ExecStatus.EMPTY_QUERY:
            found.append("done")
    return found


@pytest.mark.deep
@settings(
    max_examples=examples(60, 2000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(sql=_texts)
@example(sql="select 'a' ||-- note; here\n 'b'; select 2")
def test_the_server_sees_the_same_statements(server: psycopg.Connection[Any], sql: str) -> None:
    whole = results(server, sql)
    parts = [results(server, part) for part in statements(sql)]
    assert [len(part) for part in parts] == [1] * len(parts)
    alone = [part[0] for part in parts]
    if "error" in alone:
        # What cannot be parsed is found before anything runs, and what cannot be done when its turn comes.
        assert whole in (["error"], alone[: alone.index("error") + 1])
    else:
        assert whole == alone


@pytest.mark.deep
@settings(
    max_examples=examples(60, 2000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(sql=_soup)
def test_no_part_holds_two_statements_and_none_is_lost(server: psycopg.Connection[Any], sql: str) -> None:
    assert "".join(sql[start:end] for _, start, end in tokens(sql)) == sql
    whole = results(server, sql)
    parts = statements(sql)
    alone = [results(server, part) for part in parts]
    # Each is one statement for the server, which finds an error in one of them if it does in the whole.
    assert all(len(part) == 1 for part in alone)
    if whole[-1:] == ["error"]:
        assert ["error"] in alone
    else:
        assert whole == [part[0] for part in alone]
    assert all(part.strip(SPACE) for part in parts)


def test_bodies_that_hold_semicolons_are_created_whole(server: psycopg.Connection[Any]) -> None:
    sql = """
        create schema sql_text; set search_path to sql_text;
        create table t (i int);
        create rule r as on update to t do (insert into t values (1); insert into t values (2));
        create or replace function f(a int) returns int language sql
        begin atomic
            select case when a > 0 then 1 else 2 end; -- ; end;
            select 3 as end; select (4) /* end */;
        end;
        create procedure p() begin atomic insert into t values (5); end;
        create procedure q() begin atomic end;
        create function g() returns text return ';';
        create function begin() returns int language sql as 'select 1; select 6';
        call p(); call q();
        select f(1), begin(), g(), (select count(*) from t);
        drop schema sql_text cascade; reset search_path
    """
    whole = results(server, sql)
    parts = [results(server, part) for part in statements(sql)]
    assert "error" not in whole
    assert whole == [part[0] for part in parts]
    assert len(whole) == 14


async def test_a_condition_that_is_commented_out_asks_for_no_parameter(lakebase_env: LocalLakebase) -> None:
    sql = "select %(a)s::int as a -- and region = %(region)s or 5 %\n/* %(b)s */"
    with LakebaseClient(lakebase_env.config()) as client:
        for given_values in ({"a": 1}, {"a": 1, "region": "eu", "b": 2}):
            with client.connection() as connection:
                assert connection.execute(sql, given_values).fetchall() == [(1,)]
                assert connection.execute(sql.encode(), given_values).fetchall() == [(1,)]
            async with client.aconnection() as asynchronous:
                assert await (await asynchronous.execute(sql, given_values)).fetchall() == [(1,)]
            assert client.fetch_arrow(sql, given_values).to_pylist() == [{"a": 1}]
        with client.connection() as connection:
            assert connection.execute("select %s::int -- %s", [2]).fetchone() == (2,)
            with pytest.raises(psycopg.ProgrammingError, match="missing"):
                connection.execute("select %(a)s -- %(b)s", {"b": 1})
        await client.aclose()
