"""Dagster's own storage in Lakebase: real runs, their processes, and what the server counts of them."""

from __future__ import annotations

import contextlib
import os
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._daemon.types import DaemonHeartbeat
from dagster_shared.serdes import serialize_value
from sqlalchemy.exc import OperationalError

from dagster_lakebase.resource.step_name import process_of
from lakebase_provider.core import LakebaseConfig, shared_client
from lakebase_provider.local import LocalLakebase
from tests.dagster import five_steps
from tests.dagster.runs import open_connections
from tests.eventually import eventually
from tests.forked import Forks
from tests.security.surroundings import set_all

pytest.importorskip("dagster_postgres", reason="LakebaseStorage needs the extra dagster-storage")

from dagster_lakebase.storage import LakebaseStorage

FIVE_STEPS = Path(five_steps.__file__)
#: Logins at most: of five steps in one process, and of two steps in a process each.
IN_PROCESS, MULTIPROCESS = 12, 15
#: The example of the documentation, as it stands.
DAGSTER_YAML = (Path(__file__).parents[2] / "example_dags/dagster/storage/dagster.yaml").read_text()


@dg.job
def nothing() -> None: ...


@contextlib.contextmanager
def own_database(lake: LocalLakebase, name: str) -> Iterator[str]:
    lake.admin.execute(f'CREATE DATABASE {name} OWNER "{lake.client_id}"')
    yield name
    lake.admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def database(lakebase_server: LocalLakebase) -> Iterator[str]:
    with own_database(lakebase_server, "dagster_storage") as name:
        yield name


@pytest.fixture
def home(tmp_path: Path, lake: LocalLakebase, database: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dagster.yaml").write_text(DAGSTER_YAML)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_DATABASE", database)
    return tmp_path


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.get() as instance:
        yield instance


def execute(forks: Forks, job: str, home: Path) -> None:
    result = forks.run("-m", "dagster", "job", "execute", "-f", str(FIVE_STEPS), "-j", job, cwd=home)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]


def test_libpqs_surroundings_have_no_effect(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, tmp_path)
    with dg.DagsterInstance.get() as instance:
        assert instance.get_runs_count() >= 0


@pytest.mark.parametrize(
    ("job", "steps", "processes", "connections"),
    [("in_process", 5, 1, IN_PROCESS), ("multiprocess", 2, 3, MULTIPROCESS)],
)
def test_the_connections_of_a_job(
    lake: LocalLakebase, forks: Forks, home: Path, job: str, steps: int, processes: int, connections: int
) -> None:
    # The tables are there, as in every run but the first.
    with dg.DagsterInstance.get() as instance:
        if job == "in_process":
            lake.admin.reset_counters()
            definition: Any = five_steps.defs.resolve_job_def(job)
            assert definition.execute_in_process(instance=instance).success
    if job == "multiprocess":
        lake.admin.reset_counters()
        execute(forks, job, home)
    counters = lake.admin.counters()
    assert counters.mints <= processes
    assert counters.logins <= connections
    eventually(lambda: open_connections(lake) == 0)
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs(dg.RunsFilter(job_name=job))
        assert run.status is dg.DagsterRunStatus.SUCCESS
        records = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        assert [record.asset_key.to_user_string() for record in records.records if record.asset_key] == [
            f"step_{number}" for number in range(steps)
        ]
        event = instance.get_latest_materialization_event(dg.AssetKey(f"step_{steps - 1}"))
        assert event is not None
        assert event.asset_materialization is not None
        assert event.asset_materialization.metadata["number"].value == steps - 1
    # Nothing of it is in files.
    assert not list(home.rglob("*.db"))


def test_tokens_expire_and_the_compute_sleeps_during_a_run(
    lake: LocalLakebase, instance: dg.DagsterInstance
) -> None:
    @dg.asset
    def before() -> None:
        lake.admin.expire_tokens()

    @dg.asset(deps=[before])
    def asleep() -> None:
        lake.admin.suspend()

    @dg.asset(deps=[asleep])
    def after() -> None: ...

    result = dg.materialize([before, asleep, after], instance=instance)
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.SUCCESS
    assert lake.admin.counters().wakes == 1
    assert {event.step_key for event in instance.all_logs(result.run_id) if event.step_key} == {
        "before",
        "asleep",
        "after",
    }


