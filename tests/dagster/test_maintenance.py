"""Maintenance as a job, as an op, and as a component with a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
import pytest
from dagster.components.testing.utils import create_defs_folder_sandbox

from dagster_lakebase import (
    LakebaseConnectionComponent,
    LakebaseMaintenanceComponent,
    LakebaseResource,
    build_lakebase_maintenance_job,
    lakebase_maintenance_op,
)
from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.dagster.runs import causes
from tests.dagster.test_migrations import write

pytestmark = [
    pytest.mark.filterwarnings("ignore:.parse_obj_as. is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.* is currently in beta:dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore:.* is currently in preview:dagster.PreviewWarning"),
]


@pytest.fixture
def tables(lake: LocalLakebase) -> None:
    with LakebaseClient(lake.config()) as client, client.connection() as connection:
        connection.execute(
            "DROP TABLE IF EXISTS tended; CREATE TABLE tended (id serial PRIMARY KEY, day date)"
        )
        connection.execute("INSERT INTO tended SELECT n, '2027-01-01' FROM generate_series(1, 100) n")


def told_by(result: dg.ExecuteInProcessResult) -> dict[str, Mapping[str, Any]]:
    """The metadata of each op's output, by its name."""
    outputs = [event for event in result.all_events if event.is_successful_output]
    return {
        event.step_key: {key: value.value for key, value in event.step_output_data.metadata.items()}
        for event in outputs
    }


def run(job: dg.JobDefinition, **arguments: Any) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return job.execute_in_process(
            instance=instance, resources={"lakebase": LakebaseResource()}, raise_on_error=False, **arguments
        )


def test_a_task_that_fails_does_not_hold_up_the_others(tables: None) -> None:
    job = build_lakebase_maintenance_job(
        [
            ("vacuum", {"tables": ["no_such_table"]}),
            ("create_index", {"table": "tended", "on": ["day"]}),
            ("create_index", {"table": "tended", "on": ["day"]}),
            ("repair_sequences", {"tables": ["tended"]}),
        ],
        name="upkeep",
    )
    result = run(job)
    assert not result.success
    [failed] = [event for event in result.all_events if event.is_step_failure]
    assert failed.step_key == "upkeep_01_vacuum"
    assert "There is no table no_such_table" in str(failed.step_failure_data.error)
    told = told_by(result)
    assert told["upkeep_02_create_index"]["lakebase/done"] == 1
    again = told["upkeep_03_create_index"]
    assert (again["lakebase/done"], again["lakebase/left_alone"]) == (0, 1)
    assert again["lakebase/skipped"].records[0].data["reason"] == "it is there"
    assert "its next value is" in told["upkeep_04_repair_sequences"]["lakebase/maintenance"]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([], "has no tasks"),
        ([("mow", {})], "'action' is 'mow'"),
        (
            [("vacuum", {}), ("vacuum", {"share": 1})],
            "Task 2 of the job lakebase_maintenance: 'vac",
        ),
        ([("partitions", {"table": "x", "every": "hour"})], "'every' is 'hour'"),
    ],
    ids=["none", "action", "option", "value"],
)
def test_what_cannot_work_is_refused_when_it_is_loaded(tasks: list[Any], message: str) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=message):
        build_lakebase_maintenance_job(tasks)


def test_partitions_follow_those_of_an_asset(lake: LocalLakebase) -> None:
    with LakebaseClient(lake.config()) as client, client.connection() as connection:
        connection.execute("DROP TABLE IF EXISTS tended_parts")
        connection.execute("CREATE TABLE tended_parts (day date) PARTITION BY RANGE (day)")
    start = "2027-01-01"
    names = []
    for of_asset in (
        dg.MonthlyPartitionsDefinition(start),
        dg.WeeklyPartitionsDefinition(start, day_offset=1),
        dg.DailyPartitionsDefinition(start),
    ):
        at = "2026-06-30T12:00:00Z"
        options = {"table": "tended_parts", "every": of_asset, "premake": 0, "at": at}
        told = told_by(run(build_lakebase_maintenance_job([("partitions", options)])))
        names.append(told["lakebase_maintenance_01_partitions"]["lakebase/maintenance"])
        lake.admin.execute("DROP TABLE tended_parts")
        lake.admin.execute("CREATE TABLE tended_parts (day date) PARTITION BY RANGE (day)")
        lake.admin.execute(f'ALTER TABLE tended_parts OWNER TO "{lake.client_id}"')
    for told_name, suffix in zip(names, ("_p2026_06", "_p2026w27", "_p2026_06_30"), strict=True):
        assert f"public.tended_parts{suffix}`" in told_name
    lake.admin.execute("DROP TABLE tended_parts")


@pytest.mark.parametrize(
    "of_asset",
    [
        dg.WeeklyPartitionsDefinition("2027-01-01"),
        dg.DailyPartitionsDefinition("2027-01-01", timezone="Europe/Berlin"),
        dg.StaticPartitionsDefinition(["a"]),
    ],
    ids=["from Sunday", "another zone", "no time"],
)
def test_partitions_of_another_kind_are_refused(of_asset: Any) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="are no months, weeks or days of UTC"):
        build_lakebase_maintenance_job([("partitions", {"table": "x", "every": of_asset})])


def test_a_person_launches_the_op(tables: None) -> None:
    @dg.job(executor_def=dg.in_process_executor)
    def maintain() -> None:
        lakebase_maintenance_op()

    def launch(**config: Any) -> dg.ExecuteInProcessResult:
        return run(maintain, run_config={"ops": {"lakebase_maintenance_op": {"config": config}}})

    told = told_by(launch(action="analyze", options={"tables": ["tended"], "lock_timeout": 3.5}))
    assert told["lakebase_maintenance_op"]["lakebase/done"] == 1
    assert not launch(action="analyze", options={"table": "tended"}).success


def test_the_component(tables: None, lake: LocalLakebase) -> None:
    with create_defs_folder_sandbox() as sandbox:
        write(sandbox, "lakebase", LakebaseConnectionComponent, {})
        tasks = [
            {"action": "create_index", "options": {"table": "tended", "on": ["day"]}},
            {"action": "analyze"},
        ]
        nightly = {"tasks": tasks, "cron_schedule": "0 2 * * *", "timezone": "Europe/Berlin"}
        write(sandbox, "nightly", LakebaseMaintenanceComponent, nightly)
        write(sandbox, "by_hand", LakebaseMaintenanceComponent, {"tasks": tasks, "name": "by_hand"})
        with sandbox.build_all_defs() as defs, dg.DagsterInstance.ephemeral() as instance:
            schedule = defs.resolve_schedule_def("lakebase_maintenance_schedule")
            assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 2 * * *", "Europe/Berlin")
            for job in ("lakebase_maintenance", "by_hand"):
                assert defs.resolve_job_def(job).execute_in_process(instance=instance).success
    found = lake.admin.execute("SELECT count(*) FROM pg_indexes WHERE indexname = 'tended_day_idx'")
    assert found == [(1,)]
    lake.admin.execute("DROP TABLE tended")


def test_a_component_whose_task_cannot_work_is_refused() -> None:
    with create_defs_folder_sandbox() as sandbox:
        write(sandbox, "lakebase", LakebaseConnectionComponent, {})
        write(sandbox, "nightly", LakebaseMaintenanceComponent, {"tasks": [{"action": "mow"}]})
        with pytest.raises(Exception, match="building definitions") as caught, sandbox.build_all_defs():
            pass
        assert any("'action' is 'mow'" in str(error) for error in causes(caught.value))
