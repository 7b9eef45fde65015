from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from dagster_lakebase import (
    LakebaseResource,
    build_lakebase_health_checks,
    build_lakebase_health_sensor,
    lakebase_health_check_op,
)
from dagster_lakebase.health.checks import LakebaseHealthCheckConfig
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.upkeep.health.limits import HealthLimits
from lakebase_provider.core.upkeep.health.stage_names import STAGES
from lakebase_provider.core.upkeep.health.stages import FIGURES
from lakebase_provider.local import LocalLakebase
from tests.dagster.runs import materialize

TIMES = {f"lakebase/{name}_ms" for name in STAGES}
MEASURED = {f"lakebase/{name}" for name in FIGURES}
#: A limit that no database keeps.
IMPOSSIBLE = HealthLimits(min_token_seconds=1e9)
CREDENTIALS = "/api/2.0/postgres/credentials"


@dg.job
def health_job() -> None:
    lakebase_health_check_op()


def run_op(resource: LakebaseResource, **config: Any) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return health_job.execute_in_process(
            instance=instance,
            resources={"lakebase": resource},
            run_config={"ops": {"lakebase_health_check_op": {"config": config}}},
            raise_on_error=False,
        )


def failure_of(result: dg.ExecuteInProcessResult) -> dg.Failure:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data = event.step_failure_data
    assert data.user_failure_data is not None
    return dg.Failure(data.user_failure_data.description, data.user_failure_data.metadata)


def numbers(metadata: Any) -> dict[str, float]:
    return {
        name: value.value
        for name, value in metadata.items()
        if isinstance(value, dg.FloatMetadataValue) and value.value is not None
    }


def test_op_reports_each_stage(lake: LocalLakebase, capfd: pytest.CaptureFixture[str]) -> None:
    result = run_op(LakebaseResource())
    report = result.output_for_node("lakebase_health_check_op")
    assert report["ok"] is True
    assert [stage["name"] for stage in report["stages"]] == list(STAGES)
    (output,) = [event for event in result.all_events if event.event_type_value == "STEP_OUTPUT"]
    assert set(numbers(output.step_output_data.metadata)) == TIMES | MEASURED
    assert "stage      status" in capfd.readouterr().err


def test_op_runs_the_stages_that_are_asked_for_and_their_foundations(lake: LocalLakebase) -> None:
    report = run_op(LakebaseResource(), checks=["tcp"], timeout=5.0).output_for_node(
        "lakebase_health_check_op"
    )
    assert [stage["name"] for stage in report["stages"]] == ["resolve", "dns", "tcp"]
    assert lake.admin.counters().logins == 0


def test_op_fails_with_the_remedy_of_a_missing_database(lake: LocalLakebase) -> None:
    failure = failure_of(run_op(LakebaseResource(database="absent")))
    assert failure.description is not None
    assert "Stage 'login' failed (database_missing)" in failure.description
    assert "Remedy: Check the database's name" in failure.description
    # What ran is measured, the failed stage included; what was skipped is not.
    measured = TIMES - {"lakebase/query_ms", "lakebase/write_ms"} | {"lakebase/token_seconds"}
    assert set(numbers(failure.metadata)) == measured


def test_op_fails_with_the_remedy_of_a_refusing_workspace(lake: LocalLakebase) -> None:
    lake.admin.fault("POST", CREDENTIALS, status=403, error_code="PERMISSION_DENIED", message="no")
    failure = failure_of(run_op(LakebaseResource()))
    assert failure.description is not None
    assert "Stage 'credential' failed (permission_denied)" in failure.description
    assert "CAN USE" in failure.description


def test_op_names_an_unknown_stage(lake: LocalLakebase) -> None:
    result = run_op(LakebaseResource(), checks=["pign"])
    (event,) = [event for event in result.all_events if event.is_step_failure]
    assert "Unknown health check 'pign'" in str(event.step_failure_data.error)


def test_op_fails_for_a_limit_that_is_passed(lake: LocalLakebase) -> None:
    failure = failure_of(run_op(LakebaseResource(), limits={"min_token_seconds": 1e9}))
    assert failure.description is not None
    assert "min_token_seconds=1e+09 is not met" in failure.description
    assert set(numbers(failure.metadata)) == TIMES | MEASURED