def test_runs_events_and_assets(lake: LocalLakebase, instance: dg.DagsterInstance) -> None:
    @dg.asset(partitions_def=dg.DynamicPartitionsDefinition(name="regions"))
    def regional() -> dg.MaterializeResult[Any]:
        return dg.MaterializeResult(metadata={"text": "100 % of it's fine: %(x)s ñ 漢"})

    @dg.asset_check(asset=regional)
    def positive() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True, metadata={"ms": 1.5})

    instance.add_dynamic_partitions("regions", ["north", "o'south"])
    instance.add_dynamic_partitions("regions", ["north"])
    assert set(instance.get_dynamic_partitions("regions")) == {"north", "o'south"}
    result = dg.materialize(
        [regional, positive], instance=instance, partition_key="o'south", tags={"team": "a'b"}
    )
    assert [run.run_id for run in instance.get_runs(dg.RunsFilter(tags={"team": "a'b"}))] == [result.run_id]
    assert instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])) >= 1
    assert instance.get_materialized_partitions(regional.key) == {"o'south"}
    (record,) = instance.fetch_materializations(regional.key, limit=1).records
    materialization = record.asset_materialization
    assert materialization is not None
    assert materialization.metadata["text"].value == "100 % of it's fine: %(x)s ñ 漢"
    assert record.timestamp == pytest.approx(datetime.now(timezone.utc).timestamp(), abs=60)
    (check,) = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(regional.key, "positive"), limit=5
    )
    assert check.status.value == "SUCCEEDED"
    stats = instance.get_run_stats(result.run_id)
    assert (stats.materializations, stats.steps_succeeded) == (1, 2)
    instance.wipe_assets([regional.key])
    assert instance.get_latest_materialization_event(regional.key) is None
    instance.delete_run(result.run_id)
    assert instance.get_run_by_id(result.run_id) is None
    assert instance.all_logs(result.run_id) == []


def test_cursors_heartbeats_and_slots(lake: LocalLakebase, instance: dg.DagsterInstance) -> None:
    storage = instance.run_storage
    storage.set_cursor_values({"a": "1"})
    storage.set_cursor_values({"a": "2", "b": "3"})
    assert storage.get_cursor_values({"a", "b", "c"}) == {"a": "2", "b": "3"}
    now = datetime.now(timezone.utc).timestamp()
    for daemon_id in ("first", "second"):
        storage.add_daemon_heartbeat(DaemonHeartbeat(now, "SENSOR", daemon_id))
    assert storage.get_daemon_heartbeats()["SENSOR"].daemon_id == "second"

    slots = instance.event_log_storage
    slots.set_concurrency_slots("lakebase", 1)
    assert slots.claim_concurrency_slot("lakebase", "run-1", "step").is_claimed
    assert not slots.claim_concurrency_slot("lakebase", "run-2", "step").is_claimed
    slots.free_concurrency_slots_for_run("run-1")
    assert slots.claim_concurrency_slot("lakebase", "run-2", "step").is_claimed
    slots.free_concurrency_slots_for_run("run-2")


