"""What steps that fail or are interrupted leave on the server, each in a process of Dagster's command."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.core.upkeep.leases import left
from tests.core.workspace.lakehouse import shop
from tests.dagster import stopped_steps
from tests.dagster.runs import open_connections
from tests.eventually import eventually
from tests.forked import Command, Forks

STOPPED_STEPS = Path(__file__).parent / "stopped_steps.py"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    return tmp_path


Start = Callable[[str], Command]


@pytest.fixture
def start(forks: Forks, home: Path) -> Start:
    def start(job: str) -> Command:
        command = ("-m", "dagster", "job", "execute", "-f", str(STOPPED_STEPS), "-j", job)
        env = {**os.environ, "DAGSTER_HOME": str(home)}
        return forks.start(*command, cwd=home, env=env, merged=True)

    return start


def running(lake: LocalLakebase) -> list[str]:
    """Application names of the sessions that sleep."""
    rows = lake.admin.execute(
        "SELECT application_name FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(120)%'"
        " AND state = 'active' AND pid <> pg_backend_pid()"
    )
    return [name for (name,) in rows]


def errors(home: Path, kind: dg.DagsterEventType) -> dict[str, str]:
    """The errors of a run's events of a kind, by their steps.

    Not from what was printed: a step's lines pass through a `tail`, which Dagster may end before the last.
    """
    with dg.DagsterInstance.from_config(str(home)) as instance:
        [run] = instance.get_run_ids()
        events = [record.get_dagster_event() for record in instance.all_logs(run, of_type=kind)]
        return {str(event.step_key): str(event.event_specific_data) for event in events}


def test_steps_that_raise_leave_no_connection(lake: LocalLakebase, start: Start, home: Path) -> None:
    with start("failing") as process:
        printed, _ = process.communicate(timeout=240)
    assert "RUN_FAILURE" in printed, printed[-4000:]
    failures = errors(home, dg.DagsterEventType.STEP_FAILURE)
    assert "ZeroDivisionError" in failures["raises"]
    assert "[column_mismatch]" in failures["stores_what_does_not_fit"]
    eventually(lambda: open_connections(lake) == 0)


@pytest.mark.parametrize(
    ("job", "how"),
    [
        ("sleeping", signal.SIGINT),
        ("sleeping", signal.SIGTERM),
        # To the run's process, which passes it on to the step's.
        ("sleeping_in_a_process", signal.SIGTERM),
    ],
)
def test_an_interrupted_step_cancels_its_query(
    lake: LocalLakebase, start: Start, monkeypatch: pytest.MonkeyPatch, job: str, how: signal.Signals
) -> None:
    monkeypatch.setenv("PGAPPNAME", "lakebase-provider")
    with start(job) as process:
        eventually(lambda: len(running(lake)) == 1 or process.poll() is not None, within=120)
        assert process.poll() is None, process.communicate(10)[0][-4000:]
        [name] = running(lake)
        assert name.startswith("dagster:")
        assert name.endswith(":sleeps")
        process.send_signal(how)
        eventually(lambda: running(lake) == [])
        process.communicate(timeout=120)


def test_a_retry_of_a_run_that_was_killed_while_it_rehearsed_replaces_its_branch(
    lake: LocalLakebase, start: Start, home: Path
) -> None:
    with LakebaseClient(lake.config()) as client:
        with client.connection() as connection:
            connection.execute("DROP TABLE IF EXISTS slowly_filled; CREATE TABLE slowly_filled (n int)")
        lake.admin.set(operation_seconds=0.3)
        with start("rehearsing") as process:
            eventually(lambda: left(client) != [] or process.poll() is not None, within=120)
            assert process.poll() is None, process.communicate(10)[0][-4000:]
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=120)
        eventually(lambda: client.workspace.branches.list()[-1].is_settled, within=30)
        assert len(left(client)) == 1
        with dg.DagsterInstance.from_config(str(home)) as instance:
            [killed] = instance.get_runs()
            instance.report_run_failed(killed)
            job = dg.reconstructable(stopped_steps.rehearsing)
            again = dg.ReexecutionOptions(parent_run_id=killed.run_id)
            assert dg.execute_job(job, instance, reexecution_options=again).success
        assert left(client) == []
        with client.connection() as connection:
            assert connection.execute("SELECT n FROM slowly_filled").fetchall() == [(1,)]
            connection.execute("DROP TABLE slowly_filled")


def worker_that_waits(home: Path) -> int | None:
    """The process of the step that waits for an update which it has begun, as the run's tags tell."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for run in instance.get_runs():
            if any(tag.startswith("lakebase/update/") for tag in run.tags):
                started = dg.DagsterEventType.STEP_WORKER_STARTED
                [record] = instance.all_logs(run.run_id, of_type=started)
                event = record.get_dagster_event()
                return int(str(event.engine_event_data.metadata["pid"].value))
    return None


