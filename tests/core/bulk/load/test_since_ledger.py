"""From the version that the ledger holds to the newest one: what has changed in a Delta table, once."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakebase_provider.core import Delta, LakebaseClient
from lakebase_provider.core.bulk.sources.delta.changes import Changes
from lakebase_provider.core.bulk.sources.delta.opened import open_delta
from lakebase_provider.core.errors import ChangesUnavailableError, ConfigError
from tests.core.bulk.delta_tables import commit, delete_by_vector, log_file, mapped_table
from tests.core.bulk.sample_tables import counts, run

FEED = {"delta.enableChangeDataFeed": "true"}
CREATE = "CREATE TABLE t (id bigint PRIMARY KEY, v text)"


def rows(values: dict[int, str | None]) -> pa.Table:
    return pa.table({"id": pa.array(values, pa.int64()), "v": pa.array(values.values(), pa.string())})


def write(table: Path, values: dict[int, str | None], mode: Any = "append") -> None:
    write_deltalake(table, rows(values), mode=mode, configuration=FEED)


def merge(table: Path, values: dict[int, str | None]) -> None:
    merging = DeltaTable(table).merge(rows(values), "t.id = s.id", source_alias="s", target_alias="t")
    merging.when_matched_update_all().when_not_matched_insert_all().execute()


def in_delta(table: Path) -> list[tuple[int, str | None]]:
    found = pa.RecordBatchReader.from_stream(DeltaTable(table).scan()).read_all()
    return sorted(zip(found["id"].to_pylist(), found["v"].to_pylist(), strict=True))


def in_postgres(client: LakebaseClient) -> list[tuple[Any, ...]]:
    return run(client, "SELECT id, v FROM t ORDER BY id")


def load(client: LakebaseClient, source: Any, **options: Any) -> Any:
    return client.load(source, "t", mode="merge", since="ledger", **options)


@pytest.fixture
def lake(client: LakebaseClient, tmp_path: Path) -> Path:
    """A table of three rows, and an empty one for it."""
    run(client, CREATE)
    table = tmp_path / "lake"
    write(table, {1: "a", 2: "b", 3: "c"})
    return table


def test_the_first_load_merges_all_rows_and_the_next_ones_what_has_changed(
    client: LakebaseClient, lake: Path
) -> None:
    first = load(client, f"delta:{lake}")
    assert counts(first) == (3, 0, 0, 0)
    again = load(client, f"delta:{lake}")
    assert again.skipped
    assert again.load_id == first.load_id
    assert first.load_id.endswith("@0")
    merge(lake, {3: "C", 4: "d"})
    DeltaTable(lake).delete("id = 2")
    result = load(client, f"delta:{lake}")
    assert (result.inserted, result.updated, result.deleted) == (1, 1, 1)
    assert (result.rows, result.unchanged) == (4, 1)
    assert result.load_id.endswith("@2")
    assert in_postgres(client) == in_delta(lake) == [(1, "a"), (3, "C"), (4, "d")]


@pytest.mark.parametrize(("keys", "spared"), [(["id"], 2), (["id", "v"], 0), (["absent"], 0)])
def test_what_was_before_an_update_is_not_sent_where_its_key_stays(
    lake: Path, keys: list[str], spared: int
) -> None:
    merge(lake, {2: "B", 3: "C", 4: "d"})
    source = Changes(open_delta(f"delta:{lake}"), 0, None).as_load_source()
    assert source.marked is not None
    marked = source.marked(keys)
    assert sum(batch.rows for batch in marked.batches()) == 5 - spared
    assert marked.spared == spared


def test_of_several_changes_of_a_row_the_last_one_counts(client: LakebaseClient, lake: Path) -> None:
    load(client, f"delta:{lake}")
    merge(lake, {1: "x", 5: "new"})
    merge(lake, {1: "y"})
    DeltaTable(lake).delete("id = 5")
    DeltaTable(lake).delete("id = 2")
    write(lake, {2: "again"})
    result = load(client, f"delta:{lake}")
    assert (result.inserted, result.updated, result.deleted) == (0, 2, 0)
    assert in_postgres(client) == in_delta(lake) == [(1, "y"), (2, "again"), (3, "c")]


def test_a_changed_key_leaves_no_row_behind_and_keys_may_be_swapped(
    client: LakebaseClient, lake: Path
) -> None:
    load(client, f"delta:{lake}")
    table = DeltaTable(lake)
    table.update(updates={"id": "id + 10"}, predicate="id = 1")
    table.update(updates={"id": "5 - id"}, predicate="id in (2, 3)")
    load(client, f"delta:{lake}")
    assert in_postgres(client) == in_delta(lake) == [(2, "c"), (3, "b"), (11, "a")]


def test_commits_without_data_move_the_version_on(client: LakebaseClient, lake: Path) -> None:
    load(client, f"delta:{lake}")
    write(lake, {4: "d"})
    load(client, f"delta:{lake}")
    assert DeltaTable(lake).optimize.compact()["numFilesRemoved"] == 2
    result = load(client, f"delta:{lake}")
    assert (result.rows, result.load_id[-2:]) == (0, "@2")
    assert not result.skipped


def test_columns_and_filter_follow_the_rows(client: LakebaseClient, lake: Path) -> None:
    some = Delta(lake, filter="v <> 'b'")
    load(client, some)
    assert in_postgres(client) == [(1, "a"), (3, "c")]
    # One comes into what the filter selects, one leaves it.
    merge(lake, {1: "b", 2: "B"})
    result = load(client, some)
    assert (result.inserted, result.deleted) == (1, 1)
    assert in_postgres(client) == [(2, "B"), (3, "c")]
    with pytest.raises(ChangesUnavailableError, match="with another filter or other columns"):
        load(client, f"delta:{lake}")
    with pytest.raises(ChangesUnavailableError, match="with another filter or other columns"):
        load(client, some, columns=["id"])


def test_a_partitioned_table_tells_its_changes(client: LakebaseClient, tmp_path: Path) -> None:
    run(client, CREATE)
    write_deltalake(tmp_path / "p", rows({1: "a", 2: "b"}), partition_by=["v"], configuration=FEED)
    load(client, f"delta:{tmp_path / 'p'}")
    DeltaTable(tmp_path / "p").update(updates={"v": "'z'"}, predicate="id = 1")
    load(client, f"delta:{tmp_path / 'p'}")
    assert in_postgres(client) == [(1, "z"), (2, "b")]


def test_deletion_vectors_are_changes(client: LakebaseClient, lake: Path) -> None:
    load(client, f"delta:{lake}")
    delete_by_vector(lake, 1, [0, 2], feeds=True)
    assert load(client, f"delta:{lake}").deleted == 2
    assert in_postgres(client) == in_delta(lake) == [(2, "b")]


def test_the_feed_of_renamed_columns_is_refused_by_that_name(client: LakebaseClient, tmp_path: Path) -> None:
    run(client, CREATE)
    mapped_table(tmp_path / "m", rows({1: "a"}), feeds=True)
    load(client, f"delta:{tmp_path / 'm'}")
    commit(tmp_path / "m", 1)
    with pytest.raises(ChangesUnavailableError, match="renamed by column mapping"):
        load(client, f"delta:{tmp_path / 'm'}")
    assert load(client, f"delta:{tmp_path / 'm'}", fallback="replace").rows == 1


def without_feed(lake: Path) -> None:
    DeltaTable(lake).alter.set_table_properties({"delta.enableChangeDataFeed": "false"})


def recreated(lake: Path) -> None:
    shutil.rmtree(lake)
    write(lake, {7: "new"})
    write(lake, {8: "new"})


def other_columns(lake: Path) -> None:
    more = rows({9: "i"}).append_column("w", pa.array([1], pa.int64()))
    write_deltalake(lake, more, mode="append", schema_mode="merge")


def vacuumed(lake: Path) -> None:
    merge(lake, {1: "A"})
    merge(lake, {1: "AA"})
    DeltaTable(lake).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)
    for file in lake.glob("_change_data/*"):
        file.unlink()


def forgotten(lake: Path) -> None:
    """The log ends before the version that is known, as after its retention."""
    merge(lake, {1: "A"})
    DeltaTable(lake).create_checkpoint()
    merge(lake, {1: "AA"})
    log_file(lake, 0).unlink()
    log_file(lake, 1).unlink()


UNAVAILABLE: dict[Callable[[Path], None], str] = {
    without_feed: "keeps no change data feed",
    recreated: "of another table at its place",
    other_columns: "its columns have changed since",
    vacuumed: "a file of them is gone",
    forgotten: "no longer holds version 0",
}


@pytest.mark.parametrize("what", UNAVAILABLE, ids=lambda what: what.__name__)
def test_what_cannot_be_told_is_an_error_and_a_replacement_only_when_asked_for(
    client: LakebaseClient, lake: Path, what: Callable[[Path], None]
) -> None:
    load(client, f"delta:{lake}")
    run(client, "INSERT INTO t VALUES (99, 'ours')")
    what(lake)
    before = in_postgres(client)
    with pytest.raises(ChangesUnavailableError, match=UNAVAILABLE[what]) as found:
        load(client, f"delta:{lake}")
    assert "fallback='replace'" in found.value.remedy
    assert in_postgres(client) == before
    options: dict[str, Any] = {"schema_evolution": "add"} if what is other_columns else {}
    result = load(client, f"delta:{lake}", fallback="replace", **options)
    assert result.mode == "replace"
    assert in_postgres(client) == in_delta(lake)
    assert load(client, f"delta:{lake}", fallback="replace").skipped


def test_a_feed_that_began_later_does_not_tell_what_was_before(
    client: LakebaseClient, tmp_path: Path
) -> None:
    run(client, CREATE)
    lake = tmp_path / "lake"
    write_deltalake(lake, rows({1: "a", 2: "b"}))
    load(client, f"delta:{lake}")
    DeltaTable(lake).delete("id = 1")
    DeltaTable(lake).alter.set_table_properties(FEED)
    with pytest.raises(ChangesUnavailableError, match="change data feed began later"):
        load(client, f"delta:{lake}")
    load(client, f"delta:{lake}", fallback="replace")
    merge(lake, {2: "B"})
    assert load(client, f"delta:{lake}").updated == 1


def test_a_replacement_does_not_hide_that_another_filter_came_between(
    client: LakebaseClient, lake: Path
) -> None:
    some = Delta(lake, filter="id < 3")
    load(client, some)
    load(client, f"delta:{lake}", fallback="replace")
    merge(lake, {1: "A"})
    # The first one's version is in the ledger, but its rows are no longer in the table.
    with pytest.raises(ChangesUnavailableError, match="with another filter"):
        load(client, some)


def test_a_named_version_is_the_end_of_the_changes(client: LakebaseClient, lake: Path) -> None:
    load(client, f"delta:{lake}")
    merge(lake, {1: "A"})
    merge(lake, {1: "AA"})
    load(client, Delta(lake, version=1))
    assert in_postgres(client)[0] == (1, "A")
    assert load(client, Delta(lake, version=0)).skipped
    load(client, DeltaTable(lake))
    assert in_postgres(client)[0] == (1, "AA")


def test_two_loads_at_the_same_time_take_turns(client: LakebaseClient, lake: Path) -> None:
    load(client, f"delta:{lake}")
    merge(lake, {1: "A", 4: "d"})
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(load(client, f"delta:{lake}"))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.skipped for result in results) == [False, True, True]
    assert in_postgres(client) == in_delta(lake)


@pytest.mark.parametrize("seed", range(3))
def test_after_any_history_the_rows_are_those_of_deltas_newest_snapshot(
    client: LakebaseClient, lake: Path, seed: int
) -> None:
    load(client, f"delta:{lake}")
    chance = random.Random(seed)  # noqa: S311 # no secret
    for step in range(12):
        change(lake, chance, step)
        if chance.random() < 0.4:
            load(client, f"delta:{lake}")
            assert in_postgres(client) == in_delta(lake)
    load(client, f"delta:{lake}")
    assert in_postgres(client) == in_delta(lake)


def change(lake: Path, chance: random.Random, step: int) -> None:
    """A version more: inserts, updates (of keys, too) and deletions."""
    keys = [key for key, _ in in_delta(lake)]
    some = chance.sample(keys, min(len(keys), 3))
    what = chance.choice(["merge", "delete", "append", "key"])
    if what == "merge":
        merge(lake, {**dict.fromkeys(some, f"step {step}"), 100 + step: None})
    elif what == "delete" and len(keys) > 2:
        DeltaTable(lake).delete(f"id = {some[0]}")
    elif what == "key" and keys:
        DeltaTable(lake).update(updates={"id": f"{1000 + step}"}, predicate=f"id = {some[0]}")
    else:
        write(lake, {200 + step: f"new {step}"})


def test_only_a_delta_table_tells_its_changes(client: LakebaseClient) -> None:
    run(client, CREATE)
    with pytest.raises(ConfigError, match="since= needs a Delta table"):
        load(client, [(1, "a")])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mode": "append"}, "since= has no meaning with mode='append'"),
        ({"load_id": "x"}, "load_id= cannot be combined"),
        ({"force": True}, "force= cannot be combined"),
        ({"version_column": "v"}, "version_column= cannot be combined"),
        ({"where": "true", "delete": "missing"}, "where= cannot be combined"),
        ({"on_error": "reject", "reject_to": "r"}, "on_error='reject' cannot be combined"),
        ({"since": None, "fallback": "replace"}, "fallback= has no meaning without since="),
        ({"since": "yesterday"}, "since"),
    ],
)
def test_options_that_contradict_it_are_refused(
    client: LakebaseClient, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        client.load("delta:/nowhere", "t", **{"mode": "merge", "since": "ledger", **options})
