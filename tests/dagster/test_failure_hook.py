"""The hook that diagnoses a step that failed."""

from __future__ import annotations

from typing import Any

import dagster as dg

from dagster_lakebase import LakebaseResource, build_lakebase_failure_hook
from lakebase_provider.local import LocalLakebase


def run(hook: dg.HookDefinition) -> tuple[dg.ExecuteInProcessResult, list[str]]:
    @dg.op
    def totals(lakebase: LakebaseResource) -> None:
        lakebase.execute("SELECT sum(total) FROM no_such_table")

    @dg.job(hooks={hook})
    def nightly() -> None:
        totals()

    with dg.DagsterInstance.ephemeral() as instance:
        result = nightly.execute_in_process(
            instance=instance, resources={"lakebase": LakebaseResource()}, raise_on_error=False
        )
        logged = [entry.user_message for entry in instance.all_logs(result.run_id)]
    return result, logged


def test_a_step_that_failed_is_diagnosed(lake: LocalLakebase) -> None:
    told: list[tuple[Any, Any]] = []
    result, logged = run(build_lakebase_failure_hook(lambda context, found: told.append((context, found))))
    assert not result.success
    [(_context, found)] = told
    assert found.what == "Step totals of nightly"
    assert "no_such_table" in found.message
    assert found.healthy
    assert found.to_markdown() in logged


def test_what_cannot_be_told_is_logged(lake: LocalLakebase) -> None:
    def fails(_context: Any, _diagnosis: Any) -> None:
        raise OSError("no such channel")

    result, logged = run(build_lakebase_failure_hook(fails, name="mine"))
    assert not result.success
    assert any("The diagnosis of totals was not told: no such channel" in line for line in logged)
