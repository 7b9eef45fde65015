"""Tasks that move rows are killed, ended or given up on: they load once, or leave nothing behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from psycopg import sql

from lakebase_provider.core.connect.cancel import ASKED_TO_END
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import DagLoader
from tests.airflow.supervised import START_SECONDS, SupervisedTask, Supervisors
from tests.eventually import eventually

# The runs are made by dag.test(), which has Airflow's own API server in this process.
pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")

#: Seconds within which nothing may be under way any more after the task was asked to end.
ASKED = 2.0
#: Seconds within which the sessions must be gone after the task was killed.
KILLED = 5.0
ROWS = 200_000
#: Characters of each row's text.
WIDTH = 70
#: With texts so long the rows are more than all buffers between a task and the server take (Linux may let
#: each of the two sockets on the way grow to 32 MiB): a COPY of these does not end by itself.
LONG_WIDTH = 500
_TABLES = ("load_append", "load_merge", "load_fenced", "transfer_source", "transfer_target")
_GATE = 4711
#: Id of the row that waits for the gate.
_GATED_ROW = 10_000
_GATED = """
create or replace function wait_for_gate() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock_shared(tg_argv[0]::bigint);
    return new;
end $$;
"""


class Server:
    """What the tasks do on the server, seen from beside it, and a gate that keeps writers waiting."""

    def __init__(self, observer: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._observer = observer
        observer.execute("select pg_advisory_lock(%s)", (_GATE,))

    def open_gate(self) -> None:
        """Let the statements that wait go on, and later ones pass."""
        self._observer.execute("select pg_advisory_unlock(%s)", (_GATE,))

    def events(self, task_id: str) -> list[str]:
        """What each session of a task that is not idle waits for; nothing is an empty text."""
        found = self._observer.execute(
            "select coalesce(wait_event, '') from pg_stat_activity"
            " where split_part(application_name, '@', 1) = %s and state <> 'idle'",
            (f"loads.{task_id}",),
        )
        return [event for (event,) in found]

    def hangs(self, task_id: str) -> bool:
        """Whether it has some rows of the task's COPY, and waits for the rest."""
        found = self._observer.execute(
            "select tuples_processed from pg_stat_progress_copy join pg_stat_activity using (pid)"
            " where split_part(application_name, '@', 1) = %s and wait_event = 'ClientRead'",
            (f"loads.{task_id}",),
        )
        return any(0 < rows < ROWS for (rows,) in found)

    def waits(self, task: SupervisedTask, task_id: str, event: str) -> None:
        """Return when a session of the task waits for an event."""

        def waits_or_failed() -> bool:
            assert task.supervisor.is_alive(), task.log()
            return event in self.events(task_id)

        eventually(waits_or_failed, within=START_SECONDS)

    def quiet(self, task_id: str, within: float) -> None:
        """Return when nothing of the task is under way."""
        eventually(lambda: not self.events(task_id), within=within)


