"""Errors of connecting name the Dagster resource."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from dagster_lakebase import LakebaseIOManager, LakebaseResource, lakebase_sweep_branches_op
from lakebase_provider.core.errors import (
    EndpointNotFoundError,
    EndpointWakingError,
    LoginRejectedError,
    NotAuthenticatedError,
)
from lakebase_provider.local import LocalLakebase

# Dagster's own, for resources that others nest.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")


#: What is wrong with the resource, and the error that says so.
KINDS: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "login": ({"user": "nobody"}, LoginRejectedError),
    "secret": ({"client_secret": "no-secret-of-it"}, NotAuthenticatedError),
    "endpoint": ({"endpoint": "projects/local/branches/production/endpoints/absent"}, EndpointNotFoundError),
    "wake": ({"connect_budget": 4}, EndpointWakingError),
}
REFUSALS = {kind.__name__ for _, kind in KINDS.values()}


def message_of(asset: dg.AssetsDefinition, **resources: object) -> str:
    return refusal_in(dg.materialize([asset], resources=resources, raise_on_error=False))


def refusal_in(result: dg.ExecuteInProcessResult) -> str:
    [event] = [event for event in result.all_events if event.is_step_failure]
    error = event.step_failure_data.error
    while error is not None:
        if error.cls_name in REFUSALS:
            return error.message
        error = error.cause
    raise AssertionError("no such error")


@dg.asset
def by_hand(warehouse: LakebaseResource) -> None:
    warehouse.execute("SELECT 1")


@dg.asset
async def with_asyncio(warehouse: LakebaseResource) -> None:
    async with warehouse.get_async_connection():
        pass


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asset", [by_hand, with_asyncio], ids=["threads", "asyncio"])
def test_the_resource_is_named_by_its_key(
    lakebase_env: LocalLakebase, asset: dg.AssetsDefinition, kind: str
) -> None:
    if kind == "wake":
        lakebase_env.admin.login_fault("paused")
    told = message_of(asset, warehouse=LakebaseResource(**KINDS[kind][0]))
    assert KINDS[kind][1].__name__ in told
    assert told.count("Dagster resource 'warehouse'") == 1


def test_one_without_a_key_is_named_by_what_it_is_nested_in(lakebase_env: LocalLakebase) -> None:
    @dg.asset
    def stored() -> pa.Table:
        return pa.table({"id": [1]})

    manager = LakebaseIOManager(lakebase=LakebaseResource(user="nobody"))
    assert "Dagster resource 'io_manager'" in message_of(stored, io_manager=manager)


def test_what_asks_for_objects_names_it(lakebase_env: LocalLakebase) -> None:
    @dg.job(resource_defs={"lakebase": LakebaseResource(client_secret="no-secret-of-it")})
    def sweep() -> None:
        lakebase_sweep_branches_op()

    with dg.DagsterInstance.ephemeral() as instance:
        told = refusal_in(sweep.execute_in_process(instance=instance, raise_on_error=False))
    assert told.count("Dagster resource 'lakebase'") == 1
