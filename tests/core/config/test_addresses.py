"""Which endpoint the settings name, however they say it, and what changes with it."""

from __future__ import annotations

from typing import Any

import pytest

from lakebase_provider.core import LakebaseConfig
from lakebase_provider.core.config.addresses import with_branch_exchanged
from lakebase_provider.core.errors import ConfigError

OAUTH: dict[str, Any] = {
    "workspace_host": "https://w.cloud.databricks.com",
    "client_id": "c",
    "client_secret": "s",
}
PRODUCTION = "projects/p/branches/production/endpoints/primary"
HOST = "ep-1.database.us-east-1.cloud.databricks.com"


def config(**settings: Any) -> LakebaseConfig:
    return LakebaseConfig.from_mapping({**OAUTH, **settings})


def address(config: LakebaseConfig) -> tuple[str | None, str | None, str | None]:
    return config.endpoint, config.project, config.branch


@pytest.mark.parametrize(
    ("settings", "endpoint"),
    [
        ({"endpoint": PRODUCTION}, PRODUCTION),
        ({"project": "p", "branch": "production"}, PRODUCTION),
        ({"project": "projects/p", "branch": "production"}, PRODUCTION),
        ({"branch": "projects/p/branches/production"}, PRODUCTION),
        ({"project": "p", "branch": "projects/p/branches/production"}, PRODUCTION),
        ({"project": "p", "branch": "production", "endpoint": "primary"}, PRODUCTION),
        ({"project": "p", "branch": "production", "endpoint": PRODUCTION}, PRODUCTION),
        ({"project": "p", "endpoint": PRODUCTION}, PRODUCTION),
        ({"branch": "production", "endpoint": PRODUCTION}, PRODUCTION),
    ],
)
def test_whatever_names_an_endpoint_is_the_same_configuration(
    settings: dict[str, str], endpoint: str
) -> None:
    assert config(**settings) == config(endpoint=endpoint)
    assert address(config(**settings)) == (endpoint, "p", "production")


@pytest.mark.parametrize("endpoint", ["ep-0b12-cd", HOST, HOST.upper()])
def test_a_uid_or_a_host_is_left_to_be_looked_up(endpoint: str) -> None:
    assert address(config(endpoint=endpoint)) == (endpoint.lower(), None, None)
    narrowed = config(endpoint=endpoint, project="p", branch="b")
    assert address(narrowed) == (endpoint.lower(), "p", "b")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"project": "p"}, "'branch' is missing although 'project' is set"),
        ({"branch": "b"}, "'project' is missing although 'branch' is set"),
        ({"endpoint": "primary"}, "'endpoint' is 'primary'"),
        ({"endpoint": "primary", "project": "p"}, "'endpoint' is 'primary'"),
        ({"endpoint": PRODUCTION, "project": "q"}, "which is not in 'project' 'q'"),
        ({"endpoint": PRODUCTION, "branch": "b"}, "which is not in 'branch' 'b'"),
        ({"project": "q", "branch": "projects/p/branches/b"}, "which is not in 'project' 'q'"),
        ({"project": "../x", "branch": "b"}, "'project' is '../x'"),
        ({"project": "p", "branch": "b/../c"}, "'branch' is 'b/../c'"),
        (
            {"project": "p", "branch": "b", "endpoint": "e?x"},
            "'endpoint' is 'projects/p/branches/b/endpoints/e",
        ),
        ({"project": "p", "branch": "b", "instance": "i"}, "Both 'project' and 'instance'"),
        ({"project": "p", "instance": "i"}, "Both 'project' and 'instance'"),
    ],
)
def test_what_names_none_or_two_is_refused(settings: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**settings)
    assert problem in caught.value.message


def test_a_branch_and_a_host_that_may_be_anothers_are_refused() -> None:
    for settings in ({"project": "p", "branch": "ci-1"}, {"branch": "projects/p/branches/ci-1"}):
        with pytest.raises(ConfigError, match="'host' is given beside 'branch'"):
            config(**settings, host=HOST)
    with pytest.raises(ConfigError, match="'host' is given beside 'branch'"):
        LakebaseConfig.from_uri(f"lakebase://me@{HOST}/?project=p&branch=ci-1")


