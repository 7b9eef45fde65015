"""Partitions that are made before they are needed, and retired when they are old."""

from __future__ import annotations

from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ConfigError, LockTimeoutError
from lakebase_provider.core.upkeep.maintenance.maintenance_report import MaintenanceReport
from lakebase_provider.core.upkeep.maintenance.structures.periods import Every, Period
from tests.core.upkeep.maintenance.conftest import Database
from tests.core.upkeep.maintenance.test_tables import done, skipped

AT = datetime(2027, 3, 15, 12, tzinfo=timezone.utc)
EVENTS = """
CREATE TABLE events (
    id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL DEFAULT now(),
    what text CHECK (what <> ''), PRIMARY KEY (id, at)
) PARTITION BY RANGE (at)
"""


@pytest.fixture
def events(database: Database) -> Database:
    database.rows(EVENTS)
    return database


def look_after(client: LakebaseClient, table: str = "events", **options: Any) -> MaintenanceReport:
    return client.maintenance.partitions(table, **{"every": "month", "at": AT, **options})


def test_they_are_made_before_they_are_needed(client: LakebaseClient, events: Database) -> None:
    made = done(look_after(client, premake=2))
    assert made == ["public.events_p2027_03", "public.events_p2027_04", "public.events_p2027_05"]
    assert done(look_after(client, premake=2)) == []
    assert events.partitions("events") == [name.removeprefix("public.") for name in made]
    insert = "INSERT INTO events (at, what) VALUES ('2027-04-30 23:59:59+00', 'x')"
    [[row]] = events.rows(f"{insert} RETURNING tableoid::regclass::text")
    assert row == "events_p2027_04"
    with pytest.raises(Exception, match="violates check constraint"):
        events.rows("INSERT INTO events (at, what) VALUES ('2027-04-30 23:59:59+00', '')")
    # The primary key, too.
    assert events.indexes("events_p2027_04") == ["events_p2027_04_pkey"]


@pytest.mark.parametrize("kind", ["date", "timestamp", "timestamptz"])
@pytest.mark.parametrize(
    ("every", "names"),
    [
        ("month", ["m_p2027_03", "m_p2027_04"]),
        ("week", ["m_p2027w11", "m_p2027w12"]),
        ("day", ["m_p2027_03_15", "m_p2027_03_16"]),
    ],
)
def test_for_each_kind_of_time(
    client: LakebaseClient, database: Database, kind: str, every: Every, names: list[str]
) -> None:
    database.rows(f"CREATE TABLE m (t {kind}) PARTITION BY RANGE (t)")
    look_after(client, "m", every=every, premake=1)
    assert database.partitions("m") == names
    assert done(look_after(client, "m", every=every, premake=1)) == []


def test_partitions_that_are_there_are_kept_to(client: LakebaseClient, events: Database) -> None:
    for name, start, end in (("year", "2026-01-01", "2027-04-01"), ("part", "2027-04-10", "2027-04-20")):
        bounds = f"FOR VALUES FROM ('{start} 00:00+00') TO ('{end} 00:00+00')"
        events.rows(f"CREATE TABLE {name} PARTITION OF events {bounds}")
    events.rows("CREATE TABLE events_p2027_05 (n int)")
    report = look_after(client, premake=2)
    assert done(report) == []
    assert skipped(report) == {
        "public.events_p2027_04": "another partition holds a part of 2027-04-01 to 2027-05-01",
        "public.events_p2027_05": "there is something else of that name",
    }


def test_the_default_partition_is_looked_at(client: LakebaseClient, events: Database) -> None:
    events.rows("CREATE TABLE rest PARTITION OF events DEFAULT")
    events.rows("INSERT INTO events (at, what) VALUES ('2027-04-05 00:00+00', 'early')")
    report = look_after(client, premake=2)
    assert done(report) == ["public.events_p2027_03", "public.events_p2027_05"]
    found = skipped(report)
    assert found["public.rest"] == "it holds rows, for which there was no partition"
    assert "the default partition public.rest holds rows of 2027-04-01" in found["public.events_p2027_04"]
    # Beside it nothing can be detached concurrently.
    later = datetime(2027, 6, 1, tzinfo=timezone.utc)
    assert "public.events_p2027_03" in done(look_after(client, keep=1, at=later))
    assert "events_p2027_03" not in events.partitions("events")


