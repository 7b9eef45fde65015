"""A step whose retries would not help ends at once, and says so."""

from __future__ import annotations

from typing import Any

import dagster as dg
import psycopg
import pyarrow as pa
import pytest

from dagster_lakebase import LakebaseIOManager, LakebaseResource, LakebaseSqlComponent
from dagster_lakebase.resource.failures import failing_fast
from lakebase_provider.core.errors import EndpointWakingError, LakebaseError, LoginRejectedError
from lakebase_provider.local import LocalLakebase

# Dagster's own, for resources that others nest.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")

FINAL = "Not retried: a retry would not help."
RETRIES = dg.RetryPolicy(max_retries=2)


@dg.asset
def stored() -> pa.Table:
    return pa.table({"id": [1]})


def tries(asset: Any, **resources: Any) -> tuple[int, str]:
    """How often the step was begun, and what its failure says."""
    job = dg.define_asset_job("job", [asset], op_retry_policy=RETRIES)
    definitions = dg.Definitions(assets=[asset], jobs=[job], resources=resources)
    result = definitions.resolve_job_def("job").execute_in_process(raise_on_error=False)
    assert not result.success
    [failure] = [event for event in result.all_events if event.is_step_failure]
    begun = sum(event.is_step_start or event.is_step_restarted for event in result.all_events)
    return begun, failure.step_failure_data.error_display_string


def test_an_io_manager_that_is_refused_is_not_tried_again(lakebase_env: LocalLakebase) -> None:
    manager = LakebaseIOManager(lakebase=LakebaseResource(user="nobody"))
    begun, told = tries(stored, io_manager=manager)
    assert begun == 1
    assert FINAL in told
    assert LoginRejectedError.code in told


def test_one_that_meets_a_compute_that_wakes_is(lakebase_env: LocalLakebase) -> None:
    lakebase_env.admin.login_fault("paused")
    manager = LakebaseIOManager(lakebase=LakebaseResource(connect_budget=1))
    begun, told = tries(stored, io_manager=manager)
    assert begun == 1 + RETRIES.max_retries
    assert FINAL not in told


def test_a_component_whose_sql_is_wrong_is_not_tried_again(lakebase_env: LocalLakebase) -> None:
    component = LakebaseSqlComponent(
        assets=[dg.AssetSpec("made")], sql="SELECT absent", connection="lakebase"
    )
    [asset] = component.build_defs(dg.ComponentTree.for_test().load_context).assets or ()
    begun, told = tries(asset, lakebase=LakebaseResource())
    assert begun == 1
    assert FINAL in told
    assert "UndefinedColumn" in told


@pytest.mark.parametrize(
    "error",
    [EndpointWakingError("m"), psycopg.errors.UniqueViolation("m"), ValueError("m")],
    ids=lambda error: type(error).__name__,
)
def test_what_may_pass_stays_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, failing_fast():
        raise error
    assert caught.value is error


def test_the_error_is_the_cause() -> None:
    error: LakebaseError = LoginRejectedError("m", remedy="r")
    with pytest.raises(dg.Failure) as caught, failing_fast():
        raise error
    assert caught.value.__cause__ is error
    assert caught.value.allow_retries is False
    assert caught.value.description == f"m [login_rejected]\nRemedy: r\n{FINAL}"
