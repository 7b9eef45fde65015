"""An Airflow of the tests' own: its home is a folder that goes with the session."""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lakebase_provider.core.config.allowed_hosts import ALLOW_LOOPBACK
from lakebase_provider.local import LocalLakebase
from tests.airflow_database import airflow_database
from tests.forked import Forks

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from tests.airflow.supervised import Supervisors

# Airflow reads its configuration when it is imported, so this stands before every import of it.
HOME = Path(tempfile.mkdtemp(prefix="lakebase-airflow-"))
DAGS = HOME / "dags"
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ.update(
    AIRFLOW_HOME=str(HOME),
    AIRFLOW__CORE__DAGS_FOLDER=str(DAGS),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__TEST_CONNECTION="Enabled",
    # Seconds that one process waits while another one writes.
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{HOME}/airflow.db?timeout=60",
    AIRFLOW__LOGGING__LOGGING_LEVEL="DEBUG",
    # Seconds. A supervisor may sleep so long beside a task that has ended, and is never told of more often.
    AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL="1",
)

with warnings.catch_warnings():
    # What tests import may be the first to import these, of which some warn; Airflow 3.1 does most of all.
    warnings.simplefilter("ignore")
    importlib.import_module("airflow.models").import_all_models()
    importlib.import_module("airflow.providers.common.sql.operators.sql")
    importlib.import_module("sqlalchemy.orm").configure_mappers()

#: Airflow 3.1 uses libraries that have since deprecated how; the newest Airflow holds our own code to it.
OLD_AIRFLOW = version("apache-airflow-core").startswith("3.1.")
HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "example_dags"
DagLoader = Callable[[str], "DAG"]


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Forks processes that have imported Airflow's command, and nothing of ours."""
    found = Forks(
        "airflow.cli.cli_parser",
        "airflow.cli.commands.connection_command",
        AIRFLOW__LOGGING__LOGGING_LEVEL="WARNING",
    )
    yield found
    found.close()


@pytest.fixture(scope="session")
def airflow_db(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> None:
    """The metadata database."""
    shutil.copy(airflow_database(tmp_path_factory, worker_id), HOME)


def metadata_database() -> bytes:
    """XCom, rendered templates, serialized DAGs and the rest, as they are on the disk.

    Another process reads them: SQLite's locks are a process' own, and all of them are gone when it closes the
    file. Another one would then take itself for the last, and delete the write-ahead log.
    """
    return subprocess.run(["/bin/cat", *HOME.glob("airflow.db*")], stdout=subprocess.PIPE, check=True).stdout


def connection_fields(lake: LocalLakebase, **changes: Any) -> dict[str, Any]:
    """An Airflow connection to `lake` as the form would store it."""
    fields: dict[str, Any] = json.loads(lake.airflow_connection())
    extra = {**fields.pop("extra"), **changes.pop("extra", {})}
    return {**fields, **changes, "extra": extra}


@pytest.fixture
def lake(lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalLakebase]:
    """The local Lakebase, with the connection ``lakebase_default`` leading to it and to it alone."""
    from lakebase_provider.core.shared import close_shared_clients

    # Only the connection may lead there, so that a test cannot pass by what the environment says.
    for name in lakebase_env.env().keys() - {ALLOW_LOOPBACK}:
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.startswith("AIRFLOW_CTX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(HOME / "no-such-file"))
    define(monkeypatch, **connection_fields(lakebase_env))
    yield lakebase_env
    close_shared_clients()


def define(monkeypatch: pytest.MonkeyPatch, conn_id: str = "lakebase_default", **fields: Any) -> None:
    """Define a connection for Airflow, as a deployment does it by the environment."""
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))


@pytest.fixture
def dag_of(airflow_db: None) -> DagLoader:
    """Loads a DAG by its name, with its file in the DAGs folder: no other, for each run reads them all."""
    shutil.rmtree(DAGS, ignore_errors=True)
    DAGS.mkdir()

    def load(name: str) -> DAG:
        [file] = [*EXAMPLES.glob(f"{name}.py"), *(HERE / "dags").glob(f"{name}.py")]
        shutil.copy(file, DAGS)
        spec = importlib.util.spec_from_file_location(f"dag_{name}", DAGS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        dag: DAG = module.dag
        return dag

    return load


@pytest.fixture
def supervisors(airflow_db: None) -> Iterator[Supervisors]:
    """Runs tasks as a worker does, and leaves none behind."""
    from tests.airflow.supervised import Supervisors

    started = Supervisors(HOME)
    yield started
    started.end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if OLD_AIRFLOW and HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))
            # Of what Airflow's own provider "standard" imports there.
            moved = "airflow.utils.deprecation_tools.DeprecatedImportWarning"
            item.add_marker(pytest.mark.filterwarnings(f"ignore::{moved}"))


def pytest_sessionfinish() -> None:
    # Airflow logs at DEBUG that it disposes of its engine, when pytest's streams are closed already.
    logging.getLogger("airflow.settings").setLevel(logging.INFO)
