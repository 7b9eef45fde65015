"""Rows that a bad job deleted, put back as they were; and moments that are noted for that."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from lakebase_provider.core import LakebaseClient, RestorePoint
from lakebase_provider.core.database.rows.owned_sequences import MovedSequence
from lakebase_provider.core.errors import BadRowError, ConfigError, ObjectStateError
from tests.core.upkeep.leases import left

ORDERS = """
CREATE SCHEMA shop;
CREATE TYPE shop.mood AS ENUM ('fine', 'odd');
CREATE TABLE shop.orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code varchar(8) UNIQUE, "when" timestamptz, pad char(6), tags text[], doc jsonb, raw bytea, ratio float8,
    mood shop.mood, amount numeric(12, 4), twice numeric GENERATED ALWAYS AS (amount * 2) STORED
);
INSERT INTO shop.orders (code, "when", pad, tags, doc, raw, ratio, mood, amount)
SELECT 'c' || n, now() + n * interval '1.000001 s', 'p' || n, ARRAY['a,"b', NULL, n::text],
    jsonb_build_object('n', n), decode(lpad(to_hex(n), 4, '0'), 'hex'), n / 7.0,
    (ARRAY['fine', 'odd', NULL])[n % 3 + 1]::shop.mood, n / 3.0
FROM generate_series(1, 200) AS n;
"""
ALL = "SELECT t::text FROM shop.orders AS t WHERE id <= 200 ORDER BY id"
BAD_JOB = "DELETE FROM shop.orders WHERE id BETWEEN 50 AND 150"
SINCE = """
UPDATE shop.orders SET amount = 1 WHERE id IN (1, 2);
INSERT INTO shop.orders (code, amount) VALUES ('c50', 9)
"""


def run(client: LakebaseClient, query: str) -> list[tuple[Any, ...]]:
    with client.connection() as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def test_what_was_deleted_comes_back_exactly(client: LakebaseClient) -> None:
    run(client, ORDERS)
    before = run(client, ALL)
    point = client.restore_point()
    assert point.branch == "projects/local/branches/production"
    kept = json.loads(json.dumps(point.to_dict()))
    run(client, BAD_JOB)
    run(client, SINCE)
    since = run(client, ALL)

    planned = client.restore_rows("shop.orders", at=point)
    assert (planned.rows.removed, planned.rows.changed, planned.rows.added) == (101, 2, 1)
    assert (planned.dry_run, planned.put_back, planned.overwritten) == (True, 101, 0)
    assert run(client, ALL) == since
    assert left(client) == []
    told = planned.to_markdown()
    assert "- 101 rows were deleted since; 101 would be put back." in told
    assert "| changed id = `1` | amount = `0.3333` | amount = `1.0000` |" in told

    # Somebody has used its code meanwhile.
    with pytest.raises(BadRowError, match="orders_code_key"):
        client.restore_rows("shop.orders", at=kept, dry_run=False)
    assert run(client, ALL) == since

    done = client.restore_rows("shop.orders", at=kept, where="id <> 50", dry_run=False)
    assert (done.put_back, done.overwritten, done.sequences) == (100, 0, ())
    assert json.loads(json.dumps(done.to_dict()))["rows"]["changed"] == 2
    now = run(client, ALL)
    # What has changed since is as it was left.
    assert now[:2] == since[:2]
    assert now[2:] == before[2:49] + before[50:]
    assert run(client, "SELECT count(*) FROM shop.orders WHERE id > 200") == [(1,)]

    run(client, "DELETE FROM shop.orders WHERE id > 200")
    assert point.time is not None
    undone = client.restore_rows("shop.orders", at=point.time, dry_run=False, overwrite=True, keys=["code"])
    assert (undone.put_back, undone.overwritten) == (1, 2)
    assert run(client, ALL) == before
    assert left(client) == []


def test_sequences_give_no_value_that_was_put_back(client: LakebaseClient) -> None:
    run(client, "CREATE SEQUENCE down INCREMENT -2 START -1")
    run(
        client,
        "CREATE TABLE t (id serial PRIMARY KEY, n int DEFAULT nextval('down'));"
        "INSERT INTO t SELECT FROM generate_series(1, 10)",
    )
    point = client.restore_point()
    run(client, "TRUNCATE t RESTART IDENTITY; ALTER SEQUENCE down RESTART; INSERT INTO t DEFAULT VALUES")
    done = client.restore_rows("t", at=point.lsn or "", where="id <> 4", dry_run=False)
    assert (done.put_back, done.rows.changed) == (8, 0)
    assert done.sequences == (
        MovedSequence("public.t_id_seq", 2, 11),
        MovedSequence("public.down", -3, -21),
    )
    assert run(client, "INSERT INTO t DEFAULT VALUES RETURNING id, n") == [(11, -21)]
    assert run(client, "SELECT array_agg(id ORDER BY id) FROM t") == [([1, 2, 3, 5, 6, 7, 8, 9, 10, 11],)]


@pytest.mark.parametrize(
    ("at", "options", "why"),
    [
        ("yesterday", {}, "none in ISO 8601"),
        ("2027-01-31T12:00:00", {}, "has no zone"),
        (datetime(2027, 1, 31), {}, "has no zone"),
        ({"lsn": "17"}, {}, "no position in the log"),
        ({"moment": 1}, {}, "and no point"),
        (17, {}, "of type int"),
        ("0/17", {"key": ["id"]}, "no option 'key'"),
        ("0/17", {"keys": "id"}, "'keys' must be a list"),
        ("0/17", {"where": ""}, "'where' is empty"),
        ("0/17", {"keys": ["id"]}, "no column 'id'"),
        ("0/17", {}, "no primary key"),
        (RestorePoint("projects/local/branches/ci", "0/17", None), {}, "is of projects/local/branches/ci"),
    ],
)
def test_what_cannot_be_put_back_is_refused_before_a_branch_is_made(
    client: LakebaseClient, at: Any, options: dict[str, Any], why: str
) -> None:
    run(client, "CREATE TABLE t (n int); CREATE VIEW v AS SELECT * FROM t")
    with pytest.raises(ConfigError, match=why):
        client.restore_rows("t", at=at, **options)
    with pytest.raises(ConfigError, match="v is no table"):
        client.restore_rows("v", at="0/17")


def test_a_point_of_a_former_branch_is_refused(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY)")
    old = datetime.now(timezone.utc) - timedelta(days=1)
    with pytest.raises(ObjectStateError, match="was made at"):
        client.restore_rows("t", at=RestorePoint("projects/local/branches/production", "0/17", old))
    assert str(RestorePoint.of("2027-01-31T12:00:00Z")) == "2027-01-31T12:00:00Z"
    assert str(RestorePoint.of("0/17")) == "0/17"
    assert str(RestorePoint(None, "0/17", datetime(2027, 1, 31, tzinfo=timezone.utc))) == (
        "2027-01-31T00:00:00Z (0/17)"
    )


async def test_a_twin_for_asyncio(client: LakebaseClient) -> None:
    point = await client.arestore_point()
    with pytest.raises(ConfigError, match="no option"):
        await client.arestore_rows("t", point, nothing=1)  # type: ignore[call-arg]
