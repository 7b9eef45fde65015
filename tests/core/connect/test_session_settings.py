"""Rows move unchanged whatever their user, role or database has set the session to."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from psycopg.pq import TransactionStatus

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.load.load import load
from lakebase_provider.core.bulk.load.result import Mode
from lakebase_provider.core.bulk.read.batches import read_batches
from lakebase_provider.core.errors import BadRowError
from tests.core.bulk.sample_tables import run

_MOMENT = datetime(2001, 10, 28, 0, 30, tzinfo=timezone.utc)
_WRITTEN = "it's \\ a\té€\x7f\"{}"
#: By type, a value whose text, or the way in which it is read, is a matter of settings.
_VALUES: dict[str, Any] = {
    "bigint": 2**60,
    "float8": 0.1 + 0.2,
    "numeric": Decimal("12345678901234567890.123456789"),
    "text": _WRITTEN,
    "bytea": b"\x00\\\xff'",
    "date": date(1999, 2, 3),
    "time": time(1, 2, 3, 4567),
    "timetz": time(1, 2, 3, tzinfo=timezone(timedelta(hours=2))),
    "timestamp": datetime(2001, 2, 3, 4, 5, 6, 789),
    "timestamptz": _MOMENT,
    "interval": timedelta(days=-400, seconds=3, microseconds=7),
    "jsonb": {"a": [1.5, None, _WRITTEN]},
    "text[]": ["a\\", 'b,"c{', _WRITTEN],
    "date[]": [date(1999, 2, 3)],
    "timestamptz[]": [_MOMENT],
    "interval[]": [timedelta(days=-40, hours=5)],
    "bytea[]": [b"\x00\\"],
}
_NAMES = [f"c{number}" for number in range(len(_VALUES))]
_QUERY = f"SELECT {', '.join(_NAMES)} FROM public.{{}} WHERE c3 <> 'é'"

_SETTINGS = [
    "TimeZone TO 'America/St_Johns'", "TimeZone TO 'Europe/Berlin'",
    "DateStyle TO 'German, DMY'", "DateStyle TO 'SQL, MDY'", "DateStyle TO 'Postgres, DMY'",
    "IntervalStyle TO 'sql_standard'", "IntervalStyle TO 'iso_8601'", "IntervalStyle TO 'postgres_verbose'",
    "client_encoding TO 'LATIN9'", "client_encoding TO 'SQL_ASCII'", "standard_conforming_strings TO off",
    "extra_float_digits TO -5", "bytea_output TO 'escape'", "search_path TO ''", "work_mem TO '64kB'",
    "default_transaction_isolation TO 'serializable'",
]  # fmt: skip


@pytest.fixture
def expected(client: LakebaseClient) -> Any:
    """The rows as a session with the server's own settings writes and reads them."""
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(_NAMES, _VALUES, strict=True))
    for name in ("expected", "t"):
        run(client, f"CREATE TABLE {name} ({columns}, PRIMARY KEY (c0))")
    client.load([tuple(_VALUES.values())], "expected")
    return client.fetch_arrow(_QUERY.format("expected"))


@pytest.mark.parametrize("setting", _SETTINGS)
@pytest.mark.parametrize("mode", ["append", "merge", "replace"])
def test_rows_are_written_and_read_alike(
    client: LakebaseClient, expected: pa.Table, mode: Mode, setting: str
) -> None:
    with client.connect() as connection:
        connection.execute(f"SET {setting}")
        connection.commit()
        name = setting.partition(" ")[0]
        before = connection.info.parameter_status(name)
        load(connection, [tuple(_VALUES.values())], "public.t", mode=mode)
        assert connection.info.parameter_status(name) == before
        with read_batches(connection, _QUERY.format("t")) as batches:
            assert batches.read_all() == expected
        assert connection.info.parameter_status(name) == before
        with pytest.raises(BadRowError):
            load(connection, [("no number", *list(_VALUES.values())[1:])], "public.t", mode=mode)
        assert connection.info.parameter_status(name) == before
        connection.rollback()
        assert connection.info.parameter_status(name) == before
        load(connection, [tuple(_VALUES.values())], "public.t", mode=mode)
        connection.commit()
    assert run(client, "SELECT count(*) FROM t JOIN expected ON t::text = expected::text") == [(1,)]


@pytest.mark.parametrize("source", ["rows", "arrow"])
@pytest.mark.parametrize("autocommit", [False, True])
def test_copy_is_in_utf8_both_ways(client: LakebaseClient, source: str, autocommit: bool) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, v text)")
    rows = [{"id": 1, "v": "café €"}]
    with client.connect(autocommit=autocommit) as connection:
        connection.execute("SET client_encoding TO 'LATIN9'")
        result = load(connection, pa.Table.from_pylist(rows) if source == "arrow" else rows, "t")
        assert result.format == ("binary" if source == "arrow" else "text")
        with read_batches(connection, "SELECT * FROM t WHERE v <> %s", ["é"]) as batches:
            assert batches.read_all().to_pylist() == rows
        assert connection.info.encoding == "iso8859-15"
        connection.commit()
    assert run(client, "SELECT * FROM t") == [(1, "café €")]


def test_what_is_set_for_a_transaction_does_not_outlive_it(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, v interval)")
    own = {"work_mem": "1MB", "IntervalStyle": "sql_standard", "client_encoding": "LATIN9"}
    own["TimeZone"] = "Europe/Berlin"

    with client.connect() as connection:

        def now() -> dict[str, Any]:
            return {name: (connection.execute(f"SHOW {name}".encode()).fetchone() or ())[0] for name in own}

        session = now()
        connection.commit()
        for name, value in own.items():
            connection.execute(f"SET LOCAL {name} TO '{value}'")
        load(connection, [(1, timedelta(days=-1, seconds=1))], "t", mode="merge")
        with read_batches(connection, "SELECT * FROM t") as batches:
            batches.read_all()
        assert now() == own
        connection.commit()
        assert now() == session


def test_a_read_that_is_left_early_or_outlives_its_transaction_sets_the_session_back(
    client: LakebaseClient,
) -> None:
    with client.connect() as connection:
        connection.execute("SET client_encoding TO 'LATIN9'")
        connection.commit()
        with read_batches(connection, "SELECT generate_series(1, 1000000)") as batches:
            next(batches)
        connection.rollback()
        assert connection.info.encoding == "iso8859-15"
        # COPY keeps the connection until the context is left; a cursor, which runs all else, does not.
        with read_batches(connection, "SHOW server_version") as batches:
            batches.read_all()
            connection.commit()
        assert connection.info.encoding == "iso8859-15"
        assert connection.info.transaction_status == TransactionStatus.IDLE


def test_the_encoding_of_the_environment_is_not_taken(
    client: LakebaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with client.connect() as connection:
        assert connection.info.encoding == "utf-8"
        assert connection.execute("SELECT 'é€'".encode()).fetchone() == ("é€",)
