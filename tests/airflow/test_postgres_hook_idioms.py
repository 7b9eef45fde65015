"""How users of PostgresHook and psycopg close, drop, nest and reuse connections, many times each way.

After each way every slot of the pool is free, no server process was lost or added, and the next borrower's
session is his own.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.airflow.async_idioms import ASYNC, AsyncWay
from tests.airflow.idioms import COMMITTING, LOSING, Way
from tests.depth import examples
from tests.eventually import eventually

SLOTS = 2
#: More than there are slots, several times over.
TIMES = examples(10, 50)
#: How often one of them follows another.
TURNS = 100
#: What a session tells of itself, and what a new one does.
FRESH = """select current_setting('search_path'), (select count(*) from pg_prepared_statements),
    (select count(*) from pg_listening_channels()), (select count(*) from pg_cursors)"""
AS_NEW = ('"$user", public', 0, 0, 0)

pytestmark = [
    pytest.mark.deep,
    pytest.mark.filterwarnings("ignore:.*was dropped without being returned:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*ServerCursor:ResourceWarning"),
]


@pytest.fixture
def hook(lake: LocalLakebase) -> LakebaseHook:
    hook = LakebaseHook(max_size=SLOTS, connect_budget=20, application_name="idioms")
    hook.run("drop table if exists idioms; create table idioms (i int)")
    return hook


def rows_of(hook: LakebaseHook) -> int:
    return int(hook.get_first("select count(*) from idioms")[0])


def all_is_back(hook: LakebaseHook, lake: LocalLakebase) -> None:
    """Every slot can be had at once, with a session as new, and the server knows no others of ours."""
    pool = hook.client.pool
    eventually(lambda: not pool._loans and not pool._dropped)
    with ExitStack() as stack:
        lent = [stack.enter_context(hook.get_conn()) for _ in range(SLOTS)]
        assert len({connection.info.backend_pid for connection in lent}) == SLOTS
        for connection in lent:
            assert connection.autocommit is False
            assert tuple(connection.execute(FRESH).fetchone() or ()) == AS_NEW
    assert pool.get_stats()["pool_size"] == SLOTS
    eventually(lambda: sessions(lake) == SLOTS)


def sessions(lake: LocalLakebase) -> int:
    rows = lake.admin.execute("select count(*) from pg_stat_activity where application_name = 'idioms'")
    return int(rows[0][0])


@contextmanager
def nobodys_slot_is_lost(hook: LakebaseHook, lake: LocalLakebase) -> Iterator[None]:
    yield
    gc.collect()
    all_is_back(hook, lake)
    hook.client.close()


@pytest.mark.parametrize("way", COMMITTING)
def test_what_commits(hook: LakebaseHook, lake: LocalLakebase, way: Way) -> None:
    with nobodys_slot_is_lost(hook, lake):
        for _ in range(TIMES):
            way(hook)
    assert rows_of(hook) == TIMES


@pytest.mark.parametrize("way", LOSING)
def test_what_is_not_committed(hook: LakebaseHook, lake: LocalLakebase, way: Way) -> None:
    with nobodys_slot_is_lost(hook, lake):
        for _ in range(TIMES):
            way(hook)
    assert rows_of(hook) == 0


def test_all_ways_in_turn_in_one_process(hook: LakebaseHook, lake: LocalLakebase) -> None:
    with nobodys_slot_is_lost(hook, lake):
        for number in range(TURNS):
            ways = COMMITTING if number % 2 else LOSING
            ways[number // 2 % len(ways)](hook)
    assert rows_of(hook) == TURNS // 2


async def all_is_back_for_asyncio(hook: LakebaseHook, lake: LocalLakebase, rows: int) -> None:
    gc.collect()
    client = await hook.aclient()
    pool = await client.apool()
    async with await hook.aget_conn() as one, await hook.aget_conn() as two:
        assert len(pool._loans) == SLOTS
        assert one.info.backend_pid != two.info.backend_pid
        for connection in (one, two):
            assert connection.autocommit is False
            state = await connection.execute(FRESH)
            assert tuple(await state.fetchone() or ()) == AS_NEW
        assert await (await one.execute("select count(*) from idioms")).fetchone() == (rows,)
    assert pool.get_stats()["pool_size"] == SLOTS
    assert not pool._loans
    # The hook of the fixture has made its table through the pool for threads.
    hook.client.close()
    await client.aclose()
    eventually(lambda: sessions(lake) == 0)


@pytest.mark.parametrize(("way", "rows"), ASYNC)
async def test_the_ways_of_asyncio(hook: LakebaseHook, lake: LocalLakebase, way: AsyncWay, rows: int) -> None:
    for _ in range(TIMES):
        await way(hook)
    await all_is_back_for_asyncio(hook, lake, rows * TIMES)


async def test_all_ways_of_asyncio_in_turn(hook: LakebaseHook, lake: LocalLakebase) -> None:
    expected = 0
    for number in range(TURNS):
        way, rows = ASYNC[number % len(ASYNC)]
        await way(hook)
        expected += rows
    await all_is_back_for_asyncio(hook, lake, expected)