def test_another_branch_keeps_nothing_of_the_host() -> None:
    there = config(endpoint=PRODUCTION, host=HOST, database="shop", user="me", max_size=7)
    for branch in ("ci-1", "projects/p/branches/ci-1"):
        moved = there.on_branch(branch)
        assert moved.host is None
        assert address(moved) == ("projects/p/branches/ci-1/endpoints/primary", "p", "ci-1")
        assert moved.replace(endpoint=PRODUCTION, host=HOST) == there
        assert (moved.database, moved.user, moved.max_size) == ("shop", "me", 7)
    assert there.replace(branch="ci-1") == there.on_branch("ci-1")
    assert there.replace(branch="production").host == HOST
    assert there.replace(endpoint="projects/p/branches/x/endpoints/primary").host is None
    assert there.on_branch("projects/q/branches/b").project == "q"


def test_a_branch_beside_a_full_endpoint_takes_the_place_of_its_own() -> None:
    there: dict[str, object] = {"endpoint": PRODUCTION, "host": HOST, "user": "me"}
    moved = {"project": "p", "branch": "ci-1", "user": "me"}
    assert with_branch_exchanged({**there, "branch": "ci-1"}) == moved
    full = "projects/q/branches/ci-1"
    assert with_branch_exchanged({**there, "branch": full}) == {"branch": full, "user": "me"}
    for same in (
        there,
        {**there, "branch": "production"},
        {**there, "branch": PRODUCTION.rpartition("/endpoints")[0]},
        {"endpoint": "reader", "project": "p", "branch": "ci-1"},
        {"project": "p", "branch": "ci-1"},
    ):
        assert with_branch_exchanged(same) == same
    looked_up: dict[str, object] = {"endpoint": "ep-1", "branch": "ci-1"}
    assert with_branch_exchanged({**looked_up, "project": "p"}) == {"project": "p", "branch": "ci-1"}
    with pytest.raises(ConfigError, match="'project' is missing although 'branch' is set"):
        with_branch_exchanged(looked_up)


def test_a_password_goes_to_the_other_branch_by_its_endpoint() -> None:
    there = config(
        endpoint=PRODUCTION, host=HOST, auth="password", user="me", password="secret", client_secret=None
    )
    assert there.on_branch("ci-1").host is None
    assert there.on_branch("ci-1").password == there.password


def test_an_endpoint_by_id_is_in_the_same_branch() -> None:
    there = config(endpoint=PRODUCTION)
    assert there.replace(endpoint="reader").endpoint == PRODUCTION.replace("primary", "reader")
    with pytest.raises(ConfigError, match="'project' is missing"):
        config(endpoint="ep-1").on_branch("ci-1")
    with pytest.raises(ConfigError, match="and 'instance'"):
        config(instance="i").on_branch("ci-1")


def test_the_environment_and_what_overrides_it() -> None:
    def read(environ: dict[str, str], **overrides: Any) -> LakebaseConfig:
        return LakebaseConfig.from_env(environ, **OAUTH, **overrides)

    by_name = {"ENDPOINT_NAME": PRODUCTION, "PGHOST": HOST}
    by_parts = {"LAKEBASE_PROJECT": "p", "LAKEBASE_BRANCH": "production"}
    for environ, host in ((by_name, HOST), (by_parts, None)):
        assert (read(environ).endpoint, read(environ).host) == (PRODUCTION, host)
        assert address(read(environ, branch="ci-1"))[1:] == ("p", "ci-1")
        assert read(environ, branch="ci-1").host is None
        other = read(environ, endpoint="projects/q/branches/b/endpoints/e")
        assert (other.project, other.host) == ("q", None)
        assert read(environ, project="q", branch="b").endpoint == "projects/q/branches/b/endpoints/primary"
        assert read(environ, instance="i").endpoint is None
    assert read(by_parts, endpoint="reader").endpoint == PRODUCTION.replace("primary", "reader")
    with pytest.raises(ConfigError, match="not in 'branch' 'ci-1'"):
        read({**by_name, "LAKEBASE_BRANCH": "ci-1"})
