from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.load.load import load
from lakebase_provider.core.bulk.load.result import Mode
from lakebase_provider.core.errors import BadRowError, ColumnMismatchError, ConfigError, LoadError
from tests.core.bulk.sample_tables import counts, run
from tests.eventually import eventually


def test_rows_of_the_same_key_change_and_others_are_added(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, v text, n int DEFAULT 7)")
    run(client, "INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, NULL, 3)")
    result = client.load([(1, "a"), (2, "B"), (3, None), (4, "d")], "t", mode="merge", columns=["id", "v"])
    assert counts(result) == (1, 1, 0, 2)
    assert result.rows == 4
    assert run(client, "SELECT * FROM t ORDER BY id") == [(1, "a", 1), (2, "B", 2), (3, None, 3), (4, "d", 7)]


def test_null_is_a_value_that_may_come_and_go(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, v text)")
    run(client, "INSERT INTO t VALUES (1, 'a'), (2, NULL), (3, NULL), (4, '')")
    result = client.load([(1, None), (2, "b"), (3, None), (4, None)], "t", mode="merge")
    assert counts(result) == (0, 3, 0, 1)
    assert run(client, "SELECT v FROM t ORDER BY id") == [(None,), ("b",), (None,), (None,)]


def test_types_without_equality_have_changes_too(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, j json, b jsonb, n numeric)")
    run(client, """INSERT INTO t VALUES (1, '{"a":1}', '{"a":1}', 1.0), (2, '{"a":1}', '{"a":1}', 1.0)""")
    from decimal import Decimal

    rows = [(1, '{"a":1}', '{"a": 1}', Decimal("1.0")), (2, '{"a":2}', '{"a":1}', Decimal("1.0"))]
    assert counts(client.load(rows, "t", mode="merge")) == (0, 1, 0, 1)


