"""Names, files and output of others: on a terminal, in frames, and beyond a connection's project."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

# It says where Airflow's home is, before the first import of Airflow.
import tests.airflow.conftest  # noqa: F401 # isort: skip

from airflow.sdk.exceptions import AirflowFailException

from dagster_lakebase import LakebaseResource, lakebase_create_branch_op, lakebase_delete_branch_op
from lakebase_provider.cli.command import main
from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ConfigError, MigrationError
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators import branches
from lakebase_provider.operators.rehearse import LakebaseRehearseOperator
from tests.dagster.test_launchpad import error_of

SECRET = "dose-the-canary-sings-small"


@pytest.fixture
def lake(lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> LocalLakebase:
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lakebase_env.airflow_connection())
    return lakebase_env


@pytest.fixture
def client(lakebase_env: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config()) as found:
        yield found


def test_a_pipe_is_not_rehearsed(
    lake: LocalLakebase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.sql")
    done: list[int] = []
    # Whoever waits for a writer waits for ever.
    thread = threading.Thread(
        target=lambda: done.append(main(["rehearse", str(tmp_path / "pipe.sql")])), daemon=True
    )
    thread.start()
    thread.join(30)
    assert done == [1]
    assert "is a named pipe" in capsys.readouterr().err


def test_a_files_name_is_one_line(
    lake: LocalLakebase, client: LakebaseClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x\nlakebase: all is well\x1b[2J.sql").write_text("SELECT 1")
    with pytest.raises(MigrationError) as caught:
        client.migrations.run(tmp_path)
    assert "\n" not in caught.value.message
    assert "\x1b" not in str(caught.value)
    assert main(["migrate", "run", str(tmp_path)]) == 1
    assert not [line for line in capsys.readouterr().err.splitlines() if line.startswith("lakebase: all")]


CODES = "\x1b[31m\x1b]0;a title\x07\x9b1mred\x1b[0m \x1b(B\x08\u202e\tend"


def test_a_commands_codes_reach_no_log(client: LakebaseClient, caplog: pytest.LogCaptureFixture) -> None:
    program = (
        "import os, sys; t = os.environ['PGPASSWORD'];"
        f"sys.stdout.buffer.write(({CODES!r} + '\\n' + t[:20] + '\\x1b[0m' + t[20:] + '\\n').encode())"
    )
    with caplog.at_level(logging.INFO):
        report = client.migrations.command([sys.executable, "-c", program])
    assert report.output[0] == "red \\x08\\u202e\tend"
    assert set(report.output[1]) <= set("*")
    for told in (caplog.text, *report.output):
        assert "\x1b" not in told
        assert "\x9b" not in told
    with pytest.raises(MigrationError) as caught:
        client.migrations.command([sys.executable, "-c", f"print({CODES!r}); raise SystemExit(1)"])
    assert "\x1b" not in str(caught.value)


VICTIM = "projects/victim/branches/x"


@pytest.mark.parametrize(
    "make",
    [
        lambda: branches.LakebaseDeleteBranchOperator(task_id="t", branch=VICTIM),
        lambda: branches.LakebaseResetBranchOperator(task_id="t", branch=VICTIM),
        lambda: branches.LakebaseCreateBranchOperator(task_id="t", branch_id=VICTIM),
        lambda: branches.LakebaseCreateBranchOperator(task_id="t", branch_id="run-x", source=VICTIM),
        lambda: branches.LakebaseRestoreOperator(task_id="t", branch_id=VICTIM, ttl=60, at_lsn="0/1"),
        lambda: branches.LakebaseSnapshotOperator(task_id="t", source=VICTIM, ttl=60),
        lambda: branches.LakebaseSnapshotOperator(
            task_id="t", source="production", ttl=60, snapshot_id="projects/victim/snapshots/x"
        ),
        lambda: branches.LakebaseEndpointOperator(task_id="t", action="suspend", branch=VICTIM),
        lambda: branches.LakebaseEndpointOperator(
            task_id="t", action="suspend", endpoint=f"{VICTIM}/endpoints/primary"
        ),
    ],
    ids=lambda make: "",
)
def test_no_name_leads_out_of_the_connections_project(lake: LocalLakebase, make: Callable[[], Any]) -> None:
    with pytest.raises(AirflowFailException, match="is in another project than"):
        make().execute({})


@pytest.mark.parametrize("op", [lakebase_create_branch_op, lakebase_delete_branch_op])
def test_nor_does_a_runs_configuration(lake: LocalLakebase, op: dg.OpDefinition) -> None:
    @dg.job(resource_defs={"lakebase": LakebaseResource()})
    def one() -> None:
        op()

    config = {"ops": {op.name: {"config": {"branch": VICTIM}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        result = one.execute_in_process(instance=instance, run_config=config, raise_on_error=False)
    assert "is in another project than" in error_of(result)


def test_who_names_the_project_means_it(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_VICTIMS",
        lake.airflow_connection().replace("projects/local/", "projects/victim/"),
    )
    for given, branch in (
        ({"manage_conn_id": "victims"}, VICTIM),
        ({}, "projects/local/branches/nobody"),
        ({}, "nobody"),
    ):
        operator = branches.LakebaseDeleteBranchOperator(
            task_id="t", branch=branch, deferrable=False, **given
        )
        assert operator.execute({})["deleted"] is False


def test_a_misplaced_secret_is_in_no_frame(lake: LocalLakebase) -> None:
    secret = SECRET
    with pytest.raises(ConfigError) as refused:
        LakebaseRehearseOperator(task_id="t", sql="SELECT 1", lease={"host": secret})  # type: ignore[typeddict-unknown-key]
    operator = branches.LakebaseDeleteBranchOperator(
        task_id="t", branch="x", manage_conn_id=f"lakebase://u:{secret}@host/"
    )
    with pytest.raises(AirflowFailException, match="manage_conn_id is no id") as failed:
        operator.execute({})
    for error in (refused.value, failed.value):
        assert ours(error, secret) == []


def ours(error: BaseException, secret: str) -> list[str]:
    """Local variables of this package's frames in which the secret shows."""
    found, at = [], error.__traceback__
    while at is not None:
        if "lakebase_provider" in at.tb_frame.f_code.co_filename:
            found += [
                f"{at.tb_frame.f_code.co_name}.{name}"
                for name, value in at.tb_frame.f_locals.items()
                if secret in repr(value)
            ]
        at = at.tb_next
    return found + ([str(error)] if secret in str(error) else [])


@pytest.mark.parametrize("given", [{"older_than": -1}, {"held": -1e9}, {"held": "1"}])
def test_a_sweeps_seconds_are_told_when_the_dag_is_parsed(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{min(given)}.* (must be|is -1)"):
        branches.LakebaseSweepBranchesOperator(task_id="t", **given)