def test_a_step_that_was_killed_while_it_synced_goes_on_with_its_update(
    lake: LocalLakebase, start: Start, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips = shop(lake)
    monkeypatch.setenv("SYNCED_TABLE", trips.name)
    with LakebaseClient(lake.config()) as client:
        tables = client.workspace.synced_tables
        trips.create(tables)
        pipeline = tables.wait(trips.name, version=0).table.pipeline_id
        assert pipeline is not None
        trips.write({"id": [3], "name": ["c"]})
        lake.admin.set(pipeline_seconds=600.0)
        with start("syncing") as process:
            updates = client.workspace.pipelines.updates
            eventually(lambda: len(updates(pipeline)) == 2 or process.poll() is not None, within=120)
            # Only now, for two processes must not make Dagster's databases at once.
            eventually(lambda: worker_that_waits(home) is not None or process.poll() is not None, every=0.2)
            worker = worker_that_waits(home)
            assert worker is not None, process.communicate(10)[0][-4000:]
            os.kill(worker, signal.SIGKILL)
            up_for_retry = dg.DagsterEventType.STEP_UP_FOR_RETRY
            eventually(
                lambda: errors(home, up_for_retry) != {} or process.poll() is not None, within=60, every=0.2
            )
            lake.admin.advance(600)
            printed, _ = process.communicate(timeout=240)
        assert "RUN_SUCCESS" in printed, printed[-4000:]
        assert len(trips.rows()) == 3
        # The one that made the table, and the one of both tries.
        assert len(updates(pipeline)) == 2
        tables.delete(trips.name)
    lake.admin.execute(f"DROP TABLE pub.{trips.name.split('.')[2]}")


_SLOWLY = """
CREATE OR REPLACE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN PERFORM pg_sleep({}); RETURN new; END'
"""


@pytest.fixture
def owner(lake: LocalLakebase) -> Iterator[psycopg.Connection[tuple[int]]]:
    """Of a table that takes a minute for each row."""
    with psycopg.connect(lake.superuser_dsn, dbname=lake.config().database, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS slowly_filled, lakebase_load")
        connection.execute("CREATE TABLE slowly_filled (n int)")
        connection.execute("GRANT ALL ON slowly_filled TO public")
        connection.execute(_SLOWLY.format(60))
        connection.execute(
            "CREATE TRIGGER slowly BEFORE INSERT ON slowly_filled FOR EACH ROW EXECUTE FUNCTION slowly()"
        )
        yield connection
        connection.execute("DROP FUNCTION slowly CASCADE")
        connection.execute("DROP TABLE IF EXISTS slowly_filled, lakebase_load")


@pytest.mark.parametrize("job", ["loading", "storing"])
def test_an_interrupted_write_is_tried_again_as_the_policy_says(
    lake: LocalLakebase, start: Start, home: Path, owner: psycopg.Connection[tuple[int]], job: str
) -> None:
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    with start(job) as process:
        eventually(lambda: lake.admin.execute(waits) == [(1,)] or process.poll() is not None, within=120)
        assert process.poll() is None, process.communicate(10)[0][-4000:]
        # The next try need not wait so long.
        owner.execute(_SLOWLY.format(0))
        process.send_signal(signal.SIGTERM)
        eventually(lambda: lake.admin.execute(waits) == [(0,)])
        process.communicate(timeout=120)
    [error] = errors(home, dg.DagsterEventType.STEP_UP_FOR_RETRY).values()
    # Dagster asks the policy about an interrupt, as long as nobody has made another error of it.
    assert "DagsterExecutionInterruptedError" in error
    assert "LoadError" not in error
    assert "LoadInterruptedError" not in error
    assert owner.execute("SELECT count(*) FROM slowly_filled").fetchone() == (1,)
