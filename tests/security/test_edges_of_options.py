"""Moments at the edges of the calendar, and numbers and texts beyond what anybody means."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

# It says where Airflow's home is, before the first import of Airflow.
import tests.airflow.conftest  # noqa: F401 # isort: skip

from airflow.sdk.exceptions import AirflowFailException

from lakebase_provider.cli.command import main
from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ConfigError, LakebaseError
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.branches import LakebaseCreateBranchOperator, LakebaseRestoreOperator
from lakebase_provider.operators.restore_rows import LakebaseRestoreRowsOperator

EDGES = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]
edges = pytest.mark.parametrize("edge", EDGES)


@pytest.fixture
def client(lakebase_env: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config()) as found:
        yield found


@edges
def test_a_moment_at_the_edge_is_told_by_its_option(client: LakebaseClient, edge: str) -> None:
    at, workspace = datetime.fromisoformat(edge), client.workspace
    calls: dict[str, Callable[[], Any]] = {
        "source_branch_time": lambda: workspace.branches.create("run-x", ttl=60, source_branch_time=at),
        "expire_time": lambda: workspace.branches.create("run-x", expire_time=at),
        "expire_time' ": lambda: workspace.branches.ensure("run-x", on_exists="recreate", expire_time=at),
        "expire_time'  ": lambda: workspace.branches.update("production", expire_time=at),
        "source_branch_time' ": lambda: client.branches.take("x", at_time=at),
        "expire_time'": lambda: workspace.snapshots.create(
            "run-x", source_branch="production", expire_time=at
        ),
        "at": lambda: client.restore_rows("t", at=at),
        "at'": lambda: client.restore_rows("t", at=edge),
        "at' ": lambda: client.restore_rows("t", at={"time": edge}),
    }
    for option, call in calls.items():
        with pytest.raises(ConfigError, match=rf"'{option.rstrip(chr(39) + ' ')}'"):
            call()


@edges
def test_in_airflow_it_is_no_reason_to_try_again(
    lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch, edge: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lakebase_env.airflow_connection())
    for make in (
        lambda: LakebaseCreateBranchOperator(task_id="a", branch_id="run-x", at_time=edge),
        lambda: LakebaseRestoreOperator(task_id="b", branch_id="run-x", ttl=60, at_time=edge),
        lambda: LakebaseRestoreRowsOperator(task_id="c", table="t", at=edge),
    ):
        with pytest.raises((AirflowFailException, ConfigError), match="years 1 to 9999"):
            make().execute({})


@edges
def test_and_in_a_terminal_no_traceback(
    lakebase_env: LocalLakebase, capsys: pytest.CaptureFixture[str], edge: str
) -> None:
    for command in (
        ["restore-rows", "t", "--at", edge],
        ["branches", "create", "run-x", "--ttl", "60", "--at", edge],
    ):
        assert main(command) == 1
        assert "years 1 to 9999 in UTC" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["\ud800", "a.\udfff", ("\ud800", "a")], ids=ascii)
def test_half_of_a_surrogate_pair_is_no_table(client: LakebaseClient, name: Any) -> None:
    for call in (
        lambda: client.branches.warm([name]),
        lambda: client.restore_rows(name, at="0/1"),
        lambda: client.load("x.csv", name),
    ):
        with pytest.raises(ConfigError, match="half of a surrogate pair"):
            call()


@pytest.mark.parametrize("value", [-1, -1e9, 1e308])
@pytest.mark.parametrize("name", ["older_than", "held"])
def test_a_sweep_takes_seconds_that_there_are(client: LakebaseClient, name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' must be"):
        client.branches.sweep(**{name: value}, dry_run=True)  # type: ignore[arg-type] # a number each


@pytest.mark.parametrize("ttl", [1e308, 1e12, -1.0])
def test_nothing_lives_for_ever(client: LakebaseClient, ttl: float) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: client.workspace.branches.create("run-x", ttl=ttl),
        lambda: client.workspace.snapshots.create("run-x", source_branch="production", ttl=ttl),
        lambda: client.branches.take("x", ttl=ttl),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match="'ttl' must be"):
            call()


def test_the_client_stays_usable(client: LakebaseClient) -> None:
    with pytest.raises(LakebaseError):
        client.branches.warm(["\ud800"])
    assert client.branches.warm() >= 0
