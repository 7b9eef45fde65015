"""Runs the examples, each in a process of its own as a scheduler would, and compares what they wrote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.demo.expected import ORDERS_VARIABLE, Difference, compare_tables
from lakebase_provider.demo.leaks import search_for_secrets
from lakebase_provider.demo.report import print_report
from lakebase_provider.local import LocalLakebase

#: Seconds that a token lives, and rows to load: so few and so many that each run has to renew its token.
_TOKEN_LIFETIME = 1.5
_ORDERS = 250_000
#: Columns of the table where the output is no terminal.
_WIDTH = 120


@dataclass(frozen=True)
class Run:
    """What one run of an example reported.

    Attributes:
        title: Who ran it.
        schema: Where it wrote.
        steps: ``{"name", "kind", "state", "seconds"}`` for each task, step or check.
        mints: Tokens that its process minted.
        connections: Physical connections that its process opened.
        checkouts: Connections that its pools lent.
        succeeded: The process ended well and every step did.
        log: Where its output is.
    """

    title: str
    schema: str
    steps: list[dict[str, Any]]
    mints: int
    connections: int
    checkouts: int
    succeeded: bool
    log: Path


def run_demo(example_dags: Path, logs: Path) -> int:
    """Run the demo and print one table.

    Args:
        example_dags: Folder of the examples.
        logs: Folder for the output of the runs, their homes included; what is in it goes.

    Returns:
        0 if every task, step and check passed, each run renewed its token, the tables hold what they should,
        and no secret is in anything that the runs left behind; 1 otherwise.

    Raises:
        ConfigError: The examples are not there.
    """
    examples = example_dags.resolve()
    for name in ("lakebase_etl.py", "lakebase_dagster.py"):
        if not (examples / name).is_file():
            raise ConfigError(
                f"There is no {name} in {example_dags}.",
                remedy="Run it in a clone, or name the folder: --example-dags.",
            )
    shutil.rmtree(logs, ignore_errors=True)
    for home in ("airflow_home", "dagster_home"):
        (logs / home).mkdir(parents=True)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    start = time.monotonic()

    def say(text: str) -> None:
        console.print(
            f"[{time.monotonic() - start:6.1f} s] {text}", markup=False, highlight=False, soft_wrap=True
        )

    say("starting a local Lakebase")
    with LocalLakebase(token_lifetime=_TOKEN_LIFETIME) as lake:
        address = lake.env()
        say(f"it listens on {address['PGHOST']}:{address['PGPORT']}; tokens live {_TOKEN_LIFETIME:g} s")
        environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("AIRFLOW", "DAGSTER"))
            },
            **lake.env(),
            ORDERS_VARIABLE: str(_ORDERS),
            "AIRFLOW_HOME": str((logs / "airflow_home").resolve()),
            "DAGSTER_HOME": str((logs / "dagster_home").resolve()),
        }
        runs = [
            _run(
                "Airflow", "etl_airflow", "airflow_run", examples, "lakebase_etl.py", environment, logs, say
            ),
            _run(
                "Dagster",
                "etl_dagster",
                "dagster_run",
                examples,
                "lakebase_dagster.py",
                environment,
                logs,
                say,
            ),
        ]
        counters = lake.admin.counters()
        say("health check")
        with LakebaseClient(lake.config()) as client:
            health = client.health()
            say("comparing the tables with what they should hold")
            with client.connection() as connection:
                differences: list[Difference] = [
                    difference
                    for run in runs
                    for difference in compare_tables(connection, run.schema, _ORDERS)
                ]
            say("looking for secrets in all that the runs left behind")
            # The first part of a JWT says how it is signed and is the same for all tokens of one issuer.
            token_start = client.tokens.get().reveal().split(".")[0]
        secrets = {"a token": token_start, "the client secret": address["DATABRICKS_CLIENT_SECRET"]}
        search = search_for_secrets(logs, secrets)
    say("done")
    renewed = all(run.mints > 1 for run in runs)
    passed = (
        all(run.succeeded for run in runs)
        and renewed
        and health.ok
        and all(difference.as_expected for difference in differences)
        and not search.leaks
    )
    print_report(console, runs, counters, health, differences, search, renewed=renewed, passed=passed)
    return 0 if passed else 1


def _run(
    title: str,
    schema: str,
    module: str,
    examples: Path,
    file: str,
    environment: Mapping[str, str],
    logs: Path,
    say: Any,
) -> Run:
    """Run one example and show its progress, which it writes as JSON lines to a pipe."""
    log = logs / f"{title.lower()}.log"
    say(f"{title}: starting (output in {log})")
    steps: list[dict[str, Any]] = []
    counters = {"mints": 0, "connections": 0, "checkouts": 0}
    read_end, write_end = os.pipe()
    with log.open("wb") as output:
        command = [
            sys.executable,
            "-m",
            f"lakebase_provider.demo.{module}",
            str(examples / file),
            str(write_end),
        ]
        process = subprocess.Popen(  # noqa: S603 # our own module, and a path that was checked
            command, env=dict(environment), stdout=output, stderr=subprocess.STDOUT, pass_fds=[write_end]
        )
        os.close(write_end)
        with os.fdopen(read_end) as progress:
            for line in progress:
                event = json.loads(line)
                if "counters" in event:
                    counters.update(event["counters"])
                elif "step" in event:
                    steps.append(event["step"])
                    say("{0}: {kind} {name}: {state} in {seconds:.2f} s".format(title, **event["step"]))
                else:
                    say(f"{title}: {event['message']}")
        code = process.wait()
    succeeded = code == 0 and bool(steps) and all(step["state"] == "success" for step in steps)
    if not succeeded:
        say(f"{title}: FAILED with exit code {code}; the last lines of {log}:")
        for line in log.read_text(errors="replace").splitlines()[-15:]:
            say(f"    {line}")
    return Run(title, schema, steps, succeeded=succeeded, log=log, **counters)
