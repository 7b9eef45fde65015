"""A source that gives its rows once is not taken for one without rows when a second attempt reads it."""

from __future__ import annotations

import csv
import gc
import io
import itertools
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.sources import seen
from lakebase_provider.core.errors import ConfigError, LoadError
from tests.core.bulk.sample_tables import run

ROWS = [(1, "a"), (2, "b"), (3, "c")]


def _generator() -> Iterator[tuple[int, str]]:
    yield from ROWS


def _cursor() -> sqlite3.Cursor:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table t (id int, name text)")
    connection.executemany("insert into t values (?, ?)", ROWS)
    return connection.execute("select id, name from t")


class _Holder:
    """Its iterator is the same one each time."""

    def __init__(self) -> None:
        self._rows = _generator()

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return self._rows


def _record_batches() -> Iterator[pa.RecordBatch]:
    table = pa.table({"id": [1, 2, 3], "name": ["a", "b", "c"]})
    yield from table.to_batches(max_chunksize=1)


ONCE: dict[str, Callable[[], Any]] = {
    "generator": _generator,
    "list iterator": lambda: iter(ROWS),
    "map": lambda: map(tuple, ROWS),
    "zip": lambda: zip([1, 2, 3], ["a", "b", "c"], strict=True),
    "chain": lambda: itertools.chain(ROWS),
    "holder": _Holder,
    "csv": lambda: csv.reader(io.StringIO("1,a\n2,b\n3,c\n")),
    "dicts": lambda: csv.DictReader(io.StringIO("id,name\n1,a\n2,b\n3,c\n")),
    "cursor": _cursor,
    "reader": lambda: pa.RecordBatchReader.from_batches(
        next(_record_batches()).schema, _record_batches()
    ),
    "batches": _record_batches,
}  # fmt: skip


@pytest.fixture(params=ONCE, ids=str)
def source(request: pytest.FixtureRequest) -> Any:
    return ONCE[request.param]()


@pytest.fixture(autouse=True)
def table(client: LakebaseClient) -> None:
    run(client, "create table kept (id int primary key, name text not null)")


def kept(client: LakebaseClient) -> list[tuple[Any, ...]]:
    return run(client, "select * from kept order by id")


def test_a_second_attempt_does_not_empty_the_table(client: LakebaseClient, source: Any) -> None:
    client.load(source, "kept", mode="replace")
    with pytest.raises(ConfigError, match="to its end by an earlier attempt"):
        client.load(source, "kept", mode="replace")
    assert kept(client) == ROWS
    # And again: the refusal is no attempt that makes the next one pass.
    with pytest.raises(ConfigError, match="to its end by an earlier attempt"):
        client.load(source, "kept", mode="replace")
    assert kept(client) == ROWS


def test_a_second_attempt_does_not_keep_half_of_the_rows(client: LakebaseClient) -> None:
    client.load(ROWS, "kept")
    for rows in (iter([(4, "d"), (5, "e")]), ((i, str(i)) for i in range(4, 6))):
        # Refused before all was read, as an error of the network would have it.
        with pytest.raises(LoadError):
            client.load(rows, "kept", mode="replace", columns=["id", "nobody"])
        with pytest.raises(ConfigError, match="in part by an earlier attempt"):
            client.load(rows, "kept", mode="replace")
        assert kept(client) == ROWS


def test_a_generator_that_failed_is_not_empty(client: LakebaseClient) -> None:
    def failing() -> Iterator[tuple[int, str]]:
        if ROWS:
            raise OSError("the network")
        yield 1, "a"

    client.load(ROWS, "kept")
    rows = failing()
    with pytest.raises(OSError, match="the network"):
        client.load(rows, "kept", mode="replace")
    with pytest.raises(ConfigError, match="earlier attempt"):
        client.load(rows, "kept", mode="replace")
    assert kept(client) == ROWS


def _filtered(rows: Iterator[Any]) -> Iterator[Any]:
    for row in rows:
        if row:
            yield row


