from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import psycopg
import pytest

from lakebase_provider.core import InspectionReport, LakebaseClient
from lakebase_provider.core.errors import ConfigError, HealthCheckError
from lakebase_provider.core.upkeep.inspection import checks, inspecting
from lakebase_provider.core.upkeep.inspection.checks import CHECK_NAMES, CHECKS, Check, Limit
from lakebase_provider.core.upkeep.inspection.inspection_options import limits_of
from lakebase_provider.local import LocalLakebase
from tests.eventually import eventually
from tests.own_server import lakebase_server as lakebase_server

FLUSH = "SELECT pg_stat_force_next_flush()"
BY_HAND = "WITH (autovacuum_enabled = false)"


class Ill(NamedTuple):
    """A database that has what a check is for: statements of the role, and what is said of it."""

    statements: Sequence[str]
    found: str
    limits: dict[str, Any] = {}  # noqa: RUF012 # never changed
    status: str = "warn"


OF_TABLES = {
    "dead_rows": Ill(
        (
            f"CREATE TABLE dead (n int) {BY_HAND}",
            "INSERT INTO dead SELECT generate_series(1, 30000)",
            "DELETE FROM dead WHERE n <= 15000",
            FLUSH,
        ),
        "public.dead",
        status="bad",
    ),
    "bloat": Ill(
        (
            f"CREATE TABLE swollen (n int, t text) {BY_HAND}",
            "INSERT INTO swollen SELECT n, repeat('x', 150) FROM generate_series(1, 70000) n",
            "DELETE FROM swollen WHERE n % 5 > 0 AND n < 70000",
            "VACUUM ANALYZE swollen",
        ),
        "public.swollen",
        status="bad",
    ),
    "duplicate_indexes": Ill(
        (
            "CREATE TABLE twice (id int PRIMARY KEY, a int, b int)",
            "CREATE INDEX twice_a_b ON twice (a, b)",
            "CREATE INDEX twice_a ON twice (a)",
        ),
        "public.twice_a",
    ),
    "unused_indexes": Ill(
        (
            "CREATE TABLE used (n int, m int)",
            "INSERT INTO used SELECT n, n FROM generate_series(1, 80000) n",
            "CREATE INDEX used_m ON used (m)",
        ),
        "public.used_m",
    ),
    "missing_indexes": Ill(
        (
            "CREATE TABLE searched (n int)",
            "INSERT INTO searched SELECT generate_series(1, 12000)",
            "ANALYZE searched",
            *["SELECT count(*) FROM searched WHERE n = 5"] * 60,
            FLUSH,
        ),
        "public.searched",
    ),
    "unindexed_foreign_keys": Ill(
        (
            "CREATE TABLE parent (id int PRIMARY KEY)",
            "INSERT INTO parent SELECT generate_series(1, 10)",
            "CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent)",
            "INSERT INTO child SELECT n, n % 10 + 1 FROM generate_series(1, 12000) n",
            "ANALYZE child",
        ),
        "public.child",
    ),
    "sequences": Ill(
        (
            "CREATE TABLE small (id smallserial PRIMARY KEY)",
            "SELECT setval('small_id_seq', 30000)",
        ),
        "public.small_id_seq",
        status="bad",
    ),
    "partitions": Ill(
        (
            "CREATE TABLE events (day date) PARTITION BY RANGE (day)",
            "CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')",
        ),
        "public.events",
        status="bad",
    ),
    "stale_statistics": Ill(
        (
            f"CREATE TABLE stale (n int) {BY_HAND}",
            "INSERT INTO stale SELECT generate_series(1, 12000)",
            FLUSH,
        ),
        "public.stale",
    ),
    "tables_without_primary_key": Ill(("CREATE TABLE keyless (n int)",), "public.keyless"),
    "connections": Ill((), "all databases", {"connections": (0.0001, 0.0002)}, "bad"),
    "xid_age": Ill((), "databricks_postgres", {"xid_age": 1}),
    "database_size": Ill((), "database databricks_postgres", {"database_size": 1}),
    "cache_hit_rate": Ill(
        (
            "CREATE TABLE big (id int PRIMARY KEY, n int)",
            "INSERT INTO big SELECT n, n FROM generate_series(1, 20000) n",
            *["SELECT count(n) FROM big"] * 100,
            FLUSH,
        ),
        "databricks_postgres",
        {"cache_hit_rate": 1},
    ),
}