def test_op_warns_of_a_limit_alone(lake: LocalLakebase, capfd: pytest.CaptureFixture[str]) -> None:
    result = run_op(LakebaseResource(), limits={"min_token_seconds": 1e9}, fail_on="error")
    assert result.success
    assert "WARNING" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"fail_on": "never"}, "fail_on is 'never'"),
        ({"limits": {"max_connections_used": 80.0}}, "is above 1"),
        ({"checks": ["dns"], "limits": {"min_token_seconds": 60.0}}, "needs the stage 'credential'"),
    ],
)
def test_op_refuses_what_cannot_be_meant(lake: LocalLakebase, config: Any, message: str) -> None:
    (event,) = [e for e in run_op(LakebaseResource(), **config).all_events if e.is_step_failure]
    assert message in str(event.step_failure_data.error)
    assert lake.admin.counters().mints == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"fail_on": "never"}, "fail_on is 'never'"),
        ({"checks": ["pign"]}, "Unknown health check 'pign'"),
        ({"checks": ["dns"], "limits": {"min_token_seconds": 60.0}}, "needs the stage 'credential'"),
    ],
)
def test_a_jobs_own_configuration_is_refused_where_definitions_load(
    config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        LakebaseHealthCheckConfig(**config)


@dg.asset
def one() -> None: ...


@dg.asset
def two() -> None: ...


@dg.asset(deps=[one])
def after_one() -> None: ...


def run_checks(
    assets: list[dg.AssetsDefinition], resource: LakebaseResource, **arguments: Any
) -> dg.ExecuteInProcessResult:
    checks = build_lakebase_health_checks(assets, **arguments)
    key = arguments.get("resource_key", "lakebase")
    return materialize([*assets, *checks], resources={key: resource}, raise_on_error=False)


def materialized(result: dg.ExecuteInProcessResult) -> set[str]:
    keys = [event.asset_key for event in result.get_asset_materialization_events()]
    return {key.to_user_string() for key in keys if key is not None}


def test_one_login_answers_for_all_assets(lake: LocalLakebase) -> None:
    result = run_checks([one, two], LakebaseResource())
    assert result.success
    evaluations = result.get_asset_check_evaluations()
    assert {(e.asset_key, e.check_name, e.passed) for e in evaluations} == {
        (one.key, "lakebase_health", True),
        (two.key, "lakebase_health", True),
    }
    for evaluation in evaluations:
        assert set(numbers(evaluation.metadata)) == TIMES | MEASURED
        assert evaluation.description == "All 8 stages are ok."
    assert lake.admin.counters().logins == 1


def test_a_blocking_check_that_fails_keeps_downstream_assets_back(lake: LocalLakebase) -> None:
    result = run_checks([one, after_one], LakebaseResource(database="absent"))
    assert not result.success
    assert materialized(result) == {"one"}
    (evaluation,) = result.get_asset_check_evaluations()
    assert not evaluation.passed
    assert evaluation.description is not None
    assert "Stage 'login' failed (database_missing)" in evaluation.description
    assert "Remedy: Check the database's name" in evaluation.description
    assert "lakebase/login_ms" in numbers(evaluation.metadata)


def test_a_check_that_does_not_block_lets_them_pass(lake: LocalLakebase) -> None:
    result = run_checks([one, after_one], LakebaseResource(database="absent"), blocking=False)
    assert result.success
    assert materialized(result) == {"one", "after_one"}
    assert [e.passed for e in result.get_asset_check_evaluations()] == [False, False]


def test_checks_of_some_assets_alone(lake: LocalLakebase) -> None:
    checks = build_lakebase_health_checks([one, two], checks=["query"], timeout=5)
    result = materialize(
        [one, two, *checks],
        resources={"lakebase": LakebaseResource()},
        selection=dg.AssetSelection.assets(two),
    )
    (evaluation,) = result.get_asset_check_evaluations()
    assert evaluation.asset_key == two.key
    assert "lakebase/write_ms" not in evaluation.metadata


def test_two_databases_on_the_same_asset(lake: LocalLakebase) -> None:
    checks = [
        *build_lakebase_health_checks([one], blocking=False),
        *build_lakebase_health_checks([one], blocking=False, resource_key="reports", name="reports_health"),
    ]
    resources = {"lakebase": LakebaseResource(), "reports": LakebaseResource(database="absent")}
    result = materialize([one, *checks], resources=resources)
    assert {e.check_name: e.passed for e in result.get_asset_check_evaluations()} == {
        "lakebase_health": True,
        "reports_health": False,
    }


@dg.multi_asset(specs=[dg.AssetSpec("left"), dg.AssetSpec(["deep", "right"])])
def both() -> tuple[None, None]:
    return None, None


@pytest.mark.parametrize(
    ("assets", "keys"),
    [
        ([one], {"one"}),
        (["one", ["deep", "two"]], {"one", "deep/two"}),
        ([dg.AssetKey("one"), dg.AssetSpec("two"), "one"], {"one", "two"}),
        ([both], {"left", "deep/right"}),
    ],
)
def test_assets_in_all_the_ways_that_dagster_names_them(assets: list[Any], keys: set[str]) -> None:
    (checks,) = build_lakebase_health_checks(assets)
    assert {key.asset_key.to_user_string() for key in checks.check_keys} == keys


def test_the_name_does_not_depend_on_the_order() -> None:
    (there,), (back,) = build_lakebase_health_checks([one, two]), build_lakebase_health_checks([two, one])
    (other,) = build_lakebase_health_checks([one])
    assert there.op.name == back.op.name != other.op.name


def test_an_unknown_stage_is_refused_when_it_is_written() -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="Unknown health check 'pign'"):
        build_lakebase_health_checks([one], checks=["pign"])


