"""Maintenance as tasks: what each does, and what is refused when the DAG is parsed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from lakebase_provider.core.errors import ConfigError, LockTimeoutError, TableNotFoundError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.maintenance import (
    LakebaseAnalyzeOperator,
    LakebaseIndexOperator,
    LakebasePartitionsOperator,
    LakebaseRefreshMaterializedViewOperator,
    LakebaseRepairSequencesOperator,
    LakebaseStatementsDigestOperator,
    LakebaseVacuumOperator,
)
from lakebase_provider.operators.maintenance.maintaining import MaintainingOperator
from tests.airflow.test_branch_operators import cause_of, ran

SETUP = [
    "DROP TABLE IF EXISTS upkept CASCADE; DROP TABLE IF EXISTS upkept_parts",
    "CREATE TABLE upkept (id serial PRIMARY KEY, day date)",
    "INSERT INTO upkept SELECT n, '2027-01-01' FROM generate_series(1, 200) n",
    "CREATE MATERIALIZED VIEW upkept_days AS SELECT day, count(*) FROM upkept GROUP BY day",
    "CREATE TABLE upkept_parts (day date) PARTITION BY RANGE (day)",
]


@pytest.fixture
def tables(lake: LocalLakebase) -> None:
    LakebaseHook().run(SETUP, autocommit=True)


def steps(operator: MaintainingOperator) -> list[tuple[str, str]]:
    report = ran(operator)
    assert report["markdown"].startswith(f"## Maintenance: {report['action']}")
    return [(step["target"], step["did"]) for step in report["steps"]]


def test_each_does_its_work(tables: None, tmp_path: Path) -> None:
    [(table, did)] = steps(LakebaseVacuumOperator(task_id="t", tables=["upkept"]))
    assert (table, did.partition(" (")[0]) == ("public.upkept", "vacuumed and analyzed")
    assert steps(LakebaseAnalyzeOperator(task_id="t", tables="upkept")) == [("public.upkept", "analyzed")]
    index: dict[str, Any] = {"task_id": "t", "table": "upkept_days"}
    assert steps(LakebaseIndexOperator(**index, on=["day"], unique=True)) == [
        ("public.upkept_days_day_idx", "built")
    ]
    refresh = LakebaseRefreshMaterializedViewOperator(task_id="t", views=["{{ 'upkept' }}_days"])
    assert steps(refresh) == [("public.upkept_days", "refreshed concurrently")]
    assert steps(LakebaseIndexOperator(**index, action="reindex")) == [
        ("public.upkept_days_day_idx", "rebuilt")
    ]
    drop = LakebaseIndexOperator(task_id="t", action="drop", index="public.upkept_days_day_idx")
    assert steps(drop) == [("public.upkept_days_day_idx", "dropped")]
    assert steps(drop) == []
    moved = steps(LakebaseRepairSequencesOperator(task_id="t", tables=["upkept"]))
    assert moved == [("public.upkept_id_seq", "its next value is 201 now, and was 1")]
    partitions: dict[str, Any] = {"task_id": "t", "table": "upkept_parts", "every": "month", "premake": 0}
    for at in ("2027-01-15T00:00:00Z", "{{ '2027-02-15T00:00:00Z' }}"):
        assert len(steps(LakebasePartitionsOperator(**partitions, at=at))) == 1
    archive = f"{tmp_path}/{{{{ 'a' }}}}-{{partition}}.parquet"
    retire = LakebasePartitionsOperator(**partitions, at="2027-02-15T00:00:00Z", keep=0, archive=archive)
    assert [did for _, did in steps(retire)] == ["detached", "archived: 0 rows", "dropped"]
    assert (tmp_path / "a-upkept_parts_p2027_01.parquet").exists()


def test_what_a_retry_cannot_help_ends_the_task(tables: None) -> None:
    missing = cause_of(LakebaseVacuumOperator(task_id="t", tables=["no_such_table"]))
    assert isinstance(missing, TableNotFoundError)
    if LakebaseHook().get_first("SELECT count(*) FROM pg_extension WHERE extname = 'pg_stat_statements'")[0]:
        return
    assert isinstance(cause_of(LakebaseStatementsDigestOperator(task_id="t")), ConfigError)


def test_a_lock_is_what_a_retry_may_help_with(tables: None) -> None:
    analyze = LakebaseAnalyzeOperator(task_id="t", tables=["upkept"], lock_timeout=0.2, attempts=1)
    with LakebaseHook().client.connect() as other:
        other.execute("LOCK TABLE upkept")
        with pytest.raises(LockTimeoutError, match=f"It was held by pid {other.info.backend_pid} "):
            ran(analyze)
    assert ran(analyze)["skipped"] == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LakebaseVacuumOperator(task_id="t", dead_share=20), "'dead_share' must be from 0 to 1"),
        (lambda: LakebaseVacuumOperator(task_id="t", lock_timeout=0), "'lock_timeout' must be above 0"),
        (lambda: LakebaseVacuumOperator(task_id="t", attempts=0), "'attempts' must be"),
        (lambda: LakebaseVacuumOperator(task_id="t", hook_params={"x": 1}), "hook_params contain 'x'"),
        (
            lambda: LakebaseRefreshMaterializedViewOperator(task_id="t", views="v", concurrently="no"),  # type: ignore[arg-type]
            "'concurrently' must be",
        ),
        (lambda: LakebaseIndexOperator(task_id="t", action="build"), "'action' is 'build'"),  # type: ignore[arg-type]
        (lambda: LakebaseIndexOperator(task_id="t", table="x"), "'on' is missing"),
        (lambda: LakebaseIndexOperator(task_id="t", action="drop", table="x", index="y"), "'table' has no"),
        (lambda: LakebaseIndexOperator(task_id="t", action="reindex"), "Either 'table' or 'index'"),
        (
            lambda: LakebaseIndexOperator(task_id="t", action="reindex", table="x", unique=True),
            "'unique' is of an index that is created",
        ),
        (lambda: LakebasePartitionsOperator(task_id="t", table="x", every="hour"), "'every' is 'hour'"),  # type: ignore[arg-type]
        (
            lambda: LakebasePartitionsOperator(task_id="t", table="x", every="day", archive="/x"),
            r"'archive' has no \{partition\}",
        ),
        (
            lambda: LakebasePartitionsOperator(task_id="t", table="x", every="day", archive="{partition}"),
            "'archive' without 'keep'",
        ),
        (lambda: LakebaseStatementsDigestOperator(task_id="t", top=0), "'top' must be"),
        (lambda: LakebaseVacuumOperator.partial(task_id="t", dead_share=2), "'dead_share' must be"),
    ],
    ids=range(15),
)
def test_what_cannot_work_is_refused_when_the_dag_is_parsed(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_it_works_on_the_branch_that_is_named(tables: None) -> None:
    with pytest.raises(AirflowFailException, match="branch id not found"):
        ran(LakebaseAnalyzeOperator(task_id="t", tables=["upkept"], branch="no-such-branch"))