def run(client: LakebaseClient, statements: Sequence[str]) -> None:
    with client.connect(autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def names_of(report: InspectionReport, check: str) -> set[str]:
    return {one.name for one in report.finding(check).objects}


@pytest.mark.parametrize("check", OF_TABLES)
def test_a_check_finds_what_it_is_for_and_nothing_where_it_is_not(client: LakebaseClient, check: str) -> None:
    ill = OF_TABLES[check]
    well = client.inspect([check], statistics_days=0).finding(check)
    assert well.status == "ok"
    assert well.remedy == ""
    run(client, ill.statements)
    report = client.inspect([check], limits=ill.limits, statistics_days=0)
    finding = report.finding(check)
    assert (finding.status, report.status) == (ill.status, ill.status)
    assert finding.objects[0].name == ill.found
    assert finding.remedy
    assert ill.found in str(finding)


def test_an_index_that_was_not_built_to_its_end_is_invalid(client: LakebaseClient) -> None:
    run(client, ("CREATE TABLE doubled (n int)", "INSERT INTO doubled VALUES (1), (1)"))
    assert client.inspect(["invalid_indexes"]).ok
    with pytest.raises(psycopg.errors.UniqueViolation):
        run(client, ("CREATE UNIQUE INDEX CONCURRENTLY doubled_n ON doubled (n)",))
    report = client.inspect(["invalid_indexes"])
    assert names_of(report, "invalid_indexes") == {"public.doubled_n"}
    assert "REINDEX INDEX CONCURRENTLY" in report.finding("invalid_indexes").remedy


def test_an_index_that_does_something_of_its_own_is_no_duplicate(client: LakebaseClient) -> None:
    run(
        client,
        (
            "CREATE TABLE kept (id int PRIMARY KEY, a int, b text)",
            "CREATE INDEX kept_a ON kept (a)",
            "CREATE UNIQUE INDEX kept_a_unique ON kept (a) WHERE b = 'x'",
            "CREATE INDEX kept_b_a ON kept (b, a)",
            "CREATE INDEX kept_b_desc ON kept (b DESC)",
            'CREATE INDEX kept_b_c ON kept (b COLLATE "C")',
            "CREATE INDEX kept_hash ON kept USING hash (a)",
            "CREATE INDEX kept_lower ON kept (lower(b))",
            "CREATE INDEX kept_upper ON kept (upper(b))",
        ),
    )
    assert client.inspect(["duplicate_indexes"]).ok
    run(
        client,
        (
            "CREATE INDEX again_lower ON kept ( lower(b) )",
            "CREATE INDEX again_id ON kept (id)",
            "CREATE INDEX again_b ON kept (b)",
            "CREATE INDEX again_partial ON kept (a) WHERE b = 'x'",
        ),
    )
    report = client.inspect(["duplicate_indexes"])
    assert names_of(report, "duplicate_indexes") == {
        *("public.again_lower", "public.again_id", "public.again_b", "public.again_partial")
    }


def test_partitions_that_go_on_or_that_have_no_time_are_well(client: LakebaseClient) -> None:
    run(
        client,
        (
            "CREATE TABLE endless (at timestamptz) PARTITION BY RANGE (at)",
            "CREATE TABLE endless_1 PARTITION OF endless FOR VALUES FROM ('2024-01-01') TO (MAXVALUE)",
            "CREATE TABLE later (at timestamp) PARTITION BY RANGE (at)",
            "CREATE TABLE later_1 PARTITION OF later FOR VALUES FROM ('2024-01-01') TO ('2999-01-01')",
            "CREATE TABLE numbers (n int) PARTITION BY RANGE (n)",
            "CREATE TABLE numbers_1 PARTITION OF numbers FOR VALUES FROM (1) TO (2)",
        ),
    )
    assert client.inspect(["partitions"]).finding("partitions").status == "ok"
    run(client, ("CREATE TABLE empty (at timestamptz) PARTITION BY RANGE (at)",))
    report = client.inspect(["partitions"])
    assert report.finding("partitions").value == 0
    assert names_of(report, "partitions") == {"public.empty"}


@contextmanager
def in_background(client: LakebaseClient, statement: str) -> Iterator[None]:
    """A statement that another session runs, until the block ends."""
    connection = client.connect(autocommit=True)

    def work() -> None:
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute(statement.encode())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        eventually(lambda: _canceled(connection, thread))
        connection.close()


def _canceled(connection: psycopg.Connection[Any], thread: threading.Thread) -> bool:
    connection.cancel_safe()
    thread.join(0.2)
    return not thread.is_alive()


@contextmanager
def idle(client: LakebaseClient) -> Iterator[None]:
    with client.connection() as connection:
        connection.execute("SELECT 1")
        yield


@contextmanager
def waiting(client: LakebaseClient) -> Iterator[None]:
    with client.connect() as holder:
        holder.execute("CREATE TABLE IF NOT EXISTS held (n int)")
        holder.commit()
        holder.execute("LOCK TABLE held IN ACCESS EXCLUSIVE MODE")
        with in_background(client, "SELECT * FROM held"):
            yield


SESSIONS: dict[str, tuple[Callable[[LakebaseClient], AbstractContextManager[None]], str]] = {
    "blocked_statements": (waiting, "SELECT waits for AccessShareLock on public.held, held by pid"),
    "long_statements": (lambda client: in_background(client, "SELECT pg_sleep(60)"), "SELECT"),
    "idle_in_transaction": (idle, "its transaction is 0 s old"),
}


@pytest.mark.parametrize("check", SESSIONS)
def test_a_session_that_is_in_the_way_is_named(client: LakebaseClient, check: str) -> None:
    ill, told = SESSIONS[check]
    limits = {check: (0.001, 1e9)}
    assert client.inspect([check], limits=limits).ok
    with ill(client):
        eventually(lambda: not client.inspect([check], limits=limits).ok)
        finding = client.inspect([check], limits=limits).finding(check)
    assert finding.status == "warn"
    assert finding.objects[0].name.startswith("pid ")
    assert "role " in finding.objects[0].name
    assert finding.objects[0].detail.startswith(told.removesuffix("0 s old"))
    # This role does not see what others do, and is told so.
    assert "pg_read_all_stats" in finding.reason


OF_THE_SERVER = {
    "roles_without_login": (
        "CREATE ROLE nobodys NOLOGIN",
        "DROP ROLE nobodys",
        "nobodys",
    ),
    "extension_versions": (
        "UPDATE pg_catalog.pg_extension SET extversion = '0.1' WHERE extname = 'plpgsql'",
        "UPDATE pg_catalog.pg_extension SET extversion = '1.0' WHERE extname = 'plpgsql'",
        "plpgsql",
    ),
    "replication_lag": (
        "SELECT pg_catalog.pg_create_physical_replication_slot('left_behind', true)",
        "SELECT pg_catalog.pg_drop_replication_slot('left_behind')",
        "slot left_behind",
    ),
}


@pytest.mark.parametrize("check", OF_THE_SERVER)
def test_what_is_wrong_with_the_server_is_found(
    client: LakebaseClient, lakebase_env: LocalLakebase, check: str
) -> None:
    there, back, name = OF_THE_SERVER[check]
    limits = {"replication_lag": 1}
    assert name not in names_of(client.inspect([check], limits=limits), check)
    lakebase_env.admin.execute(there)
    try:
        run(client, ("CREATE TABLE written (n int)",))
        report = client.inspect([check], limits=limits)
    finally:
        lakebase_env.admin.execute(back)
    assert report.status == "warn"
    assert name in names_of(report, check)


def test_growth_is_seen_beside_an_earlier_report(client: LakebaseClient) -> None:
    first = client.inspect(["database_size", "growth"])
    assert first.finding("growth").status == "skipped"
    assert "earlier report" in first.finding("growth").reason
    plain = first.to_dict()
    plain["taken_at"] = "2024-01-01T00:00:00Z"
    (size,) = (one for one in plain["findings"] if one["check"] == "database_size")
    size["value"] = 0.0
    grown = client.inspect(["growth"], earlier=plain, limits={"growth": 1}).finding("growth")
    assert grown.status == "warn"
    assert grown.value is not None
    assert 0 < grown.value < 1e6
    plain["database"] = "another"
    assert client.inspect(["growth"], earlier=plain).finding("growth").status == "skipped"


def test_young_statistics_judge_no_index(client: LakebaseClient) -> None:
    run(client, OF_TABLES["unused_indexes"].statements)
    finding = client.inspect(["unused_indexes"]).finding("unused_indexes")
    assert finding.status == "skipped"
    assert finding.value is None
    assert "may have been lost" in finding.reason


def test_statistics_that_a_suspend_has_lost_judge_no_index(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    run(client, OF_TABLES["unused_indexes"].statements)
    day = client.inspect(["unused_indexes"], statistics_days=0)
    assert day.finding("unused_indexes").status == "warn"
    lakebase_env.admin.crash_postgres()
    # As long as the server has run: what was counted before is gone.
    finding = client.inspect(["unused_indexes"], statistics_days=0.01).finding("unused_indexes")
    assert finding.status == "skipped"


def test_a_hundred_sequences_are_read_some_at_once_and_one_that_is_locked_costs_the_others_nothing(
    client: LakebaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_AT_ONCE", 7)
    monkeypatch.setattr(inspecting, "_LOCK_TIMEOUT", 0.05)
    run(
        client,
        [
            "CREATE SCHEMA counters",
            *(f"CREATE SEQUENCE counters.s_{n} AS smallint START {n * 300 + 1}" for n in range(20)),
        ],
    )
    run(
        client,
        (
            "CREATE SEQUENCE counters.falls AS smallint INCREMENT -1",
            "SELECT setval('counters.falls', -32000)",
        ),
    )
    with client.connect() as holder:
        holder.execute("DROP SEQUENCE counters.s_3")
        found = client.inspect(["sequences"], limits={"sequences": 0.0001}).finding("sequences")
    assert found.objects[0].name == "counters.falls"
    assert (len(found.objects), found.more) == (18 + 1, 0)  # s_0 has given none
    assert "counters.s_3" not in {one.name for one in found.objects}


def test_a_table_that_somebody_has_locked_holds_up_no_check(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    run(client, [one for ill in OF_TABLES.values() for one in ill.statements])
    with client.connect() as holder:
        holder.execute("CREATE INDEX CONCURRENTLY_not ON twice (b)")
        for name in ("dead", "swollen", "twice", "used", "searched", "child", "events", "stale", "keyless"):
            holder.execute(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE".encode())
        report = client.inspect(statistics_days=0)
    assert {one.check for one in report.of_status("skipped")} == {"growth"}


class InOneTransaction(inspecting._Server):
    """A server that is asked in one transaction, so that all locks are there at its end."""

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query.encode()).fetchall()


def test_checks_take_no_lock_but_access_share_on_the_catalog(client: LakebaseClient) -> None:
    run(client, [one for ill in OF_TABLES.values() for one in ill.statements])
    with client.connect() as connection:
        connection.execute("SET TRANSACTION READ ONLY")
        connection.execute("SET LOCAL datestyle = 'ISO, YMD'")
        server = InOneTransaction(connection, 10)
        found = {check.name: check.found(server, check.limit) for check in CHECKS}
        locks = connection.execute(
            "SELECT l.locktype, l.mode, c.relname, n.nspname, c.relkind FROM pg_locks l"
            " LEFT JOIN pg_class c ON c.oid = l.relation LEFT JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE l.pid = pg_backend_pid()"
        ).fetchall()
        written = connection.execute("SELECT pg_current_xact_id_if_assigned()").fetchone()
    assert found["sequences"]
    assert written == (None,)
    assert {(kind, mode) for kind, mode, *_ in locks} <= {
        ("relation", "AccessShareLock"),
        ("virtualxid", "ExclusiveLock"),  # of every transaction, on itself
    }
    others = {
        (name, kind) for _, _, name, schema, kind in locks if schema not in (None, "pg_catalog", "pg_toast")
    }
    assert {kind for _, kind in others} <= {"S"}


def test_a_check_that_would_write_or_that_the_server_refuses_is_skipped_with_the_reason(
    client: LakebaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(client, ("CREATE TABLE target (n int)",))
    own = CHECKS[0]
    rows = {
        "connections": "WITH w AS (INSERT INTO public.target VALUES (1) RETURNING n) SELECT '', n, '' FROM w",
        "xid_age": "SELECT 'x', 1, '' FROM pg_catalog.pg_authid",
        "dead_rows": "SELECT 'x', 1, '' FROM pg_catalog.pg_sleep(60)",
    }
    made = [Check(name, own.about, query, own.unit, own.remedy, own.limit) for name, query in rows.items()]
    monkeypatch.setattr(inspecting, "chosen", lambda _names: tuple(made))
    report = client.inspect(timeout=0.3)
    assert {one.status for one in report.findings} == {"skipped"}
    written, refused, slow = (one.reason for one in report.findings)
    assert "read-only transaction" in written
    assert "permission denied" in refused
    assert "statement timeout" in slow
    assert report.ok


def test_bloat_is_measured_where_pgstattuple_is_installed(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    run(client, OF_TABLES["bloat"].statements)
    lakebase_env.admin.execute(
        "CREATE FUNCTION public.pgstattuple_approx(regclass, OUT table_len bigint, OUT approx_free_percent"
        " float8, OUT dead_tuple_percent float8) LANGUAGE sql AS 'SELECT 1024::int8, 75::float8, 5::float8'"
    )
    try:
        # A function of that name is not trusted for its name.
        estimate = client.inspect(["bloat"]).finding("bloat").objects[0]
        assert estimate.detail.endswith("an estimate")
        lakebase_env.admin.execute(
            "INSERT INTO pg_catalog.pg_extension SELECT 999999, 'pgstattuple', 10,"
            " 'public'::regnamespace, true, '1.5'"
        )
        lakebase_env.admin.execute(
            "ALTER EXTENSION pgstattuple ADD FUNCTION public.pgstattuple_approx(regclass)"
        )
        measured = client.inspect(["bloat"]).finding("bloat").objects[0]
    finally:
        lakebase_env.admin.execute(
            "DELETE FROM pg_catalog.pg_depend WHERE refobjid = 999999;"
            "DELETE FROM pg_catalog.pg_extension WHERE oid = 999999;"
            "DROP FUNCTION public.pgstattuple_approx(regclass)"
        )
    assert measured == ("public.swollen", 0.8, "1024 bytes; measured")


def test_a_report_is_plain_and_comes_back(client: LakebaseClient) -> None:
    run(client, OF_TABLES["sequences"].statements)
    report = client.inspect(statistics_days=0)
    plain = json.loads(json.dumps(report.to_dict()))
    assert InspectionReport.from_dict(plain) == report
    assert plain["status"] == "bad"
    assert [one["check"] for one in plain["findings"]] == list(CHECK_NAMES)
    assert report.figures["sequences"] == plain["findings"][CHECK_NAMES.index("sequences")]["value"]
    with pytest.raises(ConfigError, match="no report"):
        InspectionReport.from_dict({"findings": 3})


def test_the_texts_say_what_is_not_well_first_and_show_hostile_names_as_text(client: LakebaseClient) -> None:
    run(client, ('CREATE TABLE "a|b<script>\x1b`\n" (n int)',))
    report = client.inspect(["connections", "tables_without_primary_key"])
    text, markdown = report.to_text(), report.to_markdown()
    assert "\x1b" not in text + markdown
    assert "    remedy: ALTER TABLE … ADD PRIMARY KEY." in text.splitlines()
    # As code, whose fence is longer than any in the name.
    assert '- `` public."a|b<script>\\x1b` " ``' in markdown
    assert "| tables_without_primary_key | **warn** | 1 | 1 |  |" in markdown


def test_what_is_bad_enough_fails(client: LakebaseClient) -> None:
    run(client, ("CREATE TABLE keyless (n int)",))
    report = client.inspect(["tables_without_primary_key"])
    report.enforce()
    with pytest.raises(HealthCheckError, match=r"tables_without_primary_key is 1: public.keyless\. ALTER"):
        report.enforce("warn")


def test_nothing_is_set_beyond_the_transaction_of_a_check(
    client: LakebaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a pooler the session is somebody else's afterwards."""
    names = ("default_transaction_read_only", "statement_timeout", "lock_timeout", "datestyle", "search_path")
    connection = client.connect(autocommit=True)
    before = [connection.execute(f"SHOW {name}".encode()).fetchone() for name in names]
    monkeypatch.setattr(connection, "close", lambda: None)
    monkeypatch.setattr(client, "connect", lambda **_parameters: connection)
    client.inspect()
    monkeypatch.undo()
    assert [connection.execute(f"SHOW {name}".encode()).fetchone() for name in names] == before
    connection.close()


def test_a_replica_is_inspected_by_what_it_knows(client: LakebaseClient, lakebase_env: LocalLakebase) -> None:
    replica = client.workspace.endpoints.create("reader")
    client.workspace.endpoints.wait_ready("reader")
    try:
        with LakebaseClient(lakebase_env.config(endpoint=replica.name, host=None)) as reader:
            report = reader.inspect(statistics_days=0)
    finally:
        client.workspace.endpoints.delete("reader")
    assert {one.check for one in report.of_status("skipped")} == {"unused_indexes", "growth"}
    assert "does not count what is used on its primary" in report.finding("unused_indexes").reason


async def test_it_has_a_twin_for_asyncio(client: LakebaseClient) -> None:
    report = await client.ainspect(["xid_age"])
    assert report.ok


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"checks": ["bloated"]}, "'bloated'"),
        ({"checks": "bloat"}, "list of names"),
        ({"checks": []}, "names none"),
        ({"limits": {"bloated": 1}}, "'bloated'"),
        ({"limits": [1]}, "limits by name"),
        ({"limits": {"bloat": "0.5"}}, "'bloat' must be a number"),
        ({"limits": {"bloat": [1, 2, 3]}}, "3 numbers"),
        ({"limits": {"bloat": [0.8, 0.5]}}, "worse than"),
        ({"limits": {"partitions": [1, 7]}}, "worse than"),
        ({"statistics_days": -1}, "statistics_days"),
        ({"timeout": 0}, "timeout"),
        ({"earlier": {}}, "no report"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(
    lakebase_env: LocalLakebase, arguments: dict[str, Any], named: str
) -> None:
    with LakebaseClient(lakebase_env.config()) as client, pytest.raises(ConfigError) as caught:
        client.inspect(**arguments)
    assert named in str(caught.value)
    assert lakebase_env.admin.counters().logins == 0


def test_a_limit_may_be_a_number_a_pair_or_none() -> None:
    given = limits_of({"bloat": 0.9, "partitions": [30, 7], "xid_age": None, "dead_rows": (None, 0.5)})
    assert given["bloat"] == Limit(0.9, None)
    assert given["partitions"] == Limit(30, 7)
    assert given["xid_age"] == Limit()
    assert given["dead_rows"] == Limit(None, 0.5)
    assert given["connections"] == Limit(0.7, 0.85)


def test_what_is_just_at_its_limit_needs_a_look(client: LakebaseClient) -> None:
    run(client, ("CREATE TABLE one (n int)", "CREATE TABLE two (n int)"))
    for limit, status in ((2, "warn"), (3, "ok"), ((1, 2), "bad"), (None, "ok")):
        report = client.inspect(["tables_without_primary_key"], limits={"tables_without_primary_key": limit})
        assert report.status == status


def test_objects_are_listed_to_a_number(client: LakebaseClient) -> None:
    run(client, [f"CREATE TABLE t_{n} (n int)" for n in range(23)])
    report = client.inspect(["tables_without_primary_key"])
    finding = report.finding("tables_without_primary_key")
    assert (finding.value, len(finding.objects), finding.more) == (23, 20, 3)
    assert "and 3 more" in report.to_text()
    assert "- and 3 more" in report.to_markdown()
    assert str(finding).startswith(
        "tables_without_primary_key is 23: public.t_0, public.t_1, public.t_10 and 20 more"
    )


MANY = """
DO $$ BEGIN FOR n IN {start} .. {start} + 249 LOOP
    EXECUTE format('CREATE TABLE many_%s (id serial PRIMARY KEY, a int, b text)', n);
    EXECUTE format('CREATE INDEX ON many_%s (a, b)', n);
END LOOP; END $$
"""
NO_MORE = """
DO $$ BEGIN FOR n IN {start} .. {start} + 249 LOOP EXECUTE format('DROP TABLE many_%s', n); END LOOP; END $$
"""


@pytest.mark.slow
def test_five_thousand_tables_take_less_than_two_seconds(client: LakebaseClient) -> None:
    # Some in a transaction: each holds a lock to its end, and a server has room for thousands.
    run(client, [MANY.format(start=start) for start in range(0, 5000, 250)] + ["ANALYZE"])
    try:
        report = client.inspect(statistics_days=0)
        each = [(client.inspect([name], statistics_days=0).seconds, name) for name in CHECK_NAMES]
    finally:
        run(client, [NO_MORE.format(start=start) for start in range(0, 5000, 250)])
    print(f"5,000 tables: {report.seconds:.2f} s, of which {sorted(each)[-4:]}")
    assert {one.check for one in report.of_status("skipped")} == {"growth"}
    assert report.seconds < 2