def test_no_assets_are_refused() -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="no assets"):
        build_lakebase_health_checks([])


def test_a_limit_that_is_passed_blocks(lake: LocalLakebase) -> None:
    result = run_checks([one, after_one], LakebaseResource(), limits=IMPOSSIBLE)
    assert materialized(result) == {"one"}
    (evaluation,) = result.get_asset_check_evaluations()
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert evaluation.description is not None
    assert "min_token_seconds" in evaluation.description


def test_a_limit_that_only_warns_keeps_nothing_back(lake: LocalLakebase) -> None:
    result = run_checks([one, after_one], LakebaseResource(), limits=IMPOSSIBLE, fail_on="error")
    assert materialized(result) == {"one", "after_one"}
    for evaluation in result.get_asset_check_evaluations():
        assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_a_limit_for_what_is_not_measured_is_refused_when_it_is_written() -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="needs the stage 'credential'"):
        build_lakebase_health_checks([one], checks=["dns"], limits=IMPOSSIBLE)


def test_the_history_of_a_check_is_numbers(lake: LocalLakebase) -> None:
    """As the web interface plots it: one point for each run, from Dagster's own storage."""
    checks = build_lakebase_health_checks([one])
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(3):
            dg.materialize([one, *checks], resources={"lakebase": LakebaseResource()}, instance=instance)
        records = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(one.key, "lakebase_health"), limit=10
        )
    points = [record.event.dagster_event.asset_check_evaluation_data.metadata for record in records]  # type: ignore[union-attr] # each has its evaluation
    assert len(points) == 3
    for point in points:
        values = numbers(point)
        assert set(values) == TIMES | MEASURED
        assert values["lakebase/login_ms"] > 0
        assert 0 < values["lakebase/connections"] <= values["lakebase/max_connections"]


def tick(sensor: dg.SensorDefinition, resource: LakebaseResource) -> Any:
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(
            instance=instance, resources={"lakebase": resource}, definitions=dg.Definitions(sensors=[sensor])
        ) as context,
    ):
        return sensor.evaluate_tick(context)


def test_ticks_of_the_sensor_observe_with_one_token(lake: LocalLakebase) -> None:
    sensor = build_lakebase_health_sensor([one, "two"])
    for _ in range(2):
        found = tick(sensor, LakebaseResource())
        assert {event.asset_key.to_user_string() for event in found.asset_events} == {"one", "two"}
        for event in found.asset_events:
            assert set(numbers(event.metadata)) == TIMES | MEASURED | {"lakebase/healthy"}
            assert event.metadata["lakebase/healthy"].value == 1.0
        assert found.skip_message == "All 8 stages are ok."
    counters = lake.admin.counters()
    assert (counters.mints, counters.logins) == (1, 2)


def test_a_bad_tick_is_observed_and_says_what_to_do(lake: LocalLakebase) -> None:
    found = tick(build_lakebase_health_sensor(["one"]), LakebaseResource(database="absent"))
    (event,) = found.asset_events
    assert event.metadata["lakebase/healthy"].value == 0.0
    assert "Remedy: Check the database's name" in event.description
    assert found.skip_message == event.description


def test_a_tick_that_passes_a_limit(lake: LocalLakebase) -> None:
    for fail_on, healthy in (("warn", 0.0), ("error", 1.0)):
        sensor = build_lakebase_health_sensor(
            ["one"],
            checks=["credential"],
            limits=IMPOSSIBLE,
            fail_on=fail_on,  # type: ignore[arg-type] # both are allowed
        )
        (event,) = tick(sensor, LakebaseResource()).asset_events
        assert event.metadata["lakebase/healthy"].value == healthy
        assert "min_token_seconds" in event.description


def test_the_sensor_of_no_assets_is_refused() -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="build_lakebase_health_sensor was given no"):
        build_lakebase_health_sensor([])
