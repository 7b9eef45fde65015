"""Loads and branches at night, in a real deployment: what ends a task, a person who clears it, and a crowd.

Tokens live for a minute, so that every longer task logs in with more than one.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.base.threads import pause
from lakebase_provider.core.config.allowed_hosts import ALLOW_LOOPBACK
from lakebase_provider.local import LocalLakebase
from tests.core.upkeep.leases import left
from tests.core.workspace.lakehouse import Shop
from tests.eventually import eventually

from .airflow_site import PATIENCE, ROOT, AirflowSite, Task

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.timeout(1800)

ROWS = 400
EXAMPLES = sorted(
    file.stem for file in (ROOT / "example_dags").glob("lakebase_*.py") if "from airflow" in file.read_text()
)
#: Whose graphs are in the documentation.
PICTURED = {"lakebase_branches", "lakebase_sync"}
#: Milliseconds for a page to show something.
PAGE_PATIENCE = 120_000
#: How many connections of the small server the superuser does not keep, and how many tasks want one.
USABLE, CROWD = 7, 60
LOADED = ("asked_to_end", "killed", "marked_failed", "cleared")


@pytest.fixture(scope="module")
def lake() -> Iterator[LocalLakebase]:
    with LocalLakebase(token_lifetime=60) as lake:
        yield lake


@pytest.fixture(scope="module")
def small_lake() -> Iterator[LocalLakebase]:
    with LocalLakebase(token_lifetime=60, max_connections=USABLE + 3) as lake:
        yield lake


@pytest.fixture(scope="module")
def metadata() -> Iterator[LocalLakebase]:
    with LocalLakebase(max_connections=4 * CROWD) as lake:
        yield lake


@pytest.fixture(scope="module")
def site(
    lake: LocalLakebase,
    small_lake: LocalLakebase,
    metadata: LocalLakebase,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[AirflowSite]:
    home, folder = tmp_path_factory.mktemp("airflow"), tmp_path_factory.mktemp("files")
    (folder / "rows.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(ROWS)))
    migrations = folder / "migrations"
    migrations.mkdir()
    (migrations / "0001_orders_kept.sql").write_text("CREATE TABLE orders_kept (n int);")
    prepare(lake)
    Shop(lake, "", "main.samples.trips").write({"id": [1, 2], "fare": [4.0, 11.0]})
    env = {
        ALLOW_LOOPBACK: "1",
        "AIRFLOW_CONN_LAKEBASE_DEFAULT": lake.airflow_connection(),
        "AIRFLOW_CONN_LAKEBASE_CROWD": small_lake.airflow_connection(),
        "LAKEBASE_EXAMPLE_MIGRATIONS": str(migrations),
        "LAKEBASE_EXAMPLE_ORDERS": "100",
        "LAKEBASE_EXAMPLE_REPORTS": f"file://{folder}",
        "NIGHT_FOLDER": str(folder),
    }
    site = AirflowSite(home, metadata, env, parallelism=CROWD)
    here = Path(__file__).parent
    try:
        site.start(here / "dags" / "night.py", *(ROOT / "example_dags" / f"{name}.py" for name in EXAMPLES))
        yield site
    finally:
        site.stop()


def prepare(lake: LocalLakebase) -> None:
    """Tables whose loads take as long as `night_pace` says: so many seconds altogether."""
    owner = f'"{lake.client_id}"'
    statements = [
        "CREATE TABLE night_pace (seconds float8)",
        "INSERT INTO night_pace VALUES (0)",
        "CREATE TABLE night_deferred (n int)",
        "CREATE TABLE night_kept AS SELECT generate_series(1, 10) AS n",
        "CREATE FUNCTION night_wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" PERFORM pg_sleep((SELECT seconds FROM night_pace) / {ROWS}); RETURN NEW; END $$",
    ]
    for name in LOADED:
        statements += [
            f"CREATE TABLE night_{name} (n bigint)",
            f"CREATE TRIGGER wait BEFORE INSERT ON night_{name} FOR EACH ROW EXECUTE FUNCTION night_wait()",
        ]
    for table in ("night_pace", "night_deferred", "night_kept", *(f"night_{name}" for name in LOADED)):
        statements.append(f"ALTER TABLE {table} OWNER TO {owner}")
    for statement in statements:
        lake.admin.execute(statement)


def set_pace(lake: LocalLakebase, seconds: float) -> None:
    lake.admin.execute("UPDATE night_pace SET seconds = %s", (seconds,))


def rows(lake: LocalLakebase, name: str) -> tuple[int, int]:
    """How many rows a table has, and how many different ones."""
    ((count, different),) = lake.admin.execute(f"SELECT count(*), count(DISTINCT n) FROM night_{name}")
    return int(count), int(different)


def is_under_way(lake: LocalLakebase, text: str) -> bool:
    found = lake.admin.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s AND usename = %s",
        (text, lake.client_id),
    )
    return bool(found[0][0])


def load_under_way(site: AirflowSite, lake: LocalLakebase, name: str) -> tuple[str, psutil.Process]:
    """Start a run whose load takes minutes; its id and the task's process once rows are on their way."""
    set_pace(lake, 300)
    run = site.trigger(f"night_{name}")
    eventually(lambda: is_under_way(lake, f"COPY%night_{name}%"), within=PATIENCE, every=0.2)
    pid = site.task(f"night_{name}", run, "load").pid
    assert pid is not None
    return run, psutil.Process(pid)