class _Reader:
    """An iterator of somebody's own, around another one."""

    def __init__(self, rows: Iterator[Any]) -> None:
        self._rows = rows

    def __iter__(self) -> _Reader:
        return self

    def __next__(self) -> Any:
        return next(self._rows)


WRAPPED: dict[str, Callable[[Any], Any]] = {
    "expression": lambda rows: (row for row in rows),
    "function": _filtered,
    "map": lambda rows: map(tuple, rows),
    "filter": lambda rows: filter(None, rows),
    "islice": lambda rows: itertools.islice(rows, 9),
    "chain": lambda rows: itertools.chain(rows, rows),
    "zip": lambda rows: zip(rows, itertools.count(), strict=False),
    "own": _Reader,
    "nested": lambda rows: map(tuple, filter(None, (row for row in _filtered(rows)))),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("begin", [_generator, lambda: iter(ROWS)], ids=["generator", "iterator"])
def test_what_reads_from_a_source_that_was_loaded_does_not_empty_the_table(
    client: LakebaseClient, begin: Callable[[], Iterator[Any]], wrap: Callable[[Any], Any]
) -> None:
    rows = begin()
    client.load(rows, "kept", mode="replace")
    wrapped = wrap(rows)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"read before|by an earlier attempt"):
            client.load(wrapped, "kept", mode="replace")
        assert kept(client) == ROWS


@pytest.mark.parametrize("wrap", [lambda rows: rows, *WRAPPED.values()], ids=["itself", *WRAPPED])
def test_a_generator_that_others_have_read_does_not_empty_the_table(
    client: LakebaseClient, wrap: Callable[[Any], Any]
) -> None:
    client.load(ROWS, "kept")
    spent, closed, begun = _generator(), _generator(), (row for row in ROWS[:1])
    assert [*spent] == ROWS
    closed.close()
    next(begun)
    for rows in map(wrap, (spent, closed, begun)):
        for _ in range(2):
            with pytest.raises(ConfigError, match=r"read before|by an earlier attempt"):
                client.load(rows, "kept", mode="replace")
            assert kept(client) == ROWS


def test_a_generator_whose_header_was_taken_is_loaded(client: LakebaseClient) -> None:
    rows: Iterator[Any] = (row for row in [("id", "name"), *ROWS])
    client.load(rows, "kept", mode="replace", columns=next(rows))
    assert kept(client) == ROWS


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_no_rows_in_a_wrapper_replace_where_that_is_said(
    client: LakebaseClient, wrap: Callable[[Any], Any]
) -> None:
    client.load(ROWS, "kept")
    empty = (row for row in ROWS[:0])
    for rows in (wrap(empty), wrap(iter([]))):
        with pytest.raises(ConfigError, match="allow_empty=True"):
            client.load(rows, "kept", mode="replace")
        assert kept(client) == ROWS
        for _ in range(2):
            client.load(rows, "kept", mode="replace", allow_empty=True)
            assert kept(client) == []
        client.load(ROWS, "kept")


def _drained(source: Any) -> Any:
    """What somebody else has read to its end."""
    if hasattr(source, "fetchall"):
        source.fetchall()
    elif hasattr(source, "read_all"):
        source.read_all()
    else:
        assert [*source]
    return source


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: (row for row in rows)], ids=["it", "in"])
@pytest.mark.parametrize("options", [{"mode": "replace"}, {"mode": "merge", "delete": "missing"}], ids=str)
def test_what_others_have_used_up_empties_no_table(
    client: LakebaseClient, source: Any, options: Any, wrap: Callable[[Any], Any]
) -> None:
    client.load(ROWS, "kept")
    _drained(source)
    for create in (False, True):
        with pytest.raises(ConfigError):
            client.load(wrap(source), "kept", **options, create=create)
    assert kept(client) == ROWS


def test_what_can_be_read_again_may_be_empty(client: LakebaseClient) -> None:
    schema = pa.schema({"id": pa.int64(), "name": pa.string()})
    for none in ([], (), {}.keys(), schema.empty_table(), schema.empty_table().to_pandas()):
        client.load(ROWS, "kept", mode="replace")
        client.load(none, "kept", mode="replace")
        assert kept(client) == []


