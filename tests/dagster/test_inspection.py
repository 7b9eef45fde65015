from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from dagster_lakebase import LakebaseResource, build_lakebase_inspection_checks
from lakebase_provider.local import LocalLakebase
from tests.dagster.test_health import numbers
from tests.own_server import lakebase_server as lakebase_server

KEYLESS = "tables_without_primary_key"


@dg.asset
def orders() -> None:
    pass


@pytest.fixture
def keyless(lake: LocalLakebase) -> Iterator[LocalLakebase]:
    lake.admin.execute("CREATE TABLE keyless_of_dagster (n int)")
    yield lake
    lake.admin.execute("DROP TABLE keyless_of_dagster")


def evaluation(**arguments: Any) -> tuple[dg.AssetCheckEvaluation, bool]:
    """What the check says, and whether the run succeeds."""
    checks = build_lakebase_inspection_checks([orders], **arguments)
    defs = dg.Definitions(assets=[orders], asset_checks=checks, resources={"lakebase": LakebaseResource()})
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance, raise_on_error=False)
    (found,) = result.get_asset_check_evaluations()
    return found, result.success


def test_each_number_is_one_that_dagster_plots(lake: LocalLakebase) -> None:
    found, _ = evaluation()
    plotted = numbers(found.metadata)
    assert plotted["lakebase/connections"] > 0
    assert plotted["lakebase/database_size"] > 1e6
    assert {name for name in plotted if not name.startswith("lakebase/")} == set()
    report = found.metadata["lakebase/report"]
    assert isinstance(report, dg.MarkdownMetadataValue)
    assert report.value.startswith("## Inspection: ")


def test_what_needs_a_look_warns_and_what_is_bad_fails(keyless: LocalLakebase) -> None:
    found, success = evaluation(checks=[KEYLESS])
    assert (found.passed, found.severity, success) == (False, dg.AssetCheckSeverity.WARN, True)
    assert found.description is not None
    assert "keyless_of_dagster" in found.description
    found, _ = evaluation(checks=[KEYLESS], fail_on="warn")
    assert found.severity == dg.AssetCheckSeverity.ERROR
    found, success = evaluation(checks=[KEYLESS], limits={KEYLESS: [None, 1]}, blocking=True)
    assert (found.severity, success) == (dg.AssetCheckSeverity.ERROR, False)
    found, _ = evaluation(checks=[KEYLESS], limits={KEYLESS: None})
    assert found.passed
    assert found.description == "All 1 checks are ok or skipped."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"checks": ["bloated"]}, "'bloated'"),
        ({"limits": {"bloat": "half"}}, "must be a number"),
        ({"fail_on": "error"}, "fail_on is 'error'"),
        ({"timeout": 0}, "timeout"),
        ({"statistics_days": -1}, "statistics_days"),
    ],
)
def test_what_cannot_work_is_refused_where_definitions_load(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=message):
        build_lakebase_inspection_checks([orders], **arguments)
