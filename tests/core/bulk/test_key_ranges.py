"""Merges of rows that come in the order of their key are done in parts; nobody but the clock is to notice."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk import key_ranges
from lakebase_provider.core.bulk.load import load
from lakebase_provider.core.bulk.progress import Progress
from tests.eventually import eventually

from .tables import counts, run

# Rows of a part, and of a load, in these tests.
_PART, _ROWS = 100, 1000
#: Several parts, whose number depends on how many rows a page takes.
_SEVERAL = range(4, 12)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_ranges, "ROWS", _PART)


@pytest.fixture
def told(client: LakebaseClient) -> Iterator[None]:
    """`tell` notes each statement that changes a row, before it does so."""
    run(client, "CREATE TABLE statements (text text)")
    run(client, "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
        " INSERT INTO statements VALUES (current_query()); RETURN new; END'")  # fmt: skip
    yield
    run(client, "DROP FUNCTION tell CASCADE")


def _create(client: LakebaseClient, columns: str) -> None:
    run(client, f"CREATE TABLE t ({columns})")
    run(client, "CREATE TRIGGER tells BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION tell()")


def _statements(client: LakebaseClient) -> int:
    """How many statements changed the table since the last call."""
    ((number,),) = run(client, "SELECT count(DISTINCT text) FROM statements")
    run(client, "TRUNCATE statements")
    return int(number)


_KEYS: dict[str, Callable[[int], Any]] = {
    "smallint": lambda i: i - 500,
    "bigint": lambda i: i + 2**40,
    "numeric": lambda i: Decimal("NaN") if i == _ROWS - 1 else Decimal(i) / 7,
    'text COLLATE "C"': lambda i: f"it's {i:05}",
    "date": lambda i: date(2020, 1, 1) + timedelta(i),
    "timestamptz": lambda i: datetime(2026, 10, 25, tzinfo=timezone.utc) + timedelta(minutes=i),
}


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("step", [1, -1], ids=["up", "down"])
@pytest.mark.parametrize("kind", _KEYS)
def test_rows_in_the_order_of_their_key_are_merged_in_parts(
    client: LakebaseClient, kind: str, step: int
) -> None:
    _create(client, f"id {kind} PRIMARY KEY, v text")
    rows = [(_KEYS[kind](i), f"value {i}") for i in range(_ROWS)]
    # Every second row is there, half of these with another value; and others around them.
    assert client.load(rows[::2], "t", mode="merge").inserted == _ROWS // 2
    _statements(client)
    changed = [(key, v.upper() if i % 4 else v) for i, (key, v) in enumerate(rows)]
    assert counts(client.load(changed[::step], "t", mode="merge")) == (_ROWS // 2, _ROWS // 4, 0, _ROWS // 4)
    assert _statements(client) in _SEVERAL
    assert run(client, "SELECT v FROM t ORDER BY id") == [(v,) for _, v in changed]


@pytest.mark.usefixtures("told")
def test_rows_in_no_order_or_of_several_keys_are_merged_at_once(client: LakebaseClient) -> None:
    _create(client, "id int PRIMARY KEY, other int, UNIQUE (other, id)")
    rows = [(i * 7919 % _ROWS, i) for i in range(_ROWS)]
    assert counts(client.load(rows, "t", mode="merge")) == (_ROWS, 0, 0, 0)
    assert _statements(client) == 1
    assert counts(client.load(sorted(rows), "t", mode="merge", keys=["id", "other"])) == (0, 0, 0, _ROWS)
    # Sorted but for one row that comes late, and is not on the first page of its part.
    late = [(i, 0) for i in range(_ROWS) if i != 3]
    late.insert(-5, (3, 0))
    assert client.load(late, "t", mode="merge").updated == _ROWS - 1  # one has it already
    assert _statements(client) == 1


@pytest.mark.usefixtures("told")
def test_a_key_that_comes_twice_is_merged_once_and_in_parts(client: LakebaseClient) -> None:
    _create(client, "id int PRIMARY KEY, v text")
    rows = sorted([(i, f"{n}") for i in range(_ROWS) for n in range(1 + (i % 10 == 0))])
    result = client.load(rows, "t", mode="merge")
    assert counts(result) == (_ROWS, 0, 0, _ROWS // 10)
    assert _statements(client) in _SEVERAL
    assert run(client, "SELECT count(*) FROM t WHERE v = '1'") == [(_ROWS // 10,)]


@pytest.mark.usefixtures("told")
def test_missing_rows_between_and_beyond_the_parts_are_deleted(client: LakebaseClient) -> None:
    _create(client, "id int PRIMARY KEY, v text")
    client.load([(i, "old") for i in range(-50, 2 * _ROWS + 50)], "t", mode="merge")
    _statements(client)
    rows = [(2 * i, "old" if i % 2 else "new") for i in range(_ROWS)]
    result = client.load(rows, "t", mode="merge", delete="missing")
    assert counts(result) == (0, _ROWS // 2, _ROWS + 100, _ROWS // 2)
    assert _statements(client) in _SEVERAL
    assert run(client, "SELECT * FROM t ORDER BY id") == rows


@pytest.mark.usefixtures("told")
def test_what_looks_at_all_rows_of_a_statement_sees_them_at_once(
    client: LakebaseClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lakebase_provider")
    rows = [(i, _ROWS - 1 - i) for i in range(_ROWS)]
    # Rows of the first part refer to rows of the last one; checked at the end of the statement.
    _create(client, "id int PRIMARY KEY, parent int REFERENCES t")
    assert client.load(rows, "t", mode="merge").inserted == _ROWS
    assert _statements(client) == 1
    run(client, "DROP TABLE t")
    # So are unique values that may be deferred: here two rows, far apart, exchange theirs.
    _create(client, "id int PRIMARY KEY, place int UNIQUE DEFERRABLE")
    client.load(rows, "t", mode="merge")
    swapped = [(0, 0), *rows[1:-1], (_ROWS - 1, _ROWS - 1)]
    assert client.load(swapped, "t", mode="merge").updated == 2
    assert "ON CONFLICT" not in caplog.text
    _statements(client)
    run(client, "DROP TABLE t")
    # And triggers for a statement, or after a row.
    for timing in ("AFTER INSERT OR UPDATE ON t FOR EACH STATEMENT", "AFTER INSERT ON t FOR EACH ROW"):
        _create(client, "id int PRIMARY KEY, v int")
        run(client, f"CREATE TRIGGER more {timing} EXECUTE FUNCTION tell()")
        assert client.load(rows, "t", mode="merge").inserted == _ROWS
        assert _statements(client) == 1
        run(client, "DROP TABLE t")


@pytest.mark.usefixtures("told")
def test_parts_of_partitions_are_counted_together(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)")
    for n in range(4):
        run(client, f"CREATE TABLE t{n} PARTITION OF t FOR VALUES FROM ({n * 250}) TO ({n * 250 + 250})")
    run(client, "CREATE TRIGGER tells BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION tell()")
    rows = [(i, str(i)) for i in range(_ROWS)]
    assert counts(client.load(rows[100:600], "t", mode="merge")) == (500, 0, 0, 0)
    rows[300] = (300, "other")
    assert counts(client.load(rows, "t", mode="merge")) == (_ROWS - 500, 1, 0, 499)
    assert _statements(client) in _SEVERAL
    assert run(client, "SELECT * FROM t ORDER BY id") == rows


def test_a_key_that_another_session_inserts_meanwhile_undoes_the_parts_before_it(
    client: LakebaseClient, caplog: pytest.LogCaptureFixture
) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, v text)")
    run(client, "INSERT INTO t VALUES (1, 'old')")
    rows = [(i, "ours") for i in range(_ROWS)]
    results: list[Any] = []
    with client.connect() as other, caplog.at_level(logging.INFO, "lakebase_provider"):
        other.execute("INSERT INTO t VALUES (700, 'theirs')")
        thread = threading.Thread(target=lambda: results.append(client.load(rows, "t", mode="merge")))
        thread.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'MERGE%'"
        eventually(lambda: run(client, waits) == [(1,)])
        other.commit()
        thread.join(20)
    assert counts(results[0]) == (_ROWS - 2, 2, 0, 0)
    assert "on by ON CONFLICT" in caplog.text
    assert run(client, "SELECT * FROM t ORDER BY id") == rows


def test_settings_of_the_transaction_are_as_before(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, v text)")
    with client.connection() as connection:
        connection.execute("SET LOCAL work_mem = '1MB'")
        load(connection, [(i, "") for i in range(_ROWS)], "t", mode="merge")
        for name, value in {"work_mem": "1MB", "enable_material": "on"}.items():
            assert connection.execute(f"SHOW {name}").fetchone() == (value,)


def test_the_phase_tells_which_part_is_merged(
    client: LakebaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases: list[str] = []
    monkeypatch.setattr(Progress, "phase", lambda self, name: phases.append(name))
    run(client, "CREATE TABLE t (id int PRIMARY KEY)")
    client.load([(i,) for i in range(_ROWS)], "t", mode="merge")
    assert phases[:3] == ["copy", "merge", f"merge, part 1 of {len(phases) - 2}"]
    assert len(phases) - 2 in _SEVERAL
