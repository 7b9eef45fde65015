"""The same for asyncio: each way, and whether it commits 1 or nothing."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from lakebase_provider.hooks.lakebase import LakebaseHook

AsyncWay = Callable[[LakebaseHook], Awaitable[Any]]


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


async def awith_cursors(hook: LakebaseHook) -> None:
    async with await hook.aget_conn() as connection, connection.cursor() as cursor:
        async with connection.cursor() as other:
            await other.execute("select generate_series(1, 9)")
            await other.fetchone()
        await cursor.execute("insert into idioms values (1)")


async def awith_in_with(hook: LakebaseHook) -> None:
    async with await hook.aget_conn() as connection:
        async with connection:
            await connection.execute("select 1")
        async with connection, connection.transaction():
            await connection.execute("insert into idioms values (1)")


async def apipeline(hook: LakebaseHook) -> None:
    async with await hook.aget_conn() as connection, connection.pipeline():
        await connection.execute("insert into idioms values (1)")
        await connection.execute("select 1")


async def acopy(hook: LakebaseHook) -> None:
    async with (
        await hook.aget_conn() as connection,
        connection.cursor().copy("copy idioms from stdin") as copy,
    ):
        await copy.write_row([1])


async def aserver_side(hook: LakebaseHook) -> None:
    async with await hook.aget_conn() as connection:
        async with connection.cursor("named") as cursor:
            await cursor.execute("select generate_series(1, 1000)")
            await cursor.fetchmany(10)
        await connection.execute("insert into idioms values (1)")


async def achanged(hook: LakebaseHook) -> None:
    async with await hook.aget_conn() as connection:
        await connection.set_autocommit(True)
        connection.row_factory = dict_row  # type: ignore[assignment] # what a careless user does
        await connection.execute("set search_path = elsewhere; prepare one as select 1; listen gossip")
        await connection.execute("insert into public.idioms values (1)")


async def aclosed_by_another_task(hook: LakebaseHook) -> None:
    connection = await hook.aget_conn()
    await connection.execute("insert into idioms values (1)")
    await connection.commit()
    await asyncio.gather(*(connection.close() for _ in range(3)))


async def aone_loan_used_again(hook: LakebaseHook) -> None:
    connection = await hook.aget_conn()
    async with connection:
        await connection.execute("insert into idioms values (1)")
    with pytest.raises(psycopg.OperationalError, match="the connection is closed"):
        async with connection:
            await connection.execute("insert into idioms values (2)")


async def aerror_in_with(hook: LakebaseHook) -> None:
    with suppress(psycopg.errors.DivisionByZero):
        async with await hook.aget_conn() as connection:
            await connection.execute("insert into idioms values (1)")
            await connection.execute("select 1/0")


async def abroken(hook: LakebaseHook) -> None:
    with suppress(psycopg.Error):
        async with await hook.aget_conn() as connection:
            await connection.execute("select pg_terminate_backend(pg_backend_pid())")


async def adropped_unused(hook: LakebaseHook) -> None:
    await hook.aget_conn()


async def adropped_cursor(hook: LakebaseHook) -> None:
    cursor = (await hook.aget_conn()).cursor()
    await cursor.execute("insert into idioms values (1)")


async def adropped_in_a_cycle(hook: LakebaseHook) -> None:
    cycle: list[Any] = [await hook.aget_conn()]
    await cycle[0].execute("insert into idioms values (1)")
    cycle.append(cycle)
    del cycle
    gc.collect()


async def adropped_in_a_copy(hook: LakebaseHook) -> None:
    opened = (await hook.aget_conn()).cursor().copy("copy idioms from stdin")
    await (await opened.__aenter__()).write("1\n")


async def aleft_in_a_pipeline(hook: LakebaseHook) -> None:
    connection = await hook.aget_conn()
    opened = connection.pipeline()
    await opened.__aenter__()
    await connection.execute("insert into idioms values (1)")
    await connection.close()
    with suppress(psycopg.Error):
        await opened.__aexit__(None, None, None)


async def agenerator_left_half_way(hook: LakebaseHook) -> None:
    async def rows() -> AsyncIterator[Any]:
        async with await hook.aget_conn() as connection:
            await connection.execute("insert into idioms values (1)")
            async for row in await connection.execute("select generate_series(1, 1000)"):
                yield row

    left = rows()
    await anext(left)
    with suppress(ZeroDivisionError):
        await left.athrow(ZeroDivisionError())


async def agenerator_forgotten(hook: LakebaseHook) -> None:
    async def rows() -> AsyncIterator[Any]:
        connection = await hook.aget_conn()
        async for row in await connection.execute("select generate_series(1, 1000)"):
            yield row

    async for _ in rows():
        break


async def astream_left_in_with(hook: LakebaseHook) -> None:
    async with await hook.aget_conn() as connection:
        async for _ in connection.cursor().stream("select generate_series(1, 1000)"):
            break


async def anotifications_left_half_way(hook: LakebaseHook) -> None:
    connection = await hook.aget_conn()
    await connection.set_autocommit(True)
    await connection.execute("listen gossip")
    await connection.execute("notify gossip")
    heard: Any = connection.notifies(timeout=5)
    await anext(heard)
    await connection.close()


async def acancelled_while_it_waits(hook: LakebaseHook) -> None:
    async with await hook.aget_conn(), await hook.aget_conn():
        waiting = asyncio.ensure_future(hook.aget_conn())
        await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting


ASYNC: list[tuple[AsyncWay, int]] = [
    (awith, 1),
    (aclosed_within, 1),
    (aby_hand, 1),
    (anested, 1),
    (atwo_at_once, 1),
    (aby_the_hooks_methods, 1),
    (aclosed_without_a_commit, 0),
    (adropped, 0),
    (adropped_stream, 0),
    (acancelled, 0),
    (aused_after_its_close, 0),
    (awith_cursors, 1),
    (awith_in_with, 1),
    (apipeline, 1),
    (acopy, 1),
    (aserver_side, 1),
    (achanged, 1),
    (aclosed_by_another_task, 1),
    (aone_loan_used_again, 1),
    (aerror_in_with, 0),
    (abroken, 0),
    (adropped_unused, 0),
    (adropped_cursor, 0),
    (adropped_in_a_cycle, 0),
    (adropped_in_a_copy, 0),
    (aleft_in_a_pipeline, 0),
    (agenerator_left_half_way, 0),
    (agenerator_forgotten, 0),
    (astream_left_in_with, 0),
    (anotifications_left_half_way, 0),
    (acancelled_while_it_waits, 0),
]
