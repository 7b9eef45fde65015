from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import sql

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.load.plan import Where
from lakebase_provider.core.errors import BadRowError, ConfigError
from lakebase_provider.local import LocalLakebase
from tests.core.bulk.sample_tables import counts, run


@pytest.mark.parametrize(
    "where",
    [
        {"day": "2024-01-02"},
        {"day": ["2024-01-02"], "id": [1, 2, 3]},
        "day = '2024-01-02'",
        ("day = %s", ["2024-01-02"]),
        ("day = %(day)s", {"day": "2024-01-02"}),
        sql.SQL("{} = {}").format(sql.Identifier("day"), sql.Literal("2024-01-02")),
    ],
)
def test_a_slice_is_replaced(client: LakebaseClient, where: Where) -> None:
    run(client, "CREATE TABLE t (day date, id int)")
    run(client, "INSERT INTO t SELECT d, i FROM unnest('{2024-01-01,2024-01-02}'::date[]) d,"
        " generate_series(1, 3) i")  # fmt: skip
    result = client.load([("2024-01-02", 9)], "t", mode="replace", where=where)
    assert counts(result) == (1, 0, 3, 0)
    assert run(client, "SELECT day::text, id FROM t ORDER BY 1, 2") == [
        ("2024-01-01", 1), ("2024-01-01", 2), ("2024-01-01", 3), ("2024-01-02", 9),
    ]  # fmt: skip


def test_a_slice_of_nothing_is_null(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (day date, id int)")
    run(client, "INSERT INTO t VALUES (NULL, 1), ('2024-01-01', 2)")
    assert client.load([], "t", mode="replace", where={"day": None}).deleted == 1
    run(client, "INSERT INTO t VALUES (NULL, 1), ('2024-01-02', 3)")
    assert client.load([], "t", mode="replace", where={"day": []}).deleted == 0
    assert client.load([], "t", mode="replace", where={"day": [None, "2024-01-02"]}).deleted == 2


def everything_about(client: LakebaseClient) -> list[Any]:
    """What the catalog says of the table `kept`, its OID apart."""
    queries = [
        "SELECT relname, relowner::regrole::text, relacl::text, reloptions, obj_description(oid)"
        " FROM pg_class WHERE relname = 'kept'",
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull, attgenerated::text, attacl::text,"
        " attcompression::text, attstorage::text, col_description(attrelid, attnum),"
        " pg_get_expr(adbin, adrelid)"
        " FROM pg_attribute LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)"
        " WHERE attrelid = 'kept'::regclass AND attnum > 0 ORDER BY attnum",
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid), indisprimary,"
        " obj_description(indexrelid) FROM pg_index WHERE indrelid = 'kept'::regclass ORDER BY 1",
        "SELECT conname, pg_get_constraintdef(oid), obj_description(oid) FROM pg_constraint"
        " WHERE conrelid = 'kept'::regclass ORDER BY 1",
    ]
    return [run(client, query) for query in queries]