@pytest.fixture
def server(lake: LocalLakebase) -> Iterator[Server]:
    with psycopg.connect(lake.superuser_dsn, dbname=lake.config().database, autocommit=True) as observer:
        yield Server(observer)
        # Others share the database; what still waits for the gate, after a failure, holds locks.
        observer.execute("select pg_advisory_unlock_all()")
        for name in ("lakebase_load", *_TABLES):
            observer.execute(sql.SQL("drop table if exists {}").format(sql.Identifier(name)))
        observer.execute("drop function if exists wait_for_gate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a CSV file of so many rows in it."""
    return folder_of_rows(tmp_path_factory, WIDTH)


@pytest.fixture
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a CSV file in it that no buffers take whole."""
    return folder_of_rows(tmp_path_factory, LONG_WIDTH)


def folder_of_rows(tmp_path_factory: pytest.TempPathFactory, width: int) -> Path:
    folder = tmp_path_factory.mktemp("loads")
    with (folder / "rows.csv").open("w") as file:
        file.write("id,name\n")
        file.writelines(f"{i},{'x' * width}\n" for i in range(1, ROWS + 1))
    return folder


@pytest.fixture
def start(dag_of: DagLoader, supervisors: Supervisors, folder: Path) -> Any:
    dag = dag_of("loads")

    def start(task_id: str, *, again: SupervisedTask | None = None, rows: Path = folder) -> SupervisedTask:
        run_id = None if again is None else again.run_id
        return supervisors.start(dag, task_id, run_id, LOADS_FOLDER=str(rows))

    return start


def make_table(name: str) -> None:
    """A task's table that can be written to when the gate is open, and a ledger that knows of no load."""
    table = sql.Identifier(name)
    LakebaseHook().run(
        [
            "drop table if exists lakebase_load",
            sql.SQL("drop table if exists {}").format(table).as_string(),
            sql.SQL("create table {} (id int primary key, name text)").format(table).as_string(),
            _GATED,
            sql.SQL(
                "create trigger gate before insert on {} for each row when (new.id = {})"
                " execute function wait_for_gate({})"
            )
            .format(table, sql.Literal(_GATED_ROW), sql.Literal(_GATE))
            .as_string(),
        ]
    )


def loaded(name: str) -> tuple[Any, ...]:
    statement = sql.SQL("select count(*), count(distinct id) from {}").format(sql.Identifier(name))
    return tuple(LakebaseHook().get_first(statement.as_string()))


def load_of(task_id: str, task: SupervisedTask) -> tuple[Any, ...]:
    """What the ledger says of a task's load."""
    return (ROWS, f"loads/{task_id}/{task.run_id}/-1")


def ledger() -> list[tuple[Any, ...]]:
    if LakebaseHook().get_first("select to_regclass('lakebase_load')") == (None,):
        return []
    return [
        tuple(row) for row in LakebaseHook().get_records("select rows, load_id from lakebase_load order by 2")
    ]


def is_connected(process: psutil.Process, port: int) -> bool:
    """Whether it still has a connection to the server."""
    try:
        return any(one.raddr and one.raddr.port == port for one in process.net_connections("tcp"))
    except psutil.Error:
        return False  # it has ended


def test_the_retry_of_a_load_that_hangs_loads_once(
    lake: LocalLakebase, server: Server, start: Any, large: Path
) -> None:
    # The one waits until the hanging load counts as lost, the other ends it at once; both at the same time.
    tasks = ("load_append", "load_fenced")
    for task_id in tasks:
        make_table(task_id)
    zombies = [start(task_id, rows=large) for task_id in tasks]
    for zombie, task_id in zip(zombies, tasks, strict=True):
        server.waits(zombie, task_id, "advisory")
    # Their workers answer nobody any more, and the server waits for the rest of their rows.
    workers = [zombie.process for zombie in zombies]
    supervisors = [psutil.Process(zombie.supervisor.pid) for zombie in zombies]
    for process in (*workers, *supervisors):
        process.suspend()
    server.open_gate()
    eventually(lambda: all(map(server.hangs, tasks)), within=START_SECONDS)
    retries = [
        start(task_id, again=zombie, rows=large) for zombie, task_id in zip(zombies, tasks, strict=True)
    ]
    for retry, task_id in zip(retries, tasks, strict=True):
        assert retry.wait() == "success", retry.log()
        assert loaded(task_id) == (ROWS, ROWS)
    assert all(is_connected(worker, lake.port) for worker in workers)
    for process in workers:
        process.resume()
    # A supervisor that hears of the retry asks its task to end, which would then say that instead.
    eventually(lambda: not any(is_connected(worker, lake.port) for worker in workers), within=START_SECONDS)
    for process in supervisors:
        process.resume()
    for zombie, task_id in zip(zombies, tasks, strict=True):
        zombie.supervisor.join(START_SECONDS)
        assert any("connection was lost" in str(line) for line in zombie.log()), zombie.log()
        assert loaded(task_id) == (ROWS, ROWS)
    assert ledger() == [load_of(task_id, retry) for retry, task_id in zip(retries, tasks, strict=True)]


@pytest.mark.parametrize("task_id", ["load_append", "load_merge"])
def test_the_retry_of_a_load_that_is_killed_loads_once(server: Server, start: Any, task_id: str) -> None:
    make_table(task_id)
    killed = start(task_id)
    server.waits(killed, task_id, "advisory")
    killed.process.kill()
    server.open_gate()
    server.quiet(task_id, within=KILLED)
    # The scheduler, which is not there, would see that its process is gone, and try it again.
    assert killed.wait() == "running"
    assert (loaded(task_id), ledger()) == ((0, 0), [])
    retry = start(task_id, again=killed)
    assert retry.wait() == "success", retry.log()
    assert (loaded(task_id), ledger()) == ((ROWS, ROWS), [load_of(task_id, retry)])


#: Tasks with what the server waits for in them when it works.
WORKS = {
    "load_append": "advisory",
    "unload": "PgSleep",
    "unload_parts": "PgSleep",
    "transfer_source": "PgSleep",
    "transfer_target": "advisory",
}


# SIGALRM is what the clock sends when the time that Airflow gives a task is over.
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGALRM], ids=lambda sent: str(sent.name))
@pytest.mark.parametrize("task_id", WORKS)
def test_a_task_that_is_asked_to_end_or_out_of_time_leaves_nothing(
    server: Server, start: Any, folder: Path, task_id: str, sent: signal.Signals
) -> None:
    if task_id in _TABLES:
        make_table(task_id)
    task = start(task_id)
    server.waits(task, task_id, WORKS[task_id])
    task.process.send_signal(sent)
    server.quiet(task_id, within=ASKED)
    assert task.wait() == "up_for_retry", task.log()
    assert ("Process timed out" in str(task.log())) == (sent == signal.SIGALRM)
    assert (ASKED_TO_END in str(task.log())) == (sent == signal.SIGTERM)
    assert "statement_timeout" not in str(task.log())
    if task_id.startswith("unload"):
        assert [path.name for path in folder.rglob("*") if path.is_file()] == ["rows.csv"]
    else:
        assert (loaded(task_id), ledger()) == ((0, 0), [])
