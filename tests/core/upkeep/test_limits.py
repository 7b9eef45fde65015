from __future__ import annotations

import pytest

from lakebase_provider.core import HealthReport, LakebaseClient, StageResult
from lakebase_provider.core.errors import ConfigError, HealthCheckError
from lakebase_provider.core.upkeep.health.limits import HealthLimits
from lakebase_provider.core.upkeep.health.stages import FIGURES
from lakebase_provider.local import LocalLakebase

REPORT = HealthReport(
    (
        StageResult("credential", "ok", figures={"token_seconds": 600.0}),
        StageResult("login", "ok", figures={"connect_ms": 80.0, "wake_seconds": 4.0}),
        StageResult("query", "ok", figures={"connections": 52.0, "max_connections": 104.0}),
    )
)
LIMITS = {"max_connect_ms": 80, "max_wake_seconds": 4, "min_token_seconds": 600, "max_connections_used": 0.5}
TOO_STRICT = {
    "max_connect_ms": 79,
    "max_wake_seconds": 3.9,
    "min_token_seconds": 601,
    "max_connections_used": 0.49,
}


def test_a_limit_that_is_just_met_is_kept() -> None:
    limits = HealthLimits(**LIMITS)
    assert limits.breaches(REPORT) == ()
    limits.enforce(REPORT)


@pytest.mark.parametrize("name", TOO_STRICT)
def test_each_limit_is_held(name: str) -> None:
    limits = HealthLimits(**{**LIMITS, name: TOO_STRICT[name]})
    (breach,) = limits.breaches(REPORT)
    assert breach.name == name
    assert breach.limit == TOO_STRICT[name]
    assert breach.remedy in str(breach)
    assert breach.to_dict()["found"] == {**LIMITS, "max_connections_used": 0.5}[name]
    limits.enforce(REPORT, fail_on="error")
    with pytest.raises(HealthCheckError, match=name) as caught:
        limits.enforce(REPORT)
    assert caught.value.retryable
    (line,) = [line for line in limits.to_text(REPORT).splitlines() if "warn" in line]
    assert line.startswith(name)


def test_what_was_not_measured_breaks_no_limit() -> None:
    failed = HealthReport((StageResult("login", "failed", code="login_rejected", detail="no", remedy="do"),))
    limits = HealthLimits(**TOO_STRICT)
    assert limits.breaches(failed) == ()
    assert limits.to_text(failed).count("skipped") == 4
    with pytest.raises(HealthCheckError, match="login_rejected"):
        limits.enforce(failed, fail_on="error")


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"max_connect_ms": 0}, "max_connect_ms"),
        ({"max_wake_seconds": -1}, "max_wake_seconds"),
        ({"min_token_seconds": "60"}, "str"),
        ({"max_connections_used": 80}, "0.8 for 80 %"),
        ({"max_connections_used": True}, "bool"),
        ({"max_connect_ms": float("nan")}, "max_connect_ms"),
    ],
)
def test_a_limit_that_cannot_work_is_refused(limits: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HealthLimits(**limits)
    assert named in str(caught.value)


def test_a_limit_of_what_is_not_measured_is_refused() -> None:
    HealthLimits(max_connect_ms=1).require_stages(None)
    HealthLimits(min_token_seconds=60).require_stages(["query"])
    with pytest.raises(ConfigError, match="needs the stage 'login'"):
        HealthLimits(max_connect_ms=1).require_stages(["tls", "credential"])
    with pytest.raises(ConfigError, match="'tsl'"):
        HealthLimits(max_connect_ms=1).require_stages(["tsl"])


def test_the_check_measures_what_the_limits_are_for(lakebase_env: LocalLakebase) -> None:
    client = LakebaseClient(lakebase_env.config())
    report = client.health()
    assert set(report.figures) == set(FIGURES)
    assert report.figures["wake_seconds"] == 0.0
    assert 0 < report.figures["connect_ms"] <= report.stage("login").ms
    assert 0 < report.figures["token_seconds"] <= 3600
    assert 1 <= report.figures["connections"] < report.figures["max_connections"]
    with client.connect(autocommit=True):
        assert client.health(["query"]).figures["connections"] > report.figures["connections"]


@pytest.mark.parametrize("mode", ["hold", "starting"])
def test_a_wake_is_told_from_a_connect(lakebase_env: LocalLakebase, mode: str) -> None:
    client = LakebaseClient(lakebase_env.config())
    lakebase_env.admin.set_wake_delay(1.0)
    lakebase_env.admin.set_wake_mode(mode)
    lakebase_env.admin.suspend()
    figures = client.health(["login"]).figures
    assert figures["wake_seconds"] >= 0.9
    assert figures["connect_ms"] < 900