def test_a_new_table_keeps_all_that_belonged_to_the_old_one(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    other = lakebase_env.admin.add_principal()
    for statement in (
        "CREATE TABLE kept (id bigint CONSTRAINT my_key PRIMARY KEY, a text DEFAULT 'x' NOT NULL,"
        " b int CONSTRAINT positive CHECK (b > 0), c int GENERATED ALWAYS AS (b * 2) STORED,"
        ' d text COLLATE "C", CONSTRAINT pair UNIQUE (a, b) DEFERRABLE) WITH (fillfactor = 70)',
        "CREATE INDEX by_lower ON kept (lower(a) text_pattern_ops DESC) WHERE b > 3",
        "CREATE INDEX twin_1 ON kept (b)",
        "CREATE INDEX twin_2 ON kept (b) INCLUDE (a)",
        "COMMENT ON TABLE kept IS 'It''s kept'",
        "COMMENT ON COLUMN kept.a IS 'a column'",
        "COMMENT ON INDEX by_lower IS 'an index'",
        "COMMENT ON CONSTRAINT positive ON kept IS 'a constraint'",
        f'GRANT SELECT ON kept TO "{other.name}" WITH GRANT OPTION',
        f'GRANT UPDATE (a, b) ON kept TO "{other.name}"',
        "GRANT INSERT ON kept TO PUBLIC",
        f'ALTER DEFAULT PRIVILEGES GRANT DELETE ON TABLES TO "{other.name}"',
        "INSERT INTO kept (id, a, b) VALUES (1, 'old', 1), (2, 'old', 2)",
    ):
        run(client, statement)
    before, oid = everything_about(client), run(client, "SELECT 'kept'::regclass::oid")
    result = client.load([(3, "new", 3), (4, "new", 4)], "kept", mode="replace", columns=["id", "a", "b"])
    assert counts(result) == (2, 0, 2, 0)
    assert run(client, "SELECT 'kept'::regclass::oid") != oid
    after = everything_about(client)
    for was, now in zip(before, after, strict=True):
        assert now == was
    assert run(client, "SELECT id, c FROM kept ORDER BY id") == [(3, 6), (4, 8)]
    run(client, f'ALTER DEFAULT PRIVILEGES REVOKE DELETE ON TABLES FROM "{other.name}"')


@pytest.mark.parametrize(
    ("obstacle", "said"),
    [
        ("CREATE VIEW v AS SELECT * FROM t", "another object depends"),
        ("CREATE TABLE child (id int REFERENCES t)", "foreign keys"),
        ("ALTER TABLE t ENABLE ROW LEVEL SECURITY", "row security"),
        ("ALTER TABLE t ADD COLUMN n serial", "a sequence belongs"),
        ("ALTER TABLE t ADD COLUMN n bigint GENERATED ALWAYS AS IDENTITY", "a sequence belongs"),
        ("CREATE TABLE heir () INHERITS (t)", "inheritance"),
        ("CREATE STATISTICS s ON id, v FROM t", "statistics"),
        (
            "CREATE TRIGGER g BEFORE UPDATE ON t EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "trigger",
        ),
        ("ALTER TABLE t REPLICA IDENTITY FULL", "indexes are used"),
        ("ALTER TABLE t SET UNLOGGED", "stored"),
        ("CREATE FUNCTION f() RETURNS SETOF t LANGUAGE sql AS 'SELECT * FROM t'", "another object depends"),
    ],
)
def test_what_a_new_table_could_not_keep_stays_and_the_rows_are_replaced_in_it(
    client: LakebaseClient, caplog: pytest.LogCaptureFixture, obstacle: str, said: str
) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, v text)")
    run(client, "INSERT INTO t VALUES (1, 'old')")
    run(client, obstacle)
    oid = run(client, "SELECT 't'::regclass::oid")
    with caplog.at_level(logging.INFO, "lakebase_provider"):
        result = client.load([(2, "new")], "t", mode="replace", columns=["id", "v"])
    assert counts(result) == (1, 0, 1, 0)
    assert said in caplog.text
    assert run(client, "SELECT 't'::regclass::oid") == oid
    assert run(client, "SELECT id, v FROM t") == [(2, "new")]
    run(client, "DROP FUNCTION IF EXISTS f")


def test_a_partitioned_table_is_replaced_too(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int) PARTITION BY RANGE (id)")
    run(client, "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10)")
    run(client, "INSERT INTO t VALUES (1), (2)")
    assert counts(client.load([(3,)], "t", mode="replace")) == (1, 0, 2, 0)


@pytest.mark.parametrize("where", [None, "true"])
def test_readers_see_the_old_rows_or_the_new_ones_and_wait_for_neither(
    client: LakebaseClient, where: str | None
) -> None:
    run(client, "CREATE TABLE t (id int, v text)")
    run(client, "INSERT INTO t SELECT i, 'old' FROM generate_series(1, 20000) i")
    seen: set[Any] = set()

    def rows() -> Iterator[tuple[int, str]]:
        for i in range(20000):
            if i % 1000 == 0:
                seen.add(tuple(run(client, "SELECT count(*), min(v), max(v) FROM t")[0]))
            yield i, "new"

    client.load(rows(), "t", mode="replace", where=where)
    assert seen == {(20000, "old", "old")}
    assert run(client, "SELECT count(*), min(v), max(v) FROM t") == [(20000, "new", "new")]


def test_a_replace_that_fails_leaves_the_old_rows(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY)")
    run(client, "INSERT INTO t VALUES (1)")
    with pytest.raises(BadRowError, match="row 2: duplicate key value"):
        client.load([(5,), (5,)], "t", mode="replace")
    assert run(client, "SELECT * FROM t") == [(1,)]
    assert run(client, "SELECT count(*) FROM pg_class WHERE relname LIKE 'lakebase\\_load\\_%'") == [(0,)]


def test_options_that_contradict_each_other_are_refused(client: LakebaseClient) -> None:
    for options in (
        {"mode": "truncate"},
        {"where": "true"},
        {"mode": "replace", "where": {}},
        {"mode": "replace", "where": ""},
        {"mode": "merge", "where": "true"},
        {"delete": "missing"},
        {"mode": "replace", "keys": ["id"]},
        {"version_column": "v"},
        {"mode": "merge", "keys": "id"},
        {"mode": "merge", "keys": []},
        {"columns": ["a", "a"]},
        {"on_error": "reject"},
        {"reject_to": "rejects"},
        {"on_error": "ignore"},
    ):
        with pytest.raises(ConfigError):
            client.load([], "t", **options)  # type: ignore[arg-type] # what a user may pass


def test_two_replaces_at_once_leave_the_rows_of_one(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int, v text)")
    threads = [
        threading.Thread(
            target=client.load, args=([(i, v) for i in range(500)], "t"), kwargs={"mode": "replace"}
        )
        for v in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert run(client, "SELECT count(*), count(DISTINCT v) FROM t") == [(500, 1)]