def test_a_change_of_one_column_is_a_change_whatever_its_type(client: LakebaseClient) -> None:
    old = {"int": "1", "bool": "true", "uuid": "'00000000-0000-0000-0000-000000000001'",
           "timestamptz": "'2026-01-01 00:00+00'", "time": "'00:00'", "date": "'2026-01-01'",
           "text": "'a'", "interval": "'1 month'", "float8": "'0'", "numeric": "1.0",
           "json": "'[1]'"}  # fmt: skip
    new = {"int": 2, "bool": False, "uuid": "00000000-0000-0000-0000-000000000002",
           "timestamptz": "2026-01-01 00:00:00.000001+00", "time": "00:00:00.000001", "date": "2026-01-02",
           "text": "A", "interval": "30 days", "float8": -0.0, "numeric": "1.00",
           "json": "[ 1]"}  # fmt: skip
    names = [f"c{n}" for n in range(len(old))]
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(names, old, strict=True))
    run(client, f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    for name, value in zip(names, new.values(), strict=True):
        run(client, f"TRUNCATE t; INSERT INTO t VALUES (1, {', '.join(old.values())})")
        row = [(1, value)]
        assert counts(client.load(row, "t", mode="merge", columns=["id", name])) == (0, 1, 0, 0), name
        assert counts(client.load(row, "t", mode="merge", columns=["id", name])) == (0, 0, 0, 1), name
        assert counts(client.load([(1, None)], "t", mode="merge", columns=["id", name])) == (0, 1, 0, 0)


def test_of_two_rows_with_a_key_the_later_one_counts(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, v text)")
    # Rows of such different sizes that a table with gaps would fill them out of order.
    rows = [(i % 50, ("x" if i % 3 else "y" * 3000) + str(i)) for i in range(5000)]
    result = client.load(rows, "t", mode="merge")
    assert counts(result) == (50, 0, 0, 4950)
    assert run(client, "SELECT * FROM t ORDER BY id") == sorted(dict(rows).items())


def test_of_two_rows_with_a_key_the_greater_version_counts(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (a int, b text, version int, v text, PRIMARY KEY (a, b))")
    rows = [
        (1, "x", 2, "two"),
        (1, "x", 3, "three"),
        (1, "x", 1, "one"),
        (1, "y", None, "?"),
        (1, "y", 1, "1"),
    ]
    result = client.load(rows, "t", mode="merge", version_column="version")
    assert counts(result) == (2, 0, 0, 3)
    assert run(client, "SELECT b, v FROM t ORDER BY b") == [("x", "three"), ("y", "1")]


def test_of_two_rows_with_a_version_the_later_one_counts(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, version int, v text)")
    run(client, "INSERT INTO t VALUES (1, 5, 'old'), (2, NULL, 'old')")
    # Far apart, in different batches of the source, and with NULL among them.
    fill = [(i, 1, "fill") for i in range(10, 30_000)]
    ties = [(1, 5, "first"), (2, None, "first"), (3, 7, "first"), *fill]
    ties += [(1, 5, "last"), (2, None, "last"), (3, 7, "last"), (3, 6, "older")]
    result = client.load(ties, "t", mode="merge", version_column="version")
    assert counts(result) == (len(fill) + 1, 2, 0, 4)
    assert run(client, "SELECT v FROM t WHERE id < 10 ORDER BY id") == [("last",)] * 3


def test_an_older_version_never_overwrites_a_newer_one(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, version int, v text)")
    run(client, "INSERT INTO t VALUES (1, 5, 'five'), (2, 5, 'five'), (3, NULL, 'none'), (4, 5, 'five')")
    rows = [(1, 4, "four"), (2, 6, "six"), (3, 1, "one"), (4, None, "none")]
    result = client.load(rows, "t", mode="merge", version_column="version")
    assert counts(result) == (0, 2, 0, 2)
    assert run(client, "SELECT v FROM t ORDER BY id") == [("five",), ("six",), ("one",), ("five",)]


def test_missing_rows_are_deleted_where_asked_and_only_in_the_slice(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (day date, id int, v text, PRIMARY KEY (day, id))")
    run(client, "INSERT INTO t SELECT d, i, 'v' FROM unnest('{2024-01-01,2024-01-02}'::date[]) d,"
        " generate_series(1, 3) i")  # fmt: skip
    result = client.load(
        [("2024-01-02", 1, "v")], "t", mode="merge", delete="missing", where={"day": "2024-01-02"}
    )
    assert counts(result) == (0, 0, 2, 1)
    assert run(client, "SELECT count(*) FROM t") == [(4,)]
    result = client.load([("2024-01-02", 1, "v")], "t", mode="merge", delete="missing")
    assert counts(result) == (0, 0, 3, 1)


def test_a_comment_in_the_slice_asks_for_no_value(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (day date, id int PRIMARY KEY)")
    run(client, "INSERT INTO t VALUES ('2024-01-01', 1), ('2024-01-02', 2)")
    where = ("day = %(day)s -- not %(week)s, nor 100 %", {"day": "2024-01-01"})
    result = client.load([("2024-01-01", 3)], "t", mode="merge", delete="missing", where=where)
    assert counts(result) == (1, 0, 1, 0)


@pytest.mark.parametrize("keys", [["id"], ["id", "part"]])
def test_a_key_without_a_value_is_refused(client: LakebaseClient, keys: list[str]) -> None:
    run(client, "CREATE TABLE t (id int, part int, v text)")
    with pytest.raises(BadRowError, match="1 of 2 rows have NULL in a key"):
        client.load([(None, 1, "a"), (2, 1, "b")], "t", mode="merge", keys=keys)
    assert run(client, "SELECT count(*) FROM t") == [(0,)]


def test_keys_are_needed_and_must_be_loaded(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int, v text)")
    with pytest.raises(ConfigError, match="no primary key"):
        client.load([(1, "a")], "t", mode="merge")
    with pytest.raises(ColumnMismatchError, match="'nothing'"):
        client.load([(1, "a")], "t", mode="merge", keys=["nothing"])
    with pytest.raises(ColumnMismatchError, match="source has no column 'id'"):
        client.load([{"v": "a"}], "t", mode="merge", keys=["id"])


def test_nothing_but_keys_can_be_merged(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY)")
    run(client, "INSERT INTO t VALUES (1)")
    assert counts(client.load([(1,), (2,)], "t", mode="merge")) == (1, 0, 0, 1)


def test_no_rows_are_merged(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, v text)")
    assert counts(client.load([], "t", mode="merge")) == (0, 0, 0, 0)


def test_identity_and_generated_columns_stay_the_servers(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int,"
        " twice int GENERATED ALWAYS AS (v * 2) STORED)")  # fmt: skip
    result = client.load([(10, 1), (11, 2)], "t", mode="merge", columns=["id", "v"])
    assert counts(result) == (2, 0, 0, 0)
    result = client.load([(10, 5)], "t", mode="merge", columns=["id", "v"])
    assert counts(result) == (0, 1, 0, 0)
    assert run(client, "SELECT * FROM t ORDER BY id") == [(10, 5, 10), (11, 2, 4)]


def test_partitions_are_counted_together(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id)")
    run(client, "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10)")
    run(client, "CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20)")
    assert counts(client.load([(1, "a"), (11, "b")], "t", mode="merge")) == (2, 0, 0, 0)
    assert counts(client.load([(1, "A"), (11, "b"), (12, "c")], "t", mode="merge")) == (1, 1, 0, 1)


def test_a_row_that_moves_to_another_partition_is_updated(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int, day int) PARTITION BY LIST (day)")
    run(client, "CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)")
    run(client, "CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2)")
    run(client, "INSERT INTO t VALUES (1, 1), (2, 1), (3, 1)")
    result = client.load([(1, 2), (2, 1), (4, 2)], "t", mode="merge", keys=["id"])
    assert counts(result) == (1, 1, 0, 1)
    assert run(client, "SELECT * FROM t2 ORDER BY id") == [(1, 2), (4, 2)]


def test_a_row_that_is_put_aside_would_count_as_missing(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, n int)")
    with pytest.raises(ConfigError, match="cannot be combined"):
        client.load([], "t", mode="merge", delete="missing", on_error="reject", reject_to="rejects")


def test_triggers_run_and_what_they_keep_out_is_unchanged(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, v text)")
    run(client, "INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    run(client, "CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
        " IF new.id % 2 = 0 THEN RETURN NULL; END IF; new.v = upper(new.v); RETURN new; END'")  # fmt: skip
    run(client, "CREATE TRIGGER guards BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION guard()")
    result = client.load([(1, "x"), (2, "x"), (3, "x"), (4, "x")], "t", mode="merge")
    assert counts(result) == (1, 1, 0, 2)
    assert run(client, "SELECT * FROM t ORDER BY id") == [(1, "X"), (2, "b"), (3, "X")]
    run(client, "DROP FUNCTION guard CASCADE")


def test_domains_are_checked_as_rows_are_staged(client: LakebaseClient) -> None:
    run(client, "CREATE DOMAIN positive AS int CHECK (value > 0)")
    run(client, "CREATE TABLE t (id positive PRIMARY KEY, n positive)")
    assert counts(client.load([(1, 1), (2, 2)], "t", mode="merge")) == (2, 0, 0, 0)
    with pytest.raises(BadRowError, match="positive") as caught:
        client.load([(1, 3), (2, -1)], "t", mode="merge")
    assert caught.value.row == 2
    assert run(client, "SELECT * FROM t ORDER BY id") == [(1, 1), (2, 2)]
    run(client, "DROP DOMAIN positive CASCADE")


def test_policies_of_row_security_hold_for_merged_rows(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, tenant text)")
    run(client, "ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY")
    run(client, "CREATE POLICY own ON t USING (tenant = 'mine')")
    assert counts(client.load([(1, "mine")], "t", mode="merge")) == (1, 0, 0, 0)
    with pytest.raises(LoadError, match="row-level security policy"):
        client.load([(1, "mine"), (2, "theirs")], "t", mode="merge")
    with pytest.raises(LoadError, match=r"(?s)COPY FROM not supported with row-level security.*mode='merge'"):
        client.load([(2, "mine")], "t")
    assert run(client, "SELECT * FROM t") == [(1, "mine")]


@pytest.mark.parametrize("mode", ["append", "merge", "replace"])
def test_no_search_path_is_needed(client: LakebaseClient, mode: Mode) -> None:
    run(client, 'CREATE SCHEMA "Odd.Schema"')
    run(client, 'CREATE TABLE "Odd.Schema"."a ""b"" %s" ("the Key" int PRIMARY KEY, "100%" text)')
    with client.connect() as connection:
        connection.execute("SET search_path TO ''")
        for _ in range(2):
            load(connection, [(1, "x")], ("Odd.Schema", 'a "b" %s'), mode=mode, load_id=f"{mode} %s")
        connection.commit()
    assert run(client, 'SELECT * FROM "Odd.Schema"."a ""b"" %s"') == [(1, "x")]


def test_a_key_that_another_session_inserts_meanwhile_is_updated(
    client: LakebaseClient, caplog: pytest.LogCaptureFixture
) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, v text)")
    results: list[Any] = []
    with client.connect() as other, caplog.at_level(logging.INFO, "lakebase_provider"):
        other.execute("INSERT INTO t VALUES (5, 'theirs')")
        thread = threading.Thread(
            target=lambda: results.append(client.load([(4, "a"), (5, "ours")], "t", mode="merge"))
        )
        thread.start()
        # MERGE has looked for the key, has not seen it, and now waits to know whether it may be inserted.
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'MERGE%'"
        eventually(lambda: run(client, waits) == [(1,)])
        other.commit()
        thread.join(20)
    assert counts(results[0]) == (1, 1, 0, 0)
    assert "using ON CONFLICT" in caplog.text
    assert run(client, "SELECT * FROM t ORDER BY id") == [(4, "a"), (5, "ours")]


def test_merges_take_rows_in_the_same_order_and_do_not_deadlock(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, v text)")
    run(client, "INSERT INTO t SELECT n, '' FROM generate_series(1, 9) n")
    results: list[Any] = []

    def merge(*keys: int) -> None:
        results.append(client.load([(key, f"{keys}") for key in keys], "t", mode="merge"))

    with client.connect() as other:
        other.execute("SELECT FROM t WHERE id = 5 FOR UPDATE")
        # As they come, each takes a row that the other one needs once the third session lets go of its own.
        threads = [threading.Thread(target=merge, args=keys) for keys in ((1, 5, 9), (9, 5, 1))]
        for thread in threads:
            thread.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'MERGE%'"
        eventually(lambda: run(client, waits) == [(2,)])
        other.rollback()
        for thread in threads:
            thread.join(20)
    assert [counts(result) for result in results] == [(0, 3, 0, 0)] * 2
    assert run(client, "SELECT count(*), count(DISTINCT v) FROM t WHERE v <> ''") == [(3, 1)]


def test_without_a_unique_index_writers_wait_and_no_key_stands_twice(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int, v text)")

    def merge(value: str) -> None:
        client.load([(i, value) for i in range(200)], "t", mode="merge", keys=["id"])

    threads = [threading.Thread(target=merge, args=(value,)) for value in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert run(client, "SELECT count(*), count(DISTINCT id), count(DISTINCT v) FROM t") == [(200, 200, 1)]


def test_merging_is_part_of_the_callers_transaction(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, v text)")
    with client.connection() as connection:
        before = connection.execute("SHOW work_mem").fetchone()
        for value in "ab":
            load(connection, [(1, value)], "t", mode="merge")
        assert connection.execute("SELECT * FROM t").fetchall() == [(1, "b")]
        assert connection.execute("SHOW work_mem").fetchone() == before
        assert connection.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'lakebase_load_%%'"
            " AND relpersistence = 't'").fetchone() == (0,)  # fmt: skip
        connection.rollback()
    assert run(client, "SELECT * FROM t") == []


def test_an_autocommit_connection_loads_all_or_nothing(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, v text CHECK (v <> 'bad'))")

    def rows() -> Iterator[tuple[int, str]]:
        yield 1, "good"
        yield 2, "bad"

    with client.connect(autocommit=True) as connection:
        with pytest.raises(BadRowError, match="t_v_check"):
            load(connection, rows(), "t", mode="merge")
        assert connection.execute("SELECT * FROM t").fetchall() == []
        load(connection, [(1, "good")], "t", mode="merge")
        assert connection.execute("SELECT * FROM t").fetchall() == [(1, "good")]
