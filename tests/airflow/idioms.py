"""Ways to close, drop, nest and reuse connections as users of PostgresHook and psycopg do."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from lakebase_provider.hooks.lakebase import LakebaseHook

Way = Callable[[LakebaseHook], Any]


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


def cursors_nested_and_closed(hook: LakebaseHook) -> None:
    with hook.get_conn() as connection, connection.cursor() as outer:
        for (number,) in outer.execute("select generate_series(1, 3)"):
            with closing(connection.cursor()) as inner:
                inner.execute("insert into idioms select %s where %s = 3", [number, number])
        inner.close()
        with pytest.raises(psycopg.InterfaceError, match="the cursor is closed"):
            inner.execute("insert into idioms values (2)")


def one_cursor_reused(hook: LakebaseHook) -> None:
    with hook.get_conn() as connection:
        cursor = connection.cursor()
        for sql in ("select generate_series(1, 9)", "insert into idioms values (1)", "select 1"):
            cursor.execute(sql)
        cursor.fetchone()
        connection.commit()
        cursor.execute("select generate_series(1, 9)")
        cursor.fetchmany(2)


def one_loan_used_again(hook: LakebaseHook) -> None:
    connection = hook.get_conn()
    with connection:
        connection.execute("insert into idioms values (1)")
    with pytest.raises(psycopg.OperationalError, match="the connection is closed"), connection:
        connection.execute("insert into idioms values (2)")


def rows_read_too_late(hook: LakebaseHook) -> None:
    rows = hook.run("insert into idioms values (1) returning i", handler=lambda cursor: iter(cursor))
    with pytest.raises(psycopg.Error):
        next(rows)
    kept = hook.run("select 1", handler=lambda cursor: cursor)
    with pytest.raises(psycopg.OperationalError, match="the connection is closed"):
        kept.execute("insert into idioms values (2)")


def a_stream_read_to_its_end(hook: LakebaseHook) -> None:
    with hook.get_conn() as connection:
        assert len(list(connection.cursor().stream("select generate_series(1, 9)"))) == 9
        with closing(connection.cursor().stream("select generate_series(1, 9)")) as rows:
            next(rows)
        connection.execute("insert into idioms values (1)")


def another_hook_within(hook: LakebaseHook) -> None:
    with hook.get_conn() as connection:
        connection.execute("insert into idioms values (1)")
        settings: dict[str, Any] = {
            name: getattr(hook.config, name) for name in ("max_size", "connect_budget", "application_name")
        }
        assert LakebaseHook(**settings).get_first("select 1") == (1,)


def inspector(hook: LakebaseHook) -> None:
    assert hook.inspector.has_table("idioms")
    hook.run("insert into idioms values (1)")


def without_a_pool(hook: LakebaseHook) -> None:
    with hook.client.connect() as connection:
        with pytest.raises(ValueError, match="did not lend"):
            hook.client.pool.putconn(connection)
        connection.execute("insert into idioms values (1)")


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
    cursors_nested_and_closed,
    one_cursor_reused,
    one_loan_used_again,
    rows_read_too_late,
    a_stream_read_to_its_end,
    another_hook_within,
    inspector,
    without_a_pool,
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


def cursor_of_a_dropped_one(hook: LakebaseHook) -> None:
    cursor = hook.get_conn().cursor()
    gc.collect()
    cursor.execute("insert into idioms values (1)")


def libpq_of_a_dropped_one(hook: LakebaseHook) -> None:
    connection = hook.get_conn()
    connection.execute("insert into idioms values (1)")
    kept, info = connection.pgconn, connection.info
    del connection
    with pytest.raises(psycopg.Error):
        kept.send_query(b"commit")
    with pytest.raises(psycopg.Error):
        _ = info.backend_pid


def dropped_server_side(hook: LakebaseHook) -> None:
    cursor = hook.get_conn().cursor("named")
    cursor.execute("select generate_series(1, 1000)")
    assert cursor.fetchone() == (1,)


def dropped_in_a_transaction(hook: LakebaseHook) -> None:
    connection = hook.get_conn()
    connection.transaction().__enter__()
    connection.execute("insert into idioms values (1)")


def dropped_in_a_copy(hook: LakebaseHook) -> None:
    opened = hook.get_conn().cursor().copy("copy idioms from stdin")
    opened.__enter__().write("1\n")


def dropped_in_a_pipeline(hook: LakebaseHook) -> None:
    connection = hook.get_conn()
    connection.pipeline().__enter__()
    connection.execute("insert into idioms values (1)")


def dropped_in_a_thread(hook: LakebaseHook) -> None:
    thread = threading.Thread(target=dropped, args=(hook,))
    thread.start()
    thread.join()


def dropped_context_manager(hook: LakebaseHook) -> None:
    connection = hook.client.connection().__enter__()
    with suppress(psycopg.OperationalError):
        connection.execute("insert into idioms values (1)")


def stream_left_in_with(hook: LakebaseHook) -> None:
    with hook.get_conn() as connection:
        for _ in connection.cursor().stream("select generate_series(1, 1000)"):
            break


def error_in_a_generator(hook: LakebaseHook) -> None:
    def rows() -> Iterator[Any]:
        with hook.get_conn() as connection:
            connection.execute("insert into idioms values (1)")
            yield from connection.execute("select generate_series(1, 1000)")

    left = rows()
    next(left)
    with suppress(ZeroDivisionError):
        left.throw(ZeroDivisionError())


def prepared_transaction_left(hook: LakebaseHook) -> None:
    connection = hook.get_conn()
    connection.tpc_begin(connection.xid(1, "global", "branch"))
    connection.execute("insert into idioms values (1)")
    connection.close()


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
    cursor_of_a_dropped_one,
    libpq_of_a_dropped_one,
    dropped_server_side,
    dropped_in_a_transaction,
    dropped_in_a_copy,
    dropped_in_a_pipeline,
    dropped_in_a_thread,
    dropped_context_manager,
    stream_left_in_with,
    error_in_a_generator,
    prepared_transaction_left,
]