def eventually_in(site: AirflowSite, dag: str, run: str, task: str, state: str) -> Task:
    """A task of a run, once it is in a state."""
    found: list[Task] = []

    def is_there() -> bool:
        found[:] = [site.task(dag, run, task)]
        return found[0].state == state and (state != "running" or found[0].pid is not None)

    eventually(is_there, within=PATIENCE, every=0.2)
    return found[0]


def has_ended(lake: LocalLakebase, name: str) -> bool:
    return not is_under_way(lake, f"%night_{name}%")


def test_all_examples_are_green(site: AirflowSite, page: Page, picture: Callable[[str], None]) -> None:
    page.set_default_timeout(PAGE_PATIENCE)
    # Airflow shows a grid until a person has chosen the graph.
    page.add_init_script("localStorage.setItem('default_dag_view', '\"graph\"')")
    ended: dict[str, str] = {}
    # A few at once: a scheduler that is busy for seconds fails tasks that were deferred no longer than that.
    for first in range(0, len(EXAMPLES), 4):
        runs = {name: site.trigger(name) for name in EXAMPLES[first : first + 4]}
        if (run := runs.get("lakebase_approve")) is not None:
            approve_in_browser(site, page, picture, "lakebase_approve", run, "raise_prices")
        ended |= {name: site.end_of(name, run) for name, run in runs.items()}
        for name in runs.keys() & PICTURED:
            page.goto(f"{site.url}/dags/{name}/runs/{runs[name]}")
            page.locator(".react-flow__node").first.wait_for()
            picture(f"airflow-{name.replace('_', '-')}")
    assert ended == dict.fromkeys(EXAMPLES, "success")


def approve_in_browser(
    site: AirflowSite, page: Page, picture: Callable[[str], None], dag: str, run: str, task: str
) -> None:
    """Read the report of a rehearsal as a person does, and approve of it."""
    site.wait_for_question(dag, run, task)
    page.goto(f"{site.url}/dags/{dag}/runs/{run}/tasks/{task}/required_actions")
    page.get_by_text("Rehearsal: passed").wait_for()
    picture("airflow-approve")
    page.get_by_role("button", name="Approve").click()


def test_a_load_that_is_asked_to_end_is_tried_again(site: AirflowSite, lake: LocalLakebase) -> None:
    run, process = load_under_way(site, lake, "asked_to_end")
    process.send_signal(signal.SIGTERM)
    eventually(lambda: has_ended(lake, "asked_to_end"), within=PATIENCE, every=0.2)
    set_pace(lake, 0)

    assert site.end_of("night_asked_to_end", run) == "success"
    assert site.task("night_asked_to_end", run, "load").try_number == 2
    assert rows(lake, "asked_to_end") == (ROWS, ROWS)
    first = "\n".join(site.log("night_asked_to_end", run, "load"))
    assert "asked to end" in first
    assert "statement_timeout" not in first


def test_a_load_that_is_killed_is_tried_again(site: AirflowSite, lake: LocalLakebase) -> None:
    run, process = load_under_way(site, lake, "killed")
    process.send_signal(signal.SIGKILL)
    eventually(lambda: has_ended(lake, "killed"), within=PATIENCE, every=0.2)
    set_pace(lake, 0)

    assert site.end_of("night_killed", run) == "success"
    assert site.task("night_killed", run, "load").try_number == 2
    assert rows(lake, "killed") == (ROWS, ROWS)