def test_old_ones_are_archived_and_dropped(client: LakebaseClient, events: Database, tmp_path: Path) -> None:
    look_after(client, premake=0, at=datetime(2027, 1, 1, tzinfo=timezone.utc))
    look_after(client, premake=0, at=datetime(2027, 2, 1, tzinfo=timezone.utc))
    events.rows("INSERT INTO events (at, what) SELECT '2027-01-05 00:00+00', n FROM generate_series(1, 50) n")
    archive = str(tmp_path / "{partition}.parquet")
    report = look_after(client, premake=0, keep=1, archive=archive)
    assert [(step.target, step.did) for step in report.steps] == [
        ("public.events_p2027_03", "made, for 2027-03-01 to 2027-04-01"),
        ("public.events_p2027_01", "detached"),
        ("public.events_p2027_01", "archived: 50 rows"),
        ("public.events_p2027_01", "dropped"),
    ]
    assert pq.read_table(tmp_path / "events_p2027_01.parquet").num_rows == 50
    assert events.partitions("events") == ["events_p2027_02", "events_p2027_03"]
    assert events.left() == []


def test_one_that_cannot_be_archived_is_not_lost(
    client: LakebaseClient, events: Database, tmp_path: Path
) -> None:
    look_after(client, premake=0, at=datetime(2027, 1, 1, tzinfo=timezone.utc))
    events.rows("INSERT INTO events (at, what) VALUES ('2027-01-05 00:00+00', 'x')")
    nowhere = str(tmp_path / "file" / "{partition}.parquet")
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match="file"):
        look_after(client, keep=0, archive=nowhere)
    assert events.left() == ["events_p2027_01", "events_p2027_01"]
    # Less is to be retired now: it is kept, though it is detached.
    assert look_after(client, keep=10).steps == ()
    look_after(client, keep=0, archive=str(tmp_path / "{partition}.parquet"))
    assert pq.read_table(tmp_path / "events_p2027_01.parquet").num_rows == 1
    assert events.left() == []


def test_a_long_transaction_leaves_it_half_detached_and_the_next_run_ends_that(
    client: LakebaseClient, events: Database
) -> None:
    look_after(client, premake=1, at=datetime(2027, 1, 1, tzinfo=timezone.utc))
    with events.holding("SELECT * FROM events") as pid, pytest.raises(LockTimeoutError) as caught:
        look_after(client, premake=0, keep=1, lock_timeout=0.3, attempts=2)
    assert caught.value.message.startswith("Detaching public.events_p2027_01")
    assert f"held by pid {pid} (" in caught.value.message
    assert events.left() == ["events_p2027_01", "events_p2027_01"]
    report = look_after(client, premake=0, keep=1)
    assert ("public.events_p2027_01", "dropped") in [(step.target, step.did) for step in report.steps]
    assert events.left() == []


def test_what_cannot_be_looked_after_is_refused(client: LakebaseClient, events: Database) -> None:
    events.rows("CREATE TABLE by_number (n int) PARTITION BY RANGE (n)")
    for table, options, message in (
        ("orders", {}, r"public\.orders is not partitioned"),
        ("by_number", {}, "not partitioned by range of one date or timestamp"),
        ("events", {"every": "hour"}, "'every' is 'hour'"),
        ("events", {"premake": -1}, "'premake' must be a whole number"),
        ("events", {"keep": 1, "archive": "/lake/x.parquet"}, r"'archive' has no \{partition\}"),
        ("events", {"archive": "/lake/{partition}.parquet"}, "'archive' without 'keep'"),
        ("events", {"at": datetime(2027, 1, 1)}, "'at' must be a moment with its zone"),
    ):
        with pytest.raises(ConfigError, match=message):
            look_after(client, table, **options)


def test_periods_follow_each_other() -> None:
    for every in ("month", "week", "day"):
        first = Period.of(every, datetime(2026, 12, 31, 23, 59))  # type: ignore[arg-type]
        periods = list(first.later(every, 400))  # type: ignore[arg-type]
        assert all(one.end == two.start for one, two in pairwise(periods))
        assert len({one.suffix(every) for one in periods}) == 401  # type: ignore[arg-type]
        assert periods[400].earlier(every, 400) == first  # type: ignore[arg-type]
    assert Period.of("week", datetime(2027, 1, 1)).suffix("week") == "_p2026w53"
