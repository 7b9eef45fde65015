"""How users of PostgresHook and psycopg close, drop, nest and reuse connections, fifty times each way.

After each way every slot of the pool is free, no server process was lost or added, and the next borrower's
session is his own.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.eventually import eventually

TIMES = 50
SLOTS = 2
Way = Callable[[LakebaseHook], Any]
AsyncWay = Callable[[LakebaseHook], Awaitable[Any]]

pytestmark = [
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


# Closed, once or more


def with_connection(hook: LakebaseHook) -> None:
    with hook.get_conn() as connection:
        connection.execute("insert into idioms values (1)")


def with_connection_and_cursor(hook: LakebaseHook) -> None:
    with hook.get_conn() as connection, connection.cursor() as cursor:
        cursor.execute("insert into idioms values (1)")


def with_a_commit_of_its_own(hook: LakebaseHook) -> None:
    with hook.get_conn() as connection:
        connection.execute("insert into idioms values (1)")
        connection.commit()


def closing_twice(hook: LakebaseHook) -> None:
    with closing(hook.get_conn()) as connection:
        with closing(connection.cursor()) as cursor:
            cursor.execute("insert into idioms values (1)")
        connection.commit()
        connection.close()


def with_closed_within(hook: LakebaseHook) -> None:
    with hook.get_conn() as connection:
        connection.execute("insert into idioms values (1)")
        connection.commit()
        connection.close()


def by_hand(hook: LakebaseHook) -> None:
    connection = hook.get_conn()
    cursor = connection.cursor()
    try:
        cursor.execute("insert into idioms values (1)")
        connection.commit()
    finally:
        cursor.close()
        connection.close()
        connection.close()


def with_in_closing(hook: LakebaseHook) -> None:
    with closing(hook.get_conn()) as connection, connection:
        connection.execute("insert into idioms values (1)")


def with_in_with(hook: LakebaseHook) -> None:
    with hook.get_conn() as connection:
        with connection:
            connection.execute("select 1")
        with connection, connection.cursor() as cursor:
            cursor.execute("insert into idioms values (1)")


def two_at_once(hook: LakebaseHook) -> None:
    with hook.get_conn() as reader, hook.get_conn() as writer:
        for (number,) in reader.execute("select 1").fetchall():
            writer.execute("insert into idioms values (%s)", [number])


def a_stack(hook: LakebaseHook) -> None:
    with ExitStack() as stack:
        connection = stack.enter_context(closing(hook.get_conn()))
        stack.enter_context(connection.transaction())
        connection.execute("insert into idioms values (1)")


def nested_transactions(hook: LakebaseHook) -> None:
    with hook.get_conn() as connection, connection.transaction():
        connection.execute("insert into idioms values (1)")
        with suppress(ZeroDivisionError), connection.transaction():
            raise ZeroDivisionError(connection.execute("insert into idioms values (2)"))


def pipeline(hook: LakebaseHook) -> None:
    with hook.get_conn() as connection, connection.pipeline():
        connection.execute("insert into idioms values (1)")
        connection.execute("select 1")


def copy(hook: LakebaseHook) -> None:
    with hook.get_conn() as connection, connection.cursor().copy("copy idioms from stdin") as copy:
        copy.write_row([1])


def server_side(hook: LakebaseHook) -> None:
    with hook.get_conn() as connection:
        with connection.cursor("named") as cursor:
            cursor.execute("select generate_series(1, 1000)")
            cursor.fetchmany(10)
        connection.execute("insert into idioms values (1)")


def autocommit(hook: LakebaseHook) -> None:
    with hook.get_conn() as connection:
        hook.set_autocommit(connection, True)
        connection.execute("insert into idioms values (1)")


def changed(hook: LakebaseHook) -> None:
    with hook.get_conn() as connection:
        connection.row_factory = dict_row  # type: ignore[assignment] # what a careless user does
        connection.execute("set search_path = elsewhere; prepare one as select 1; listen gossip")
        connection.execute("insert into public.idioms values (1)")


def by_the_hooks_methods(hook: LakebaseHook) -> None:
    hook.run("insert into idioms values (1)")
    hook.get_records("select 1")
    hook.insert_rows("idioms", [])


def closed_in_a_thread(hook: LakebaseHook) -> None:
    connection = hook.get_conn()
    connection.execute("insert into idioms values (1)")
    connection.commit()
    thread = threading.Thread(target=connection.close)
    thread.start()
    connection.close()
    thread.join()


def get_cursor_and_close(hook: LakebaseHook) -> None:
    with hook.get_cursor() as cursor:
        cursor.execute("insert into idioms values (1)")
        cursor.connection.commit()
        cursor.connection.close()


def sqlalchemy(hook: LakebaseHook) -> None:
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    engine = create_engine(hook.sqlalchemy_url, creator=hook.get_conn, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("insert into idioms values (1)"))


COMMITTING: list[Way] = [
    with_connection,
    with_connection_and_cursor,
    with_a_commit_of_its_own,
    closing_twice,
    with_closed_within,
    by_hand,
    with_in_closing,
    with_in_with,
    two_at_once,
    a_stack,
    nested_transactions,
    pipeline,
    copy,
    server_side,
    autocommit,
    changed,
    by_the_hooks_methods,
    closed_in_a_thread,
    get_cursor_and_close,
    sqlalchemy,
]


# Not committed, dropped, or left half-way


def closed_without_a_commit(hook: LakebaseHook) -> None:
    with closing(hook.get_conn()) as connection:
        connection.execute("insert into idioms values (1)")


def an_error_in_with(hook: LakebaseHook) -> None:
    with suppress(ZeroDivisionError), hook.get_conn() as connection:
        raise ZeroDivisionError(connection.execute("insert into idioms values (1)"))


def an_error_of_the_server(hook: LakebaseHook) -> None:
    with suppress(psycopg.errors.DivisionByZero), hook.get_conn() as connection:
        connection.execute("insert into idioms values (1)")
        connection.execute("select 1/0")


def dropped(hook: LakebaseHook) -> None:
    hook.get_conn().execute("insert into idioms values (1)")


def dropped_cursor(hook: LakebaseHook) -> None:
    cursor = hook.get_cursor()
    cursor.execute("insert into idioms values (1)")
    assert cursor.rowcount == 1


def closed_cursor(hook: LakebaseHook) -> None:
    with hook.get_cursor() as cursor:
        cursor.execute("insert into idioms values (1)")


def dropped_cursor_of_rows(hook: LakebaseHook) -> None:
    for _ in hook.get_conn().cursor().stream("select generate_series(1, 10)"):
        break


def dropped_in_a_cycle(hook: LakebaseHook) -> None:
    cycle: list[Any] = [hook.get_conn()]
    cycle[0].execute("insert into idioms values (1)")
    cycle.append(cycle)
    del cycle
    gc.collect()


def dropped_unused(hook: LakebaseHook) -> None:
    hook.get_conn()


def generator_left_half_way(hook: LakebaseHook) -> None:
    def rows() -> Iterator[Any]:
        with closing(hook.get_conn()) as connection, connection.cursor("rows") as cursor:
            cursor.execute("select generate_series(1, 1000)")
            yield from cursor

    assert next(rows()) == (1,)


def generator_without_with(hook: LakebaseHook) -> None:
    def rows() -> Iterator[Any]:
        connection = hook.get_conn()
        yield from connection.execute("select generate_series(1, 1000)")

    for _ in rows():
        break


def frames_left_half_way(hook: LakebaseHook) -> None:
    for _ in hook.get_df_by_chunks("select generate_series(1, 10) as i", chunksize=2):
        break


def copy_left_half_way(hook: LakebaseHook) -> None:
    connection = hook.get_conn()
    opened = connection.cursor().copy("copy (select generate_series(1, 100000)) to stdout")
    opened.__enter__().read()
    connection.close()
    with suppress(psycopg.Error):
        opened.__exit__(None, None, None)


def notifications_left_half_way(hook: LakebaseHook) -> None:
    connection = hook.get_conn()
    connection.autocommit = True
    connection.execute("listen gossip")
    connection.execute("notify gossip")
    heard = connection.notifies(timeout=5)
    next(heard)
    connection.close()


def used_after_its_close(hook: LakebaseHook) -> None:
    connection = hook.get_conn()
    cursor = connection.cursor()
    connection.close()
    for use in (cursor.execute, connection.execute):
        with pytest.raises(psycopg.OperationalError, match="the connection is closed"):
            use("insert into idioms values (1)")


def broken(hook: LakebaseHook) -> None:
    with suppress(psycopg.Error), hook.get_conn() as connection:
        connection.execute("select pg_terminate_backend(pg_backend_pid())")


def left_in_a_pipeline(hook: LakebaseHook) -> None:
    connection = hook.get_conn()
    opened = connection.pipeline()
    opened.__enter__()
    connection.execute("insert into idioms values (1)")
    connection.close()
    with suppress(psycopg.Error):
        opened.__exit__(None, None, None)


LOSING: list[Way] = [
    closed_without_a_commit,
    an_error_in_with,
    an_error_of_the_server,
    dropped,
    dropped_cursor,
    closed_cursor,
    dropped_cursor_of_rows,
    dropped_in_a_cycle,
    dropped_unused,
    generator_left_half_way,
    generator_without_with,
    frames_left_half_way,
    copy_left_half_way,
    notifications_left_half_way,
    used_after_its_close,
    broken,
    left_in_a_pipeline,
]


def all_is_back(hook: LakebaseHook, lake: LocalLakebase) -> None:
    """Every slot can be had at once, with a session as new, and the server knows no others of ours."""
    pool = hook.client.pool
    eventually(lambda: not pool._loans and not pool._dropped)
    with ExitStack() as stack:
        lent = [stack.enter_context(hook.get_conn()) for _ in range(SLOTS)]
        assert len({connection.info.backend_pid for connection in lent}) == SLOTS
        for connection in lent:
            assert connection.autocommit is False
            state = connection.execute(
                "select current_setting('search_path'), (select count(*) from pg_prepared_statements),"
                " (select count(*) from pg_listening_channels()), (select count(*) from pg_cursors)"
            ).fetchone()
            assert state is not None
            assert tuple(state) == ('"$user", public', 0, 0, 0)
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
        for number in range(2 * TIMES):
            ways = COMMITTING if number % 2 else LOSING
            ways[number // 2 % len(ways)](hook)
    assert rows_of(hook) == TIMES


# asyncio


async def awith(hook: LakebaseHook) -> None:
    async with await hook.aget_conn() as connection:
        await connection.execute("insert into idioms values (1)")


async def aclosed_within(hook: LakebaseHook) -> None:
    async with await hook.aget_conn() as connection:
        await connection.execute("insert into idioms values (1)")
        await connection.commit()
        await connection.close()


async def aby_hand(hook: LakebaseHook) -> None:
    connection = await hook.aget_conn()
    try:
        await connection.execute("insert into idioms values (1)")
        await connection.commit()
    finally:
        await connection.close()
        await connection.close()


async def anested(hook: LakebaseHook) -> None:
    async with await hook.aget_conn() as connection, connection.transaction():
        await connection.execute("insert into idioms values (1)")


async def atwo_at_once(hook: LakebaseHook) -> None:
    async with await hook.aget_conn() as one, await hook.aget_conn() as two:
        await one.execute("select 1")
        await two.execute("insert into idioms values (1)")


async def aby_the_hooks_methods(hook: LakebaseHook) -> None:
    await hook.arun("insert into idioms values (1)")
    await hook.aget_records("select 1")


async def aclosed_without_a_commit(hook: LakebaseHook) -> None:
    connection = await hook.aget_conn()
    await connection.execute("insert into idioms values (1)")
    await connection.close()


async def adropped(hook: LakebaseHook) -> None:
    await (await hook.aget_conn()).execute("insert into idioms values (1)")


async def adropped_stream(hook: LakebaseHook) -> None:
    connection = await hook.aget_conn()
    rows: Any = connection.cursor().stream("select generate_series(1, 10)")
    async for _ in rows:
        break
    await rows.aclose()


async def acancelled(hook: LakebaseHook) -> None:
    async def work() -> None:
        async with await hook.aget_conn() as connection:
            await connection.execute("insert into idioms values (1)")
            started.set()
            await connection.execute("select pg_sleep(60)")

    started = asyncio.Event()
    task = asyncio.ensure_future(work())
    await started.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def aused_after_its_close(hook: LakebaseHook) -> None:
    connection = await hook.aget_conn()
    cursor = connection.cursor()
    await connection.close()
    for use in (cursor.execute, connection.execute):
        with pytest.raises(psycopg.OperationalError, match="the connection is closed"):
            await use("insert into idioms values (1)")


ASYNC: list[tuple[AsyncWay, int]] = [
    (awith, TIMES),
    (aclosed_within, TIMES),
    (aby_hand, TIMES),
    (anested, TIMES),
    (atwo_at_once, TIMES),
    (aby_the_hooks_methods, TIMES),
    (aclosed_without_a_commit, 0),
    (adropped, 0),
    (adropped_stream, 0),
    (acancelled, 0),
    (aused_after_its_close, 0),
]


@pytest.mark.parametrize(("way", "rows"), ASYNC)
async def test_the_ways_of_asyncio(hook: LakebaseHook, way: AsyncWay, rows: int) -> None:
    for _ in range(TIMES):
        await way(hook)
    gc.collect()
    pool = await (await hook.aclient()).apool()
    async with await hook.aget_conn() as one, await hook.aget_conn() as two:
        assert one.info.backend_pid != two.info.backend_pid
        assert await (await one.execute("select count(*) from idioms")).fetchone() == (rows,)
        assert len(pool._loans) == SLOTS
    assert pool.get_stats()["pool_size"] == SLOTS
    await (await hook.aclient()).aclose()