def test_schedules_sensors_and_their_ticks(lake: LocalLakebase, instance: dg.DagsterInstance) -> None:
    storage = instance.schedule_storage
    assert storage is not None
    location = RegisteredCodeLocationOrigin("shop")
    repository = RemoteRepositoryOrigin(location, "o'clock")
    started = datetime(2026, 3, 29, 1, tzinfo=timezone.utc).timestamp()
    for kind, data in (
        (InstigatorType.SCHEDULE, ScheduleInstigatorData("0 2 * * *", started)),
        (InstigatorType.SENSOR, SensorInstigatorData(cursor="100 % of it's 漢")),
    ):
        origin = RemoteInstigatorOrigin(repository, kind.value.lower())
        ids = (origin.get_id(), origin.get_selector().get_id())
        state = InstigatorState(origin, kind, InstigatorStatus.RUNNING, data)
        storage.add_instigator_state(state)
        storage.update_instigator_state(state.with_status(InstigatorStatus.STOPPED))
        kept = storage.get_instigator_state(*ids)
        assert kept is not None
        assert (kept.status, kept.instigator_data) == (InstigatorStatus.STOPPED, data)

        ticks = [
            storage.create_tick(
                TickData(
                    *(ids[0], origin.instigator_name, kind, TickStatus.STARTED, started + hour * 3600),
                    selector_id=ids[1],
                )
            )
            for hour in range(3)
        ]
        done = ticks[0].with_status(TickStatus.SUCCESS, run_ids=["run-1"]).with_cursor("next")
        storage.update_tick(done)
        assert storage.get_tick(int(done.tick_id)).tick_data == done.tick_data
        newest_first = [tick.tick_id for tick in storage.get_ticks(*ids)]
        assert newest_first == [tick.tick_id for tick in reversed(ticks)]
        batch = storage.get_batch_ticks([ids[1]], limit=2)
        assert [tick.tick_id for tick in batch[ids[1]]] == newest_first[:2]
        storage.purge_ticks(*ids, before=started + 1.5 * 3600, tick_statuses=[TickStatus.SUCCESS])
        assert [tick.tick_id for tick in storage.get_ticks(*ids)] == newest_first[:2]
        assert {one.instigator_type for one in storage.all_instigator_state()} == {kind}
        storage.delete_instigator_state(*ids)
        assert storage.all_instigator_state() == []


def test_who_watches_a_run_is_told_of_its_events(lake: LocalLakebase, instance: dg.DagsterInstance) -> None:
    run = instance.create_run_for_job(nothing)
    seen: list[str] = []

    def note(entry: Any, _cursor: str) -> None:
        seen.append(str(entry.dagster_event.message))

    instance.report_engine_event("before", run)
    instance.watch_event_logs(run.run_id, None, note)
    eventually(lambda: any("before" in message for message in seen))
    # What comes while somebody watches is told too, and to servers of earlier versions by NOTIFY.
    config = LakebaseConfig.from_env(database=os.environ["DAGSTER_DATABASE"])
    with shared_client(config).connect() as listener:
        listener.autocommit = True
        listener.execute("LISTEN run_events")
        instance.report_engine_event("while", run)
        [notice] = listener.notifies(timeout=10, stop_after=1)
    assert notice.payload.startswith(f"{run.run_id}_")
    eventually(lambda: any("while" in message for message in seen))
    instance.end_watch_event_logs(run.run_id, note)


def test_migrating_changes_nothing_that_is_up_to_date(
    lake: LocalLakebase, instance: dg.DagsterInstance
) -> None:
    instance.upgrade()
    for storage in (instance.run_storage, instance.event_log_storage, instance.schedule_storage):
        database, head = storage.alembic_version()  # type: ignore[misc,union-attr] # Postgres has one
        assert database == head


def test_processes_that_create_the_tables_at_the_same_time(lake: LocalLakebase) -> None:
    with own_database(lake, "dagster_race") as name:

        def create(number: int) -> LakebaseStorage:
            # Another name, another pool: as in another process.
            config = LakebaseConfig.from_env(database=name, application_name=f"race-{number}")
            return LakebaseStorage(config)

        barrier = threading.Barrier(4)

        def together(number: int) -> LakebaseStorage:
            barrier.wait()
            return create(number)

        with ThreadPoolExecutor(4) as pool:
            storages = list(pool.map(together, range(4)))
        tables = lake.admin.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", database=name
        )
        assert tables[0][0] > 20
        for storage in storages:
            assert storage.run_storage.get_runs() == []
            storage.event_log_storage.dispose()


def test_two_instances_share_one_pool_and_nesting_threads_never_wait_for_each_other(
    lake: LocalLakebase, home: Path
) -> None:
    first_held = threading.Barrier(5)

    def nest(instance: dg.DagsterInstance) -> bool:
        storage: Any = instance.run_storage
        with storage.connect() as outer:
            outer.exec_driver_sql("SELECT 1")
            first_held.wait()
            with storage.connect() as inner:
                return inner.exec_driver_sql("SELECT 1").scalar() == 1

    with dg.DagsterInstance.get() as one, dg.DagsterInstance.get() as two:
        assert one.run_storage._engine is two.event_log_storage._engine  # type: ignore[attr-defined] # the point
        with ThreadPoolExecutor(10) as pool:
            # Ten threads: the barrier opens for five at a time, so that all five hold their first one.
            assert all(pool.map(nest, [one, two] * 5))
        # Five slots are kept, what was nested beyond them is closed.
        assert 1 <= open_connections(lake) <= 5
    eventually(lambda: open_connections(lake) == 0)


