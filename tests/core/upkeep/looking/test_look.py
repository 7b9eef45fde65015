"""A look at a database: all that can be seen is, whatever else fails; and looks that are kept."""

from __future__ import annotations

import json
import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.upkeep.health.stages import HealthReport
from lakebase_provider.core.upkeep.looking.kept_looks import KEPT, KeptLooks
from lakebase_provider.core.upkeep.looking.look import Look, empty_look, failed_look, look
from lakebase_provider.local import LocalLakebase
from tests.core.upkeep.test_report import HEALTH, inspection


def at(minute: int) -> Look:
    moment = datetime(2026, 11, 30, 12, tzinfo=timezone.utc) + timedelta(minutes=minute)
    return Look(moment.isoformat(timespec="seconds"), HEALTH, inspection(), errors={"sessions": "refused"})


def test_all_is_seen_of_a_database_that_is_well(client: LakebaseClient, lakebase_env: LocalLakebase) -> None:
    client.workspace.branches.create("run-of-a-task-1", ttl=3600, source_branch="production")
    try:
        found = look(client)
    finally:
        client.workspace.branches.delete("run-of-a-task-1", purge=True)
    assert found.errors == {}
    assert found.health is not None
    assert found.health.ok
    assert found.inspection is not None
    assert found.sessions is not None
    branches = {one.id: one for one in found.branches or ()}
    assert branches["production"].is_default
    assert not branches["production"].is_leased
    leased = branches["run-of-a-task-1"]
    assert (leased.is_leased, leased.is_held, leased.source) == (True, True, "production")
    assert 0 < (leased.expires_in or 0) <= 3600
    # The way to JSON and back loses only what a report of health does not tell.
    again = Look.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again.to_dict() == found.to_dict()
    assert again.sessions == found.sessions
    assert again.branches == found.branches


def test_what_fails_does_not_hide_the_rest(lakebase_env: LocalLakebase) -> None:
    config = LakebaseConfig.from_mapping({**wrong_secret(lakebase_env)})
    found = look(LakebaseClient(config))
    assert found.health is not None
    failed = found.health.first_failure
    assert failed is not None
    assert failed.name == "resolve"
    assert (found.inspection, found.sessions, found.branches) == (None, None, None)
    assert "branches" in found.errors
    assert "dose-not-the-secret" not in json.dumps(found.to_dict())


def wrong_secret(lake: LocalLakebase) -> dict[str, object]:
    fields = json.loads(lake.airflow_connection())
    return {
        **fields["extra"],
        "client_id": fields["login"],
        "client_secret": "dose-not-the-secret",
        "port": fields["port"],
    }


def test_a_connection_that_is_wrong_says_so() -> None:
    found = failed_look(ConfigError("Setting 'port' is no number.", remedy="Correct 'port'."))
    assert "port" in found.errors["connection"]
    assert Look.from_dict(found.to_dict()) == found
    assert empty_look().health is None


@pytest.mark.parametrize("plain", [{}, {"taken_at": 1}, 3], ids=["nothing", "too_little", "a_number"])
def test_what_is_no_look_is_refused(plain: object) -> None:
    with pytest.raises(ConfigError, match="no look"):
        Look.from_dict(plain)  # type: ignore[arg-type] # as a file may hold it


def test_a_report_of_health_comes_back() -> None:
    again = HealthReport.from_dict(HEALTH.to_dict())
    assert again.to_dict() == HEALTH.to_dict()
    assert again.figures == HEALTH.figures
    with pytest.raises(ConfigError, match="no report of a health check"):
        HealthReport.from_dict({"stages": [{"name": "tcp"}], "figures": {}})


def test_looks_are_kept_and_the_oldest_go(tmp_path: Path) -> None:
    kept = KeptLooks(tmp_path / "looks")
    assert kept.last("prod") is None
    for minute in range(KEPT + 2):
        kept.keep("prod", at(minute))
    kept.keep("../dev", at(0))
    last = kept.last("prod")
    assert last is not None
    assert last.taken_at == at(KEPT + 1).taken_at
    assert len(kept.latest("prod", 1000)) == KEPT
    assert [one.taken_at for one in kept.latest("prod", 2)] == [at(KEPT + 1).taken_at, at(KEPT).taken_at]
    assert len(kept.latest("../dev", 10)) == 1
    # Nothing outside the folder, and nothing that another user can read.
    assert [one.name for one in tmp_path.iterdir()] == ["looks"]
    for file in (tmp_path / "looks").rglob("*"):
        assert stat.S_IMODE(file.stat().st_mode) == (0o700 if file.is_dir() else 0o600)


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    kept = KeptLooks(tmp_path)
    kept.keep("prod", at(1))
    kept.keep("prod", at(2))
    newest = max(tmp_path.rglob("*.json"))
    newest.write_text("{")
    assert [one.taken_at for one in kept.latest("prod", 10)] == [at(1).taken_at]
