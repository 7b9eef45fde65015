"""The operator of inspections alone, without a DAG run."""

from __future__ import annotations

from typing import Any

import pytest

from lakebase_provider.core.errors import HealthCheckError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.health import LakebaseInspectOperator
from tests.airflow.test_operators import Pushed
from tests.own_server import lakebase_server as lakebase_server


class Pulled(Pushed):
    """A task instance of a later run, which finds what an earlier one has pushed."""

    map_index = -1

    def xcom_pull(self, task_ids: str, key: str, map_indexes: int, include_prior_dates: bool) -> Any:
        assert (task_ids, map_indexes, include_prior_dates) == ("inspect", -1, True)
        return self.values.get(key)


def test_an_inspection_fails_or_warns_by_its_severity(lake: LocalLakebase) -> None:
    with LakebaseHook().client.connection() as connection:
        connection.execute("CREATE TABLE keyless_of_inspection (n int)")
    pulled = Pulled()
    context: Any = {"ti": pulled}
    own: dict[str, Any] = {"task_id": "inspect", "checks": ["tables_without_primary_key", "database_size"]}
    report = LakebaseInspectOperator(**own).execute(context)
    assert report["status"] == "warn"
    assert "keyless_of_inspection" in report["markdown"]
    with pytest.raises(HealthCheckError, match="tables_without_primary_key is "):
        LakebaseInspectOperator(**own, fail_on="warn").execute(context)
    # A failed task's report is there all the same, and the next run compares with it.
    assert pulled.values["return_value"]["status"] == "warn"
    grown = LakebaseInspectOperator(task_id="inspect", checks=["growth"]).execute(context)
    assert grown["findings"][0]["status"] == "ok"
