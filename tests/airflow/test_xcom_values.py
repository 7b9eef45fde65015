"""What statements return reaches XCom as the documentation says, or nothing is committed."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from lakebase_provider.core.errors import StatementError
from lakebase_provider.decorators.sql import _LakebaseSqlDecoratedOperator
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase

try:
    from airflow.sdk.serde import deserialize, serialize

    STORES_UUIDS = True
except ModuleNotFoundError:  # Airflow 3.1
    from airflow.serialization.serde import deserialize, serialize

    STORES_UUIDS = False
from lakebase_provider.operators.sql import LakebaseSqlOperator


def pulled(value: Any) -> Any:
    """What the next task gets: through Airflow's own serializers, and JSON as its API server takes it."""
    return deserialize(json.loads(json.dumps(serialize(value), allow_nan=False)))


def run(sql: str, **arguments: Any) -> Any:
    context: Any = {}
    return LakebaseSqlOperator(task_id="sql", sql=sql, **arguments).execute(context)


AN_ID = "12345678-1234-5678-1234-567812345678"
#: What is selected, and what the next task gets; text is as Postgres reads it.
VALUES: list[tuple[str, Any]] = [
    ("1::int2", 1),
    ("9223372036854775807", 2**63 - 1),
    ("true", True),
    ("'ä'::text", "ä"),
    ("null", None),
    ("1.5::float8", 1.5),
    ("'NaN'::float8", "NaN"),
    ("'-Infinity'::float4", "-Infinity"),
    ("1.10::numeric", Decimal("1.1")),
    ("12345678901234567890.123456789", "12345678901234567890.123456789"),
    ("1e30::numeric", "1000000000000000000000000000000"),
    ("'NaN'::numeric", "NaN"),
    ("'Infinity'::numeric", "Infinity"),
    ("'2026-01-02'::date", dt.date(2026, 1, 2)),
    ("'03:04:05.5'::time", "03:04:05.500000"),
    ("'03:04:05+02'::timetz", "03:04:05+02:00"),
    ("'2026-01-02 03:04:05.123456'::timestamp", dt.datetime(2026, 1, 2, 3, 4, 5, 123456)),
    ("'0001-01-01'::timestamp", "0001-01-01 00:00:00"),
    ("'2026-01-02 03:04:05+00'::timestamptz", dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc)),
    ("'9999-12-31 23:59:59.999999+00'::timestamptz", "9999-12-31 23:59:59.999999+00:00"),
    ("'1 day 2 hours'::interval", dt.timedelta(days=1, hours=2)),
    ("'900000 days 1 microsecond'::interval", "900000 days 0:00:00.000001"),
    ("'1 mon'::interval", "1 mon"),
    ("'-1 year -2 mons +3 days 04:00'::interval", "-1 years -2 mons +3 days 04:00:00"),
    ("array['1 mon'::interval, '1 day']", ["1 mon", dt.timedelta(days=1)]),
    ("'170000000 years'::interval", "170000000 years"),
    ("'infinity'::date", "infinity"),
    ("'0044-03-15 BC'::date", "0044-03-15 BC"),
    ("'24:00'::time", "24:00:00"),
    ("'-infinity'::timestamptz", "-infinity"),
    ("array['infinity'::timestamp]", ["infinity"]),
    ("'[0.12345678901234567890123, 0.1, 1.50, 1e2]'::jsonb", ["0.12345678901234567890123", 0.1, 1.5, 100]),
    ("'{\"a\": 1e400, \"b\": 1e-400}'::json", {"a": "1e400", "b": "1e-400"}),
    ("'00ff'::bytea", "\\x30306666"),
    ("'10.0.0.1'::inet", "10.0.0.1"),
    ("'10.0.0.1/8'::inet", "10.0.0.1/8"),
    ("'10.0.0.0/8'::cidr", "10.0.0.0/8"),
    ("'::1'::inet", "::1"),
    ("'08:00:2b:01:02:03'::macaddr", "08:00:2b:01:02:03"),
    (f"'{AN_ID}'::uuid", UUID(AN_ID) if STORES_UUIDS else AN_ID),
    ("'[1,5)'::int4range", "[1,5)"),
    ("'empty'::int4range", "empty"),
    ("'(,)'::numrange", "(,)"),
    ("'[2026-01-01 00:00,)'::tsrange", '["2026-01-01 00:00:00",)'),
    ("'{[1,2),[5,7)}'::int4multirange", "{[1,2),[5,7)}"),
    ("'{\"a\": [1.5, null, \"x\"], \"b\": 12345678901234567890123}'::jsonb",
     {"a": [1.5, None, "x"], "b": "12345678901234567890123"}),
    ("array['10.0.0.1'::inet, null]", ["10.0.0.1", None]),
    ("array[array['01:00'::time]]", [["01:00:00"]]),
    ("row(1, 'x')", ("1", "x")),
    ("b'101'", "101"),
    ("'1.50'::money", "$1.50"),
    ("'(1,2)'::point", "(1,2)"),
]  # fmt: skip


