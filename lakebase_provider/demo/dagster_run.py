"""Runs the example Dagster job for the demo: ``python -m … FILE DESCRIPTOR``."""

from __future__ import annotations

import logging
import runpy
import sys
import uuid
from pathlib import Path

import dagster as dg

from lakebase_provider.demo.progress import Progress

_JOB = "lakebase_etl_job"


def main(file: str, descriptor: int) -> int:
    """Run the job in this process, on an instance that lives as long as it does.

    Args:
        file: The file of the definitions.
        descriptor: Where to write progress.

    Returns:
        0 if the run succeeded.
    """
    logging.basicConfig(level=logging.DEBUG)
    progress = Progress(descriptor)
    progress.message(f"running {_JOB} of {Path(file).name}")
    definitions: dg.Definitions = runpy.run_path(file)["defs"]
    run_id = str(uuid.uuid4())
    with dg.DagsterInstance.ephemeral() as instance:
        started: dict[str | None, float] = {}

        def report(entry: dg.EventLogEntry) -> None:
            event = entry.dagster_event
            if event is None:
                return
            if event.is_step_start:
                started[event.step_key] = entry.timestamp
            elif event.is_step_success or event.is_step_failure:
                state = "success" if event.is_step_success else "failed"
                seconds = entry.timestamp - started.get(event.step_key, entry.timestamp)
                progress.step("step", str(event.step_key), state, seconds)
            elif event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                check = event.asset_check_evaluation_data
                name = f"{check.asset_key.to_user_string()}:{check.check_name}"
                progress.step("check", name, "success" if check.passed else "failed", 0.0)

        instance.add_event_listener(run_id, report)
        result = definitions.resolve_job_def(_JOB).execute_in_process(
            instance=instance, run_id=run_id, raise_on_error=False
        )
    progress.counters()
    return 0 if result.success else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
