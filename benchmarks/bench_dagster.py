"""Physical connections and mints of a Dagster job of five steps, by executor, counted on the server.

Each step reads by the resource and stores by the I/O manager. The in-process executor runs all steps in one
process; the multiprocess executor, Dagster's default, gives each step its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import Bench
from lakebase_provider.local import LocalLakebase

STEPS = 5

JOB = f"""
import dagster as dg
import pandas as pd

from dagster_lakebase import LakebaseIOManager, LakebaseResource


def step(number):
    @dg.asset(name=f"bench_step_{{number}}", deps=[f"bench_step_{{number - 1}}"] if number else [])
    def build(lakebase: LakebaseResource) -> pd.DataFrame:
        for _ in range(10):
            lakebase.fetch("SELECT 1")
        return pd.DataFrame({{"n": [number]}})

    return build


jobs = [
    dg.define_asset_job("in_process", executor_def=dg.in_process_executor),
    dg.define_asset_job(
        "multiprocess", executor_def=dg.multiprocess_executor.configured({{"max_concurrent": 2}})
    ),
]
defs = dg.Definitions(
    assets=[step(number) for number in range({STEPS})],
    jobs=jobs,
    resources={{
        "lakebase": LakebaseResource(),
        "io_manager": LakebaseIOManager(lakebase=LakebaseResource()),
    }},
)
"""


def execute(job: str, file: Path, environment: dict[str, str]) -> float:
    """Run the job by Dagster's command; seconds that it took."""
    started = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-m", "dagster", "job", "execute", "-f", str(file), "-j", job],
        env=environment,
        cwd=file.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise SystemExit(result.stdout[-4000:] + result.stderr[-4000:])
    return time.perf_counter() - started


def main() -> int:
    """Run both executors.

    Returns:
        0 if the goals are met.
    """
    bench = Bench("dagster")
    with tempfile.TemporaryDirectory() as folder, LocalLakebase() as lake:
        home = Path(folder)
        (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        file = home / "job.py"
        file.write_text(JOB)
        environment = {**os.environ, **lake.env(), "DAGSTER_HOME": folder}
        environment["PYTHONPATH"] = str(Path.cwd())
        for job, processes in (("in_process", 1), ("multiprocess", STEPS)):
            before = lake.admin.counters()
            seconds = execute(job, file, environment)
            after = lake.admin.counters()
            logins, mints = after.logins - before.logins, after.mints - before.mints
            name = f"5-step job, {job}"
            bench.record(name, "physical connections", logins, "connections")
            bench.record(name, "tokens minted", mints, "mints")
            bench.record(name, "whole command", seconds, "s")
            bench.at_most(f"{job}: connections for each step process", logins / processes, 1)
            bench.at_most(f"{job}: mints for each step process", mints / processes, 1)
    return bench.finish()


if __name__ == "__main__":
    raise SystemExit(main())
