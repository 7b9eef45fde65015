"""Errors of connecting name the Dagster resource."""

from __future__ import annotations

import dagster as dg
import pyarrow as pa
import pytest

from dagster_lakebase import LakebaseIOManager, LakebaseResource
from lakebase_provider.core.errors import LoginRejectedError
from lakebase_provider.local import LocalLakebase

# Dagster's own, for resources that others nest.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")


def message_of(asset: dg.AssetsDefinition, **resources: object) -> str:
    result = dg.materialize([asset], resources=resources, raise_on_error=False)
    [event] = [event for event in result.all_events if event.is_step_failure]
    error = event.step_failure_data.error
    while error is not None:
        if LoginRejectedError.__name__ in str(error.cls_name):
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


@pytest.mark.parametrize("asset", [by_hand, with_asyncio], ids=["threads", "asyncio"])
def test_the_resource_is_named_by_its_key(lakebase_env: LocalLakebase, asset: dg.AssetsDefinition) -> None:
    told = message_of(asset, warehouse=LakebaseResource(user="nobody"))
    assert "Dagster resource 'warehouse'" in told


def test_one_without_a_key_is_named_by_what_it_is_nested_in(lakebase_env: LocalLakebase) -> None:
    @dg.asset
    def stored() -> pa.Table:
        return pa.table({"id": [1]})

    manager = LakebaseIOManager(lakebase=LakebaseResource(user="nobody"))
    assert "Dagster resource 'io_manager'" in message_of(stored, io_manager=manager)