def test_a_load_that_is_marked_failed_ends_and_leaves_nothing(site: AirflowSite, lake: LocalLakebase) -> None:
    run, process = load_under_way(site, lake, "marked_failed")
    site.mark_failed("night_marked_failed", run, "load")
    eventually(lambda: has_ended(lake, "marked_failed"), within=PATIENCE, every=0.2)
    eventually(lambda: not process.is_running(), within=PATIENCE, every=0.2)
    set_pace(lake, 0)

    assert site.end_of("night_marked_failed", run) == "failed"
    assert site.task("night_marked_failed", run, "load").try_number == 1
    assert rows(lake, "marked_failed") == (0, 0)


def test_what_a_person_clears_is_loaded_anew(site: AirflowSite, lake: LocalLakebase) -> None:
    dag = "night_cleared"
    run = site.trigger(dag)
    assert site.end_of(dag, run) == "success"
    assert rows(lake, "cleared") == (ROWS, ROWS)

    site.clear(dag, run)
    assert site.end_of(dag, run) == "success"
    assert site.task(dag, run, "load").try_number == 2
    assert rows(lake, "cleared") == (ROWS, ROWS)

    # Of one that appends, a person who clears it alone wants the rows once more.
    site.clear(dag, run, "load")
    assert site.end_of(dag, run) == "success"
    assert rows(lake, "cleared") == (2 * ROWS, ROWS)


def test_a_statement_goes_on_when_its_triggerer_is_killed(site: AirflowSite, lake: LocalLakebase) -> None:
    set_pace(lake, 300)
    run = site.trigger("night_deferred")
    statement = "INSERT INTO night_deferred%"
    eventually(lambda: is_under_way(lake, statement), within=PATIENCE, every=0.2)
    site.kill_service("triggerer")
    eventually(lambda: not is_under_way(lake, statement), within=PATIENCE, every=0.2)
    set_pace(lake, 1)
    site.start_service("triggerer", "--skip-serve-logs")

    assert site.end_of("night_deferred", run) == "success"
    assert lake.admin.execute("SELECT count(*) FROM night_deferred")[0][0] == 1


@pytest.mark.parametrize(
    ("who", "task"),
    [
        ("worker", "create"),
        ("worker", "work"),
        ("worker", "delete"),
        ("triggerer", "create"),
        ("triggerer", "delete"),
    ],
)
def test_a_branch_goes_whoever_is_killed(site: AirflowSite, lake: LocalLakebase, who: str, task: str) -> None:
    # Seconds, so that the triggerer has something to wait for.
    lake.admin.set(operation_seconds=5.0)
    run = site.trigger("night_branch")
    state = "running" if who == "worker" else "deferred"
    found = eventually_in(site, "night_branch", run, task, state)
    # Anywhere: the process starts, asks, works, waits for the workspace, reports.
    pause(random.Random(f"{who} {task}").uniform(0, 4))  # noqa: S311 # no secret
    if who == "worker":
        assert found.pid is not None
        with suppress(psutil.NoSuchProcess):
            psutil.Process(found.pid).kill()
    else:
        site.kill_service("triggerer")
        site.start_service("triggerer", "--skip-serve-logs")

    assert site.end_of("night_branch", run) == "success"
    with LakebaseClient(lake.config()) as client:
        assert left(client) == []
    assert lake.admin.execute("SELECT count(*), sum(n) FROM night_kept") == [(10, 55)]


def test_a_crowd_waits_its_turn(site: AirflowSite, small_lake: LocalLakebase) -> None:
    small_lake.admin.reset_counters()
    run = site.trigger("night_crowd")
    assert site.end_of("night_crowd", run) == "success"

    counted = small_lake.admin.counters()
    seconds, lines = [], Counter[int]()
    for number in range(CROWD):
        log = site.log("night_crowd", run, "hold", map_index=number)
        ours = [line for line in log if line.startswith("lakebase_provider")]
        lines[number] = len(ours)
        seconds.append(site.seconds_of("night_crowd", run, "hold", number))
    longest, most = max(range(CROWD), key=lambda n: seconds[n]), max(lines.values())
    print(
        f"{counted}; the tasks took {sum(seconds):.0f} s in all; at most {most} lines a task; of the longest:"
    )
    print("\n".join(site.log("night_crowd", run, "hold", map_index=longest)))
    assert most <= 8
    assert counted.logins + counted.refused_logins <= CROWD + sum(seconds) / 5