@pytest.mark.parametrize(("selected", "expected"), VALUES, ids=[selected[:40] for selected, _ in VALUES])
def test_each_type_reaches_the_next_task_as_documented(
    lake: LocalLakebase, selected: str, expected: Any
) -> None:
    assert pulled(run(f"select {selected}")) == [(expected,)]


@pytest.mark.parametrize(("selected", "expected"), VALUES, ids=[selected[:40] for selected, _ in VALUES])
def test_what_is_text_for_xcom_is_the_same_value_for_postgres(
    lake: LocalLakebase, selected: str, expected: Any
) -> None:
    if isinstance(expected, str):
        (kind,) = LakebaseHook().get_first(f"select pg_typeof({selected})::text")
        kind = "varbit" if kind == "bit" else kind
        same = f"select (%s::text)::{kind}::text = ({selected.replace('%', '%%')})::text"
        assert LakebaseHook().get_first(same, parameters=(expected,)) == (True,)


def test_a_write_that_returns_such_values_is_committed_once_and_pushed(lake: LocalLakebase) -> None:
    run("drop table if exists odd; create table odd (a inet, t time, b bytea, r int4range)")
    sql = "insert into odd values ('10.0.0.1', '01:02', 'x', '[1,2)') returning *"
    assert pulled(run(sql)) == [("10.0.0.1", "01:02:00", "\\x78", "[1,2)")]
    context: Any = {}
    decorated = _LakebaseSqlDecoratedOperator(task_id="sql", python_callable=lambda: sql)
    assert pulled(decorated.execute(context)) == [("10.0.0.1", "01:02:00", "\\x78", "[1,2)")]
    one = run(sql, handler=lambda cursor: cursor.fetchone()[3], hook_params={"cursor": "namedtuplecursor"})
    assert pulled(one) == "[1,2)"
    rows = pulled(run("select * from odd limit 1", hook_params={"cursor": "dictcursor"}))
    assert rows == [{"a": "10.0.0.1", "t": "01:02:00", "b": "\\x78", "r": "[1,2)"}]
    named = run("select * from odd limit 1", hook_params={"cursor": "namedtuplecursor"})
    assert pulled(named) == [("10.0.0.1", "01:02:00", "\\x78", "[1,2)")]
    assert LakebaseHook().get_first("select count(*) from odd") == (3,)


@pytest.mark.parametrize(
    ("returned", "handler"),
    [
        ("""'{"__classname__": "x", "__version__": 1}'::jsonb""", None),
        (r"""'{"a": "\ud800"}'::json""", None),
        ("array_fill('{}'::json, array[1])", lambda cursor: object()),
        ("1", lambda cursor: [1, {"x": [complex(1)]}]),
        ("1", lambda cursor: cursor),
    ],
)
def test_what_xcom_cannot_take_is_refused_before_the_commit(
    lake: LocalLakebase, returned: str, handler: Any
) -> None:
    run("drop table if exists refused; create table refused (i int)")
    arguments = {} if handler is None else {"handler": handler}
    with pytest.raises(AirflowFailException) as caught:
        run(f"insert into refused values (1) returning {returned}", **arguments)
    assert isinstance(caught.value.__cause__, StatementError)
    assert "XCom cannot store" in str(caught.value.__cause__)
    assert LakebaseHook().get_first("select count(*) from refused") == (0,)
    # What is not pushed, or an output_processor's to make something of, is nobody's concern.
    kept = f"insert into refused values (1) returning {returned}"
    assert run(kept, do_xcom_push=False, **arguments) is None
    assert run(kept, output_processor=lambda results, _: [len(results)], **arguments) == 1


def test_a_moment_that_the_workers_zone_skips_is_text(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    try:
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("TZ", "Europe/Berlin")
            time.tzset()
            assert pulled(run("select '2026-03-29 02:30'::timestamp")) == [("2026-03-29 02:30:00",)]
    finally:
        time.tzset()
    zoned = run("set timezone to 'Europe/Berlin'; select '2026-10-25 01:30+00'::timestamptz")
    assert pulled(zoned)[0][0].astimezone(ZoneInfo("UTC")).hour == 1


async def test_the_triggerer_hands_on_no_values(lake: LocalLakebase, tmp_path: Path) -> None:
    from lakebase_provider.triggers.sql import LakebaseSqlTrigger
    from tests.airflow.test_triggers import event_of

    event = await event_of(
        LakebaseSqlTrigger(conn_id="lakebase_default", sql=["select '10.0.0.1'::inet, b'1'"])
    )
    assert event == {"status": "success", "rows": [1]}
    await LakebaseHook().client.aclose()


def test_a_handler_still_works_with_pythons_values(lake: LocalLakebase) -> None:
    sql = """select '1 mon'::interval, '{"a": 0.12345678901234567890123}'::jsonb"""
    days, number = run(sql, handler=lambda cursor: [(row[0].days, row[1]["a"] * 2) for row in cursor])[0]
    assert (days, number) == (30, 0.12345678901234567890123 * 2)