@pytest.mark.parametrize("name", [None, "named"])
def test_a_cursor_that_was_fetched_from_replaces_nothing(client: LakebaseClient, name: str | None) -> None:
    run(client, "create table origin as select * from (values (1, 'a'), (2, 'b'), (3, 'c')) v (id, name)")
    client.load(ROWS, "kept")
    with client.connection() as connection:
        cursor: Any = connection.cursor() if name is None else connection.cursor(name)
        cursor.execute("select id, name from origin order by 1")
        cursor.fetchone()
        with pytest.raises(ConfigError, match="in part before"):
            client.load(cursor, "kept", mode="replace")
        assert kept(client) == ROWS
        cursor.close()


def test_no_rows_from_the_beginning_replace_as_often_as_one_likes(client: LakebaseClient) -> None:
    for empty in (
        iter([]),
        (row for row in ROWS[:0]),
        _cursor().execute("select id, name from t where id > 9"),
    ):
        client.load(ROWS, "kept", mode="replace")
        for _ in range(3):
            client.load(empty, "kept", mode="replace", columns=None, allow_empty=True)
            assert kept(client) == []


def test_what_can_be_read_again_is(client: LakebaseClient) -> None:
    table = pa.table({"id": [1, 2, 3], "name": ["a", "b", "c"]})
    for again in (ROWS, tuple(ROWS), table, dict.fromkeys(ROWS).keys()):
        for _ in range(3):
            client.load(again, "kept", mode="replace")
            assert kept(client) == ROWS


def test_a_cursor_may_run_another_statement(client: LakebaseClient) -> None:
    cursor = _cursor()
    client.load(cursor, "kept", mode="replace")
    client.load(cursor.execute("select id, name from t where id > 1"), "kept", mode="replace")
    assert kept(client) == ROWS[1:]
    with pytest.raises(ConfigError, match="read before"):
        client.load((row for row in cursor), "kept", mode="replace")
    assert kept(client) == ROWS[1:]
    cursor.execute("select id, name from t where id > 5")
    client.load((row for row in cursor), "kept", mode="replace", allow_empty=True)
    assert kept(client) == []
    client.load(
        cursor.execute("select id, name from t where id > 5"), "kept", mode="replace", allow_empty=True
    )
    assert kept(client) == []


@pytest.mark.parametrize("name", [None, "named"])
def test_a_cursor_of_psycopg_counts_its_rows(client: LakebaseClient, name: str | None) -> None:
    run(client, "create table origin as select * from (values (1, 'a'), (2, 'b'), (3, 'c')) v (id, name)")
    query = "select id, name from origin where id > %s"
    with client.connection() as connection:
        cursor: Any = connection.cursor() if name is None else connection.cursor(name)
        client.load(cursor.execute(query, (0,)), "kept", mode="replace")
        assert kept(client) == ROWS
        with pytest.raises(ConfigError, match="to its end"):
            client.load(cursor, "kept", mode="replace")
        for least in (1, 7, 0):
            if name is not None:
                cursor.close()
                cursor = connection.cursor(name)
            client.load(cursor.execute(query, (least,)), "kept", mode="replace", allow_empty=True)
            assert kept(client) == ROWS[least:]
        cursor.close()


def test_a_feed_that_goes_on_after_its_end_may_be_read_on(client: LakebaseClient) -> None:
    class Feed:
        def __init__(self) -> None:
            self.rows: list[tuple[int, str]] = []

        def __iter__(self) -> Feed:
            return self

        def __next__(self) -> tuple[int, str]:
            if not self.rows:
                raise StopIteration
            return self.rows.pop(0)

    feed = Feed()
    for row in ROWS:
        feed.rows = [row]
        client.load(feed, "kept")
    assert kept(client) == ROWS


