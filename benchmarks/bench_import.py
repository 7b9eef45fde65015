"""What importing our modules costs, to a DAG file and to a task process: `make bench-import`."""

from __future__ import annotations

import atexit
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Bench

_HOME = Path(tempfile.mkdtemp(prefix="lakebase-bench-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
# Airflow reads its configuration when it is imported, so this stands before every import of it.
os.environ.update(
    AIRFLOW_HOME=str(_HOME),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_HOME}/airflow.db",
    AIRFLOW__LOGGING__LOGGING_LEVEL="WARNING",
)

# Ours are compiled in the round that warms up, as pip compiles what it installs, peers included.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

#: What no DAG file needs before its tasks run.
_HEAVY = ("psycopg", "psycopg_pool", "databricks", "pandas", "pyarrow", "polars", "urllib3", "sqlalchemy")

_OURS = """
    from airflow.sdk import DAG
    from lakebase_provider.operators.health import LakebaseHealthCheckOperator
    from lakebase_provider.operators.sql import LakebaseSqlOperator

    with DAG("ours") as dag:
        LakebaseHealthCheckOperator(task_id="health") >> LakebaseSqlOperator(task_id="query", sql="SELECT 1")
"""
_PEER = """
    from airflow.sdk import DAG
    from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator

    with DAG("peer") as dag:
        SQLExecuteQueryOperator(task_id="health", conn_id="a", sql="SELECT 1") >> SQLExecuteQueryOperator(
            task_id="query", conn_id="a", sql="SELECT 1"
        )
"""
_EMPTY = """
    from airflow.sdk import DAG

    with DAG("empty") as dag:
        pass
"""

_TASK = """
    import airflow.sdk
    from airflow.providers.common.sql.hooks.sql import DbApiHook
    from {module} import {hook}

    assert {hook}("bench").get_first("SELECT 1") == (1,)
"""


def cpu_milliseconds_of_parse(file: Path, *before: str) -> Callable[[], float]:
    """A contender that executes a DAG file in a fork of this process, as the DAG processor does.

    Args:
        file: The DAG file.
        before: Modules that the fork imports first, uncounted.
    """

    def measure() -> float:
        return float(in_fork(lambda: _parse(file, before))[0])

    return measure


def modules_after_parse(file: Path) -> list[str]:
    """The heavy packages that a DAG file brings along, beyond what Airflow has loaded."""
    return [str(name) for name in in_fork(lambda: _parse(file, ()))[1:]]


def _parse(file: Path, before: tuple[str, ...]) -> list[object]:
    for name in before:
        __import__(name)
    loaded = set(sys.modules)
    code = compile(file.read_text(), str(file), "exec")
    start = time.process_time()
    exec(code, {"__name__": file.stem})  # noqa: S102 # as the DAG processor does, and the text is ours
    used = (time.process_time() - start) * 1000
    brought = {name.partition(".")[0] for name in set(sys.modules) - loaded}
    return [used, *sorted(brought.intersection(_HEAVY))]


def in_fork(run: Callable[[], list[object]]) -> list[object]:
    """What a function returns in a fork of this process, which is as it was afterwards."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(write_end, json.dumps(run()).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        found = answer.read()
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError("A fork failed; see above.")
    result: list[object] = json.loads(found)
    return result


def measure_parsing(bench: Bench) -> None:
    """DAG files in forks of a process that has loaded what the DAG processor has."""
    import airflow.dag_processing.processor
    import airflow.sdk

    del airflow
    files = {}
    for name, text in (("ours", _OURS), ("peer", _PEER), ("empty", _EMPTY)):
        files[name] = _HOME / f"{name}.py"
        files[name].write_text(textwrap.dedent(text))
    ours, peer = "LakebaseSql + HealthCheck", "SQLExecuteQuery x 2"
    figures = bench.compare(
        "DAG parse, Airflow loaded",
        "CPU ms",
        {
            ours: cpu_milliseconds_of_parse(files["ours"]),
            peer: cpu_milliseconds_of_parse(files["peer"]),
            "no operator": cpu_milliseconds_of_parse(files["empty"]),
        },
        # One takes 60 ms and may take 70 % more than another: what is asked for is a difference of 10 %.
        rounds=151,
    )
    bench.at_most("DAG parse: ours / SQLExecuteQueryOperator", bench.ratio(figures, ours, peer), 1.1)
    brought = modules_after_parse(files["ours"])
    bench.at_most(f"heavy packages that our DAG file imports {brought or ''}".rstrip(), len(brought), 0)

    # Another DAG file that names it may have let the processor load common-sql: what is ours alone remains.
    common_sql = "airflow.providers.common.sql.operators.sql"
    figures = bench.compare(
        "DAG parse, common-sql loaded, too",
        "CPU ms",
        {
            ours: cpu_milliseconds_of_parse(files["ours"], common_sql),
            peer: cpu_milliseconds_of_parse(files["peer"], common_sql),
        },
        rounds=15,
    )
    more = statistics.median(figures[ours]) - statistics.median(figures[peer])
    bench.record("DAG parse, common-sql loaded, too", "ours, more", more, "CPU ms")


def measure_tasks(bench: Bench) -> None:
    """CPU of a process from its start to a hook's first row, Airflow's own imports included."""
    from lakebase_provider.local import LocalLakebase

    with LocalLakebase() as lake:
        env = lake.env()
        lake.admin.set_native_password("bench", "bench-password")
        peers = {
            "conn_type": "postgres",
            "host": env["PGHOST"],
            "port": int(env["PGPORT"]),
            "login": "bench",
            "password": "bench-password",
            "schema": env["PGDATABASE"],
            "extra": {"sslmode": "verify-full", "sslrootcert": env["PGSSLROOTCERT"]},
        }
        figures = bench.compare(
            "fresh task process to first row",
            "CPU s",
            {
                "LakebaseHook": cpu_seconds_of_task(
                    "lakebase_provider.hooks.lakebase", "LakebaseHook", lake.airflow_connection()
                ),
                "PostgresHook": cpu_seconds_of_task(
                    "airflow.providers.postgres.hooks.postgres", "PostgresHook", json.dumps(peers)
                ),
            },
            rounds=15,
        )
    ratio = bench.ratio(figures, "LakebaseHook", "PostgresHook")
    bench.at_most("fresh task process to first row: ours / PostgresHook", ratio, 1.05)


def cpu_seconds_of_task(module: str, hook: str, connection: str) -> Callable[[], float]:
    """A contender that reads one row in a fresh process and returns its CPU seconds, user and system."""
    code = textwrap.dedent(_TASK.format(module=module, hook=hook))
    env = {**os.environ, "AIRFLOW_CONN_BENCH": connection}

    def measure() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], env=env, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return measure


def main() -> int:
    """Measure and print."""
    bench = Bench("import")
    # First, while this process has loaded none of our modules: its forks would have them for nothing.
    measure_parsing(bench)
    measure_tasks(bench)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(main())
