"""Rows to a file, by a worker and by the triggerer: one writer, whose files a load reads back equal."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import fsspec
import psycopg
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach

from lakebase_provider.core.bulk.unload.destination import Destination
from lakebase_provider.core.shared import shared_clients
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.sql import LakebaseSqlOperator
from lakebase_provider.triggers.sql import LakebaseSqlTrigger
from tests.airflow.test_triggers import reached

FORMATS = ("csv", "jsonl", "ndjson", "parquet", "arrow")
ROWS = """
    select n, nullif(n, 2) || '' as word, case n when 1 then '' when 3 then E'a\n"b"' end as text,
        interval '1 mon 1 day' as span, array[n, null] as list, '{"a": 1.10, "b": [null]}'::jsonb as doc,
        0.1::float8 as f, 12345678901234567890.10::numeric(50,2) as wide,
        timestamptz '2026-01-02 03:04+02' as at,
        '\\x00ff'::bytea as raw
    from generate_series(1, 3) n
"""


class FailedError(Exception):
    """What an event told."""


async def worker(sql: Any, path: Any) -> dict[str, Any]:
    context: Any = {}
    operator = LakebaseSqlOperator(task_id="sql", sql=sql, output_path=str(path))
    try:
        return dict(await asyncio.to_thread(operator.execute, context))
    except psycopg.Error as error:
        raise FailedError(type(error).__name__, str(error)) from None
    except AirflowFailException as error:
        raise FailedError(type(error.__cause__).__name__, str(error.__cause__)) from None


async def triggerer(sql: Any, path: Any) -> dict[str, Any]:
    texts = [sql] if isinstance(sql, str) else sql
    trigger = LakebaseSqlTrigger(conn_id="lakebase_default", sql=texts, output_path=str(path))
    async for event in trigger.run():
        await trigger.cleanup()
        payload = dict(event.payload)
        if payload.pop("status") == "error":
            raise FailedError(payload["kind"], payload["message"])
        return payload
    raise AssertionError("no event")


@pytest.fixture(autouse=True)
async def no_open_pool(lake: LocalLakebase) -> AsyncIterator[None]:
    yield
    for client in shared_clients():
        await client.aclose()


FRONTS = pytest.mark.parametrize("front", [worker, triggerer])


@FRONTS
@pytest.mark.parametrize("format", FORMATS)
async def test_what_is_written_is_loaded_equal(
    lake: LocalLakebase, tmp_path: Path, front: Any, format: str
) -> None:
    hook = LakebaseHook()
    hook.run(
        f"drop table if exists written, loaded; create table written as {ROWS};"
        "create table loaded (like written)"
    )
    path = tmp_path / f"rows.{format}"
    assert await front("select * from written", path) == {"path": str(path), "rows": 3}
    hook.client.load(path, "loaded")
    digests = "select md5(t::text) from {} t order by 1"
    assert hook.get_records(digests.format("loaded")) == hook.get_records(digests.format("written"))
    # The operator's files are those of the client, byte for byte.
    kind: Any = {"ndjson": "jsonl"}.get(format, format)
    hook.client.unload("select * from written", tmp_path / "other", kind)
    assert (tmp_path / "other").read_bytes() == path.read_bytes()


@FRONTS
async def test_two_columns_of_one_name_are_refused(lake: LocalLakebase, tmp_path: Path, front: Any) -> None:
    for format in ("jsonl", "parquet"):
        with pytest.raises(FailedError, match="Two columns of the query are called 'a'"):
            await front("select 1 as a, 2 as a", tmp_path / f"x.{format}")
    assert list(tmp_path.iterdir()) == []
    await front("select 1 as a, 2 as a", tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "a,a\n1,2\n"


@FRONTS
@pytest.mark.parametrize("format", FORMATS)
async def test_a_failure_leaves_the_file_before_and_commits_nothing(
    lake: LocalLakebase, tmp_path: Path, front: Any, format: str
) -> None:
    hook = LakebaseHook()
    hook.run(
        "drop table if exists changed; create table changed (i int unique deferrable initially deferred)"
    )
    path = tmp_path / f"rows.{format}"
    await front("select 1 as a", path)
    before = path.read_bytes()
    failing = [
        "select 1 / (2500 - i) as a from generate_series(1, 3000) i",
        "select repeat('x', 1000000) as a, 1 / (i - 20) as b from generate_series(1, 30) i",
    ]
    for query in failing:
        with pytest.raises(FailedError, match="division by zero"):
            await front(["insert into changed values (1)", query], path)
    # At the commit, when the file is whole: it does not get its name.
    with pytest.raises(FailedError, match="duplicate key"):
        await front(["insert into changed values (1), (1)", "select 2 as a"], path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert hook.get_first("select count(*) from changed") == (0,)


@FRONTS
@pytest.mark.parametrize("format", FORMATS)
async def test_readers_see_a_whole_file_or_the_one_before(
    lake: LocalLakebase, tmp_path: Path, front: Any, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"rows.{format}"
    await front("select 1 as a", path)
    before, seen = path.read_bytes(), []
    move = Destination._move

    def moved(self: Any, temporary: str, final: str) -> None:
        seen.append((path.read_bytes(), Path(temporary).stat().st_size > 0))
        move(self, temporary, final)

    monkeypatch.setattr(Destination, "_move", moved)
    await front("select i as a from generate_series(1, 100000) i", path)
    assert seen == [(before, True)]
    assert path.read_bytes() != before


@FRONTS
async def test_a_file_of_a_store(lake: LocalLakebase, front: Any) -> None:
    attach("memory", fs=fsspec.filesystem("memory"))
    path = "memory://bucket/rows.jsonl"
    assert await front("select 1 as a", path) == {"path": path, "rows": 1}
    with pytest.raises(FailedError, match="division"):
        await front("select 1 / (2500 - i) as a from generate_series(1, 3000) i", path)
    assert ObjectStoragePath(path).read_text() == '{"a": 1}\n'
    store = fsspec.filesystem("memory")
    assert [name.rpartition("/")[2] for name in store.find("/") if "rows" in name] == ["rows.jsonl"]


@FRONTS
async def test_lineage_knows_the_file(
    lake: LocalLakebase, tmp_path: Path, front: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.common.compat.lineage import hook as lineage

    class Collector:
        told: list[str] = []  # noqa: RUF012

        def add_output_asset(self, context: Any, uri: str) -> None:
            self.told.append(uri)

        def add_input_asset(self, context: Any, uri: str) -> None: ...

    collector = Collector()
    collector.told = []
    monkeypatch.setattr(lineage, "get_hook_lineage_collector", lambda: collector)
    await front("select 1 as a", tmp_path / "x.csv")
    assert [uri.rpartition("/")[2] for uri in collector.told] == ["x.csv"]


@pytest.mark.parametrize("how", ["cancel", "on_kill", "timeout"])
@pytest.mark.parametrize("format", ["csv", "parquet"])
async def test_a_cancelled_trigger_writes_and_commits_nothing(
    lake: LocalLakebase, tmp_path: Path, how: str, format: str
) -> None:
    hook = LakebaseHook()
    hook.run("drop table if exists noted; create table noted (i int)")
    path = tmp_path / f"rows.{format}"
    path.write_text("before")
    sql = ["insert into noted values (1)", "select i, pg_sleep(0.01)::text from generate_series(1, 100000) i"]
    trigger = LakebaseSqlTrigger(
        conn_id="lakebase_default",
        sql=sql,
        session={"application_name": "written_by_trigger"},
        output_path=str(path),
        timeout=1.0 if how == "timeout" else None,
    )

    async def events() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    sessions = "select count(*) from pg_stat_activity where application_name = 'written_by_trigger'"
    with psycopg.connect(lake.superuser_dsn, autocommit=True) as observer:

        def count(condition: str = "") -> int:
            row = observer.execute((sessions + condition).encode()).fetchone()
            assert row is not None
            return int(row[0])

        task = asyncio.ensure_future(events())
        await reached(
            lambda: task.done() or count(" and state = 'active' and query like 'COPY%'") == 1, within=20
        )
        if how == "cancel":
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert task.cancelled()
        else:
            if how == "on_kill":
                await trigger.on_kill()
            (event,) = await task
            assert event["status"] == "error"
        await trigger.cleanup()
        await reached(lambda: count() == 0, within=10)
    await reached(
        lambda: not [one for one in threading.enumerate() if one.name.startswith("lakebase-output")],
        within=10,
    )
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert hook.get_first("select count(*) from noted") == (0,)