def test_a_lost_connection_gives_back_its_turn(
    lake: LocalLakebase, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")
    (home / "dagster.yaml").write_text(
        DAGSTER_YAML.replace("    config:\n", "    config:\n      max_size: 1\n      connect_budget: 2.0\n")
    )
    with dg.DagsterInstance.get() as instance:
        storage: Any = instance.run_storage
        # More often than there are turns. The connection is lost idle, in use, and where none can be had.
        for _ in range(2):
            assert isinstance(instance.get_runs(limit=1), list)
            lake.admin.suspend()
            assert isinstance(instance.get_runs(limit=1), list)
            with storage.connect() as connection, pytest.raises(OperationalError):
                connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
            with lake_refuses_logins(lake), pytest.raises(Exception, match="refused by the test"):
                storage._engine.connect()
        # In another thread: one that has a turn does not ask for another.
        with ThreadPoolExecutor(1) as pool:
            assert isinstance(pool.submit(instance.get_runs, limit=1).result(), list)


@contextlib.contextmanager
def lake_refuses_logins(lake: LocalLakebase) -> Iterator[None]:
    lake.admin.login_fault("refused by the test")
    yield
    lake.admin.clear_faults()


def test_many_threads_write_and_read_at_the_same_time(
    lake: LocalLakebase, instance: dg.DagsterInstance
) -> None:
    # As in Dagster's web server and daemon. Not by dg.materialize, which in several threads of one process
    # waits for ever with every storage, since each run configures logging anew.
    together = threading.Barrier(8)

    def run(number: int) -> tuple[str, int]:
        together.wait()
        run = instance.create_run_for_job(nothing, tags={"number": str(number)})
        for count in range(10):
            instance.report_engine_event(f"event {count}", run)
        instance.report_run_canceled(run)
        stored = instance.get_run_by_id(run.run_id)
        assert stored is not None
        return stored.status.value, len(instance.all_logs(run.run_id))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(run, range(8))) == {("CANCELED", 11)}
    # The server sees the end of a session a little later than who has ended it.
    eventually(lambda: open_connections(lake) <= 5)


def test_an_instance_that_is_disposed_of_can_still_be_asked(lake: LocalLakebase, home: Path) -> None:
    instance = dg.DagsterInstance.get()
    instance.dispose()
    instance.dispose()
    assert isinstance(instance.get_runs(limit=1), list)
    instance.dispose()


def test_the_web_servers_limits(lake: LocalLakebase, instance: dg.DagsterInstance) -> None:
    instance.optimize_for_webserver(statement_timeout=250, pool_recycle=60, max_overflow=2)
    storage: Any = instance.run_storage
    assert storage._engine is instance.event_log_storage._engine  # type: ignore[attr-defined] # what is shared
    with storage.connect() as connection, pytest.raises(Exception, match="statement timeout"):
        connection.exec_driver_sql("SELECT pg_sleep(10)")
    assert isinstance(instance.get_runs(limit=1), list)


# Python 3.12 and newer warn of what this test is about.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_leaves_the_parents_connections_alone(
    lake: LocalLakebase, instance: dg.DagsterInstance
) -> None:
    storage: Any = instance.run_storage

    def backend() -> int:
        with storage.connect() as connection:
            return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar())

    parents = backend()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 2 if backend() == parents else 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert backend() == parents


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("client_secret: canary", "client_secret"),
        ("client_secret: {env: NOT_SET_ANYWHERE}", "Set NOT_SET_ANYWHERE where Dagster's processes start"),
        ("endpoint: malformed", "Setting 'endpoint' is 'malformed'"),
        ("databas: typo", "databas"),
    ],
)
def test_a_bad_configuration_is_named_without_its_secret(
    lake: LocalLakebase, home: Path, config: str, message: str
) -> None:
    (home / "dagster.yaml").write_text(
        DAGSTER_YAML.replace("database: {env: DAGSTER_DATABASE}", config).replace(
            "      client_secret: {env: DATABRICKS_CLIENT_SECRET}\n", ""
        )
    )
    with pytest.raises(Exception, match=r".") as caught:
        dg.DagsterInstance.get()
    assert message in str(caught.value)
    assert "canary" not in str(caught.value)
    assert lake.admin.counters().mints == 0


