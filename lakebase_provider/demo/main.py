"""Runs the examples, each in its own process as a scheduler would, and compares what they wrote."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from rich.console import Console

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.demo.expected import ORDERS_VARIABLE, Difference, compare_tables
from lakebase_provider.demo.leaks import search_for_secrets
from lakebase_provider.demo.report import print_report
from lakebase_provider.demo.run import run_example
from lakebase_provider.local import LocalLakebase

#: Lifetime of a token in seconds, and rows to load: so short and so many that each run must renew its token.
_TOKEN_LIFETIME = 1.5
_ORDERS = 400_000
#: Width of the table in columns if the output is not a terminal.
_WIDTH = 120


def run_demo(example_dags: Path, logs: Path) -> int:
    """Run the demo and print one table.

    Args:
        example_dags: Folder of the examples.
        logs: Folder for the output of the runs, including their homes; its contents are deleted.

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
                remedy="Give the folder of the examples with --example-dags.",
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
            "AIRFLOW_CONN_LAKEBASE_DEFAULT": lake.airflow_connection(),
            ORDERS_VARIABLE: str(_ORDERS),
            "AIRFLOW_HOME": str((logs / "airflow_home").resolve()),
            "DAGSTER_HOME": str((logs / "dagster_home").resolve()),
        }
        runs = [
            run_example(
                "Airflow", "etl_airflow", "airflow_run", examples, "lakebase_etl.py", environment, logs, say
            ),
            run_example(
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
            say("comparing the tables with the expected contents")
            with client.connection() as connection:
                differences: list[Difference] = [
                    difference
                    for run in runs
                    for difference in compare_tables(connection, run.schema, _ORDERS)
                ]
            say("looking for secrets in everything that the runs left behind")
            # The first part of a JWT says how it is signed and is the same for all of an issuer's tokens.
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