def test_a_pipeline_does_not_take_it_for_none(client: LakebaseClient) -> None:
    rows = _generator()
    assert client.executemany_pipeline("insert into kept values (%s, %s)", rows) == 3
    with pytest.raises(ConfigError, match="to its end"):
        client.executemany_pipeline("insert into kept values (%s, %s)", rows)
    broken = iter([(4, "d"), (1, "again"), (5, "e")])
    with pytest.raises(LoadError):
        client.executemany_pipeline("insert into kept values (%s, %s)", broken)
    with pytest.raises(ConfigError, match="earlier attempt"):
        client.executemany_pipeline("insert into kept values (%s, %s)", broken)
    assert kept(client) == ROWS


def test_a_row_of_none_is_no_row(client: LakebaseClient) -> None:
    with pytest.raises(ConfigError, match="NoneType"):
        client.load([None], "kept")


def test_what_is_gone_is_not_remembered() -> None:
    before = len(seen._records)
    for _ in range(100):
        items, reading = seen.read_once(row for row in ROWS)
        assert list(items) == ROWS
        reading.close()
        del items, reading
    for _ in range(100):
        items, reading = seen.read_once(iter(ROWS))
        assert list(items) == ROWS
        reading.close()
    gc.collect()
    assert len(seen._records) <= before + seen._HELD
    assert len(seen._held) <= seen._HELD


PYTHONS_OWN: dict[str, Callable[[], Any]] = {
    "list": lambda: iter(ROWS),
    "tuple": lambda: iter(tuple(ROWS)),
    "dict": lambda: iter(dict.fromkeys(ROWS)),
    "values": lambda: iter(dict(enumerate(ROWS)).values()),
    "reversed": lambda: reversed(ROWS),
    "map": lambda: map(tuple, ROWS),
    "filter": lambda: filter(None, iter(ROWS)),
    "zip": lambda: zip([1, 2, 3], "abc", strict=True),
    "islice": lambda: itertools.islice(ROWS, 9),
    "chain": lambda: itertools.chain(ROWS[:1], ROWS[1:]),
}


@pytest.mark.parametrize("name", PYTHONS_OWN)
def test_what_others_have_used_up_is_told_where_nothing_would_be_removed(
    client: LakebaseClient, name: str
) -> None:
    client.load(ROWS, "kept")
    rows = PYTHONS_OWN[name]()
    assert [*rows]
    for given in (rows, (row for row in rows), rows):
        with pytest.raises(ConfigError, match=r"read before|by an earlier attempt"):
            client.load(given, "kept")
    assert kept(client) == ROWS


@pytest.mark.parametrize(
    "empty",
    [[], (), {}, {}.values(), set(), map(tuple, []), itertools.chain()],
    ids=lambda empty: type(empty).__name__,
)
def test_what_never_had_rows_is_no_error(client: LakebaseClient, empty: Any) -> None:
    assert client.load(iter(empty), "kept").rows == 0


class _Once:
    """Looks as if it could be read again, and has nothing then."""

    def __init__(self) -> None:
        self._rows = list(ROWS)

    def __iter__(self) -> Iterator[Any]:
        while self._rows:
            yield self._rows.pop(0)


class _Flagged(_Once):
    _done = False

    def __iter__(self) -> Iterator[Any]:
        yield from () if self._done else ROWS
        self._done = True


@pytest.mark.parametrize("made", [_Once, _Flagged])
@pytest.mark.parametrize("options", [{"mode": "replace"}, {"mode": "merge", "delete": "missing"}], ids=str)
def test_what_only_looks_as_if_it_could_be_read_again_empties_no_table(
    client: LakebaseClient, made: Any, options: Any
) -> None:
    rows = made()
    client.load(rows, "kept", **options)
    assert kept(client) == ROWS
    with pytest.raises(ConfigError, match=f"{made.__name__}.*is empty, and would remove"):
        client.load(rows, "kept", **options)
    with pytest.raises(ConfigError, match="is empty, and would remove"):
        client.load(_drained(made()), "kept", **options)
    assert kept(client) == ROWS
    client.load(rows, "kept", **options, allow_empty=True)
    assert kept(client) == []