def traceback_of_a_failure(storage: Any) -> str:
    try:
        with storage.connect() as connection:
            connection.exec_driver_sql("SELECT absent")
    except Exception as error:
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    raise AssertionError("it did not fail")


def test_no_secret_leaves_the_process(lake: LocalLakebase, instance: dg.DagsterInstance) -> None:
    storage: Any = instance.run_storage
    # What Dagster hands to the processes of runs, on their command line.
    reference = serialize_value(instance.get_ref())
    assert "DATABRICKS_CLIENT_SECRET" in reference
    shown = [reference, storage.postgres_url, traceback_of_a_failure(storage)]
    shown += [repr(storage._engine), repr(vars(storage)), repr(vars(storage._shared))]
    token = shared_client(storage._shared._config).tokens.get().reveal()
    for secret in (token, lake.client_secret):
        assert secret not in "\n".join(shown)


RUN = '{"__class__": "ExecuteRunArgs", "run_id": "1f0c62d1-7e57-4e57-8e57-0123456789ab"}'


@pytest.mark.parametrize(
    ("argv", "process"),
    [
        (["/venv/bin/dagster-daemon", "run"], "daemon"),
        (["/site-packages/dagster/_daemon/__main__.py", "run"], "daemon"),
        (["/venv/bin/dagster-webserver", "-p", "3000"], "webserver"),
        (["/site-packages/dagster_webserver/__main__.py"], "webserver"),
        (["/site-packages/dagster/__main__.py", "api", "grpc", "--socket", "s"], "code-server"),
        (["/venv/bin/dagster", "code-server", "start"], "code-server"),
        (["/venv/bin/dagster", "api", "execute_run", RUN], "run:1f0c62d1"),
        (["/venv/bin/dagster", "api", "execute_run_with_structured_logs", RUN], "run:1f0c62d1"),
        (["/venv/bin/dagster", "api", "execute_step", "{}"], "run"),
        (["/venv/bin/dagster", "job", "execute"], None),
        (["/venv/bin/pytest"], None),
        ([], None),
    ],
)
def test_a_process_is_known_by_its_command_line(argv: list[str], process: str | None) -> None:
    assert process_of(argv, is_child=False) == process
    assert process_of(argv, is_child=True) == ("run" if process == "code-server" else process)


@pytest.mark.parametrize(
    ("argv", "chosen", "shown"),
    [
        (["dagster-daemon", "run"], None, "dagster:storage:daemon"),
        (["dagster", "api", "execute_run", RUN], None, "dagster:storage:run:1f0c62d1"),
        (["script.py"], None, "dagster:storage"),
        (["dagster-daemon", "run"], "nightly", "nightly"),
    ],
)
def test_sessions_say_whose_they_are(
    database: str,
    lake: LocalLakebase,
    monkeypatch: pytest.MonkeyPatch,
    argv: list[str],
    chosen: Any,
    shown: str,
) -> None:
    # As if it were not set.
    monkeypatch.setenv("PGAPPNAME", "lakebase-provider")
    monkeypatch.setattr("sys.argv", argv)
    fields = {} if chosen is None else {"application_name": chosen}
    config = {"should_autocreate_tables": True, "database": database, **fields}
    storage = LakebaseStorage.from_config_value(None, config)
    names = "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = %s"
    assert lake.admin.execute(names, [database]) == [(shown,)]
    storage.run_storage.optimize_for_webserver(statement_timeout=5000, pool_recycle=60, max_overflow=2)
    storage.run_storage.get_runs_count()
    expected = shown if chosen else "dagster:storage:webserver"
    eventually(lambda: lake.admin.execute(names, [database]) == [(expected,)])
    storage.event_log_storage.dispose()
