from __future__ import annotations

import json

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ConfigError, HealthCheckError
from lakebase_provider.core.upkeep.health.stage_names import STAGES
from lakebase_provider.core.upkeep.health.stages import HealthReport, StageResult
from lakebase_provider.local import LocalLakebase


def test_all_stages_are_ok_on_one_connection_and_one_token(lakebase_env: LocalLakebase) -> None:
    report = LakebaseClient(lakebase_env.config(host=None)).health()
    assert [stage.name for stage in report.stages] == list(STAGES)
    assert {stage.status for stage in report.stages} == {"ok"}
    assert report.ok
    assert report.first_failure is None
    report.raise_for_failure()
    assert (lakebase_env.admin.counters().logins, lakebase_env.admin.counters().mints) == (1, 1)
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True


def test_only_what_is_asked_for_and_its_foundations_run(lakebase_env: LocalLakebase) -> None:
    report = LakebaseClient(lakebase_env.config()).health(["tls"])
    assert [stage.name for stage in report.stages] == ["resolve", "dns", "tcp", "tls"]
    assert lakebase_env.admin.counters().mints == 0


def test_an_unknown_stage_is_refused(lakebase_env: LocalLakebase) -> None:
    with pytest.raises(ConfigError, match="'tsl'"):
        LakebaseClient(lakebase_env.config()).health(["tsl"])


def test_a_host_of_another_branch_than_the_endpoints_is_found_out(lakebase_env: LocalLakebase) -> None:
    primary = "projects/local/branches/{}/endpoints/primary"
    with LakebaseClient(lakebase_env.config()) as client:
        client.workspace.branches.create("ci-1", ttl=3600)
        own = client.workspace.endpoints.get(primary.format("ci-1")).host
    config = lakebase_env.config(endpoint=primary.format("ci-1"))
    with LakebaseClient(config.replace(host=lakebase_env.host)) as wrong:
        found = wrong.health(["resolve"]).first_failure
        assert found is not None
        assert (found.name, found.code) == ("resolve", "wrong_branch")
        assert f"{lakebase_env.host} is that of {primary.format('production')}, but" in found.detail
        assert f"the endpoint is {primary.format('ci-1')}." in found.detail
        assert f"host is {own}." in found.remedy
    with LakebaseClient(config.replace(host=own)) as right:
        assert right.health().ok
    # An alias or a proxy, which the workspace does not know.
    with LakebaseClient(config.replace(host="127.0.0.1")) as proxied:
        assert proxied.health(["resolve"]).ok


@pytest.mark.parametrize(
    ("changes", "failed", "skipped", "code"),
    [
        ({"user": "nobody-knows"}, "login", {"query", "write"}, "login_rejected"),
        ({"database": "no_such_db"}, "login", {"query", "write"}, "database_missing"),
        ({"sslrootcert": None}, "tls", {"login", "query", "write"}, "tls"),
        ({"port": 1}, "tcp", {"tls", "login", "query", "write"}, "endpoint_waking"),
        ({"client_secret": "wrong"}, "credential", {"login", "query", "write"}, "not_authenticated"),
        ({"host": "unknown.databricks.com"}, "dns", {"tcp", "tls", "login", "query", "write"}, "dns"),
    ],
)
@pytest.mark.usefixtures("no_name_server")
def test_the_stage_that_fails_is_named_with_a_remedy(
    lakebase_env: LocalLakebase, changes: dict[str, object], failed: str, skipped: set[str], code: str
) -> None:
    report = LakebaseClient(lakebase_env.config(**changes)).health(timeout=5)
    assert not report.ok
    assert report.first_failure is not None
    assert (report.first_failure.name, report.first_failure.code) == (failed, code)
    assert report.first_failure.remedy
    assert {stage.name for stage in report.stages if stage.status == "skipped"} == skipped
    assert f"remedy: {report.first_failure.remedy}" in report.to_text()
    with pytest.raises(HealthCheckError, match=failed):
        report.raise_for_failure()


def test_a_role_that_may_not_write_fails_at_write(lakebase_env: LocalLakebase) -> None:
    principal = lakebase_env.admin.add_principal()
    lakebase_env.admin.execute("REVOKE TEMPORARY ON DATABASE databricks_postgres FROM PUBLIC")
    try:
        report = LakebaseClient(
            lakebase_env.config(
                user=principal.name, client_id=principal.name, client_secret=principal.client_secret
            )
        ).health()
    finally:
        lakebase_env.admin.execute("GRANT TEMPORARY ON DATABASE databricks_postgres TO PUBLIC")
    assert report.stage("query").status == "ok"
    assert report.stage("write").status == "failed"
    assert "TEMPORARY" in report.stage("write").remedy


def test_the_summary_is_one_line_with_the_remedy_or_the_time_of_each_stage() -> None:
    ok = StageResult("resolve", "ok", ms=12.4)
    failed = StageResult("credential", "failed", ms=3.0, detail="Refused.", remedy="Ask for a secret.")
    assert HealthReport((ok,)).summary() == "All is well: resolve 12 ms."
    assert HealthReport((ok, failed)).summary() == (
        "Stage credential failed: Refused. Remedy: Ask for a secret. Passed: resolve 12 ms."
    )
