"""What objects are described by: durations, times, names, bodies and masks, for whatever values there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any, get_args, get_type_hints

import pytest
from databricks.sdk.service import postgres
from hypothesis import given
from hypothesis import strategies as st

from lakebase_provider.core import LakebaseConfig
from lakebase_provider.core.base.clock import SYSTEM_CLOCK
from lakebase_provider.core.config.resource_names import (
    FORMATS,
    NameRefusedError,
    operation_path,
    resource_path,
)
from lakebase_provider.core.errors import ConfigError, ControlPlaneError
from lakebase_provider.core.workspace.answers import Answer
from lakebase_provider.core.workspace.objects import (
    branches,
    databases,
    endpoints,
    projects,
    snapshots,
)
from lakebase_provider.core.workspace.objects.object_kind import (
    Objects,
    places,
)
from lakebase_provider.core.workspace.objects.option_values import (
    moment,
    seconds,
)
from lakebase_provider.core.workspace.objects.snapshots import Cadence
from lakebase_provider.core.workspace.objects.sync import cdf_configs, synced_tables
from lakebase_provider.core.workspace.workspace import ControlPlane

KINDS: list[type[Objects[Any]]] = [
    projects.Projects,
    branches.Branches,
    endpoints.Endpoints,
    snapshots.Snapshots,
    databases.Roles,
    databases.Databases,
    databases.Catalogs,
    synced_tables.SyncedTables,
    synced_tables.ProvisionedSyncedTables,
    cdf_configs.CdfConfigs,
]
OPTIONS = {
    projects.Projects: projects.ProjectOptions,
    branches.Branches: branches.BranchOptions,
    endpoints.Endpoints: endpoints.EndpointOptions,
    snapshots.Snapshots: snapshots.SnapshotOptions,
    databases.Roles: databases.RoleOptions,
    databases.Databases: databases.DatabaseOptions,
    databases.Catalogs: databases.CatalogOptions,
    synced_tables.SyncedTables: synced_tables.SyncedTableOptions,
    synced_tables.ProvisionedSyncedTables: synced_tables.SyncedTableOptions,
    cdf_configs.CdfConfigs: cdf_configs.CdfConfigOptions,
}
#: What one of two APIs does not take.
ELSEWHERE: dict[Any, set[str]] = {
    synced_tables.ProvisionedSyncedTables: {"branch", "pipeline_channel", "extra_columns"}
}
#: The masks that the API accepts (shared/facts/lakebase-own.md).
MASKS = {
    "project": {
        *(f"spec.{name}" for name in ("budget_policy_id", "custom_tags", "default_branch", "display_name")),
        *("spec.enable_pg_native_login", "spec.history_retention_duration"),
        *(
            f"spec.default_endpoint_settings.{name}"
            for name in ("autoscaling_limit_max_cu", "autoscaling_limit_min_cu", "pg_settings", "suspension")
        ),
    },
    "branch": {"spec.is_protected", "spec.expiration"},
    "endpoint": {
        *("spec.autoscaling_limit_max_cu", "spec.autoscaling_limit_min_cu", "spec.disabled"),
        *("spec.group.enable_readable_secondaries", "spec.group.max", "spec.group.min"),
        *("spec.settings.pg_settings", "spec.suspension"),
    },
    "snapshot": set(),
    "role": {
        "spec.membership_roles",
        *(f"spec.attributes.{name}" for name in ("createdb", "createrole", "bypassrls")),
    },
    "database": {"spec.postgres_database", "spec.role"},
    "catalog": set(),
    "synced_table": set(),
    "cdf_config": set(),
}
VALUES: dict[Any, Any] = {
    str: "some-name",
    bool: True,
    int: 1,
    float: 2.5,
    datetime: datetime(2027, 1, 1, tzinfo=timezone.utc),
}


def a_value(annotation: Any) -> Any:
    if str(annotation).startswith("list"):
        return []
    return VALUES.get(annotation, {} if "Mapping" in str(annotation) else "some-name")


def made(kind: type[Objects[Any]]) -> Objects[Any]:
    config = LakebaseConfig(
        endpoint="projects/p/branches/b/endpoints/primary",
        workspace_host="https://w.cloud.databricks.com",
        client_id="c",
        client_secret="s",  # type: ignore[arg-type] # parsed
    )
    return kind(config, ControlPlane(config), SYSTEM_CLOCK)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_options_are_typed_and_the_masks_are_the_apis(kind: type[Objects[Any]]) -> None:
    typed = get_type_hints(OPTIONS[kind])
    assert set(kind.options) == set(typed) - ELSEWHERE.get(kind, set())
    assert {option.mask for option in kind.options.values() if option.mask} == MASKS[kind.kind]
    read = {*places(kind.shape), *(n for n, one in vars(kind.shape).items() if isinstance(one, property))}
    assert {option.reads for option in kind.options.values() if option.reads} <= read
    # A time to live counts from a creation that the caller does not know; no end has a rule of its own.
    unread = {name for name, option in kind.options.items() if option.mask and not option.reads}
    assert unread == ({"ttl", "no_expiry"} if kind is branches.Branches else set())


#: Ids, which are the last parts of names; and what a timeout of suspension tells already.
TOLD_ELSEWHERE = re.compile(
    r"(status\.)?(project|branch|endpoint|role|database|snapshot|catalog|synced_table|cdf_config)_id"
    r"|status.*\.no_suspension"
)


def leaves(kind: Any, above: str = "") -> Iterator[str]:
    """Where each value of a dataclass of databricks-sdk is in the JSON."""
    hints = get_type_hints(kind, vars(postgres))
    for one in fields(kind):
        inner = [part for part in (hints[one.name], *get_args(hints[one.name])) if is_dataclass(part)]
        if inner and one.name != "custom_tags":
            yield from leaves(inner[0], f"{above}{one.name}.")
        else:
            yield f"{above}{one.name}"


# The older API's dataclasses lie elsewhere, and nest their values otherwise.
@pytest.mark.parametrize(
    "kind",
    [kind for kind in KINDS if kind is not synced_tables.ProvisionedSyncedTables],
    ids=lambda kind: kind.kind,
)
def test_all_that_the_sdk_knows_of_an_object_can_be_read_and_given(kind: type[Objects[Any]]) -> None:
    known = {*leaves(getattr(postgres, kind.kind.title().replace("_", "")))}
    given = {path for path in known if path.startswith(("spec.", "initial_"))}
    assert {path for path in known - given if not TOLD_ELSEWHERE.fullmatch(path)} == {
        place.path for place in places(kind.shape).values()
    }
    options = {option.path for option in kind.options.values()}
    assert options <= known
    assert given == {path for path in options if path.startswith(("spec.", "initial_"))}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_a_body_has_what_its_mask_names(kind: type[Objects[Any]], data: st.DataObject) -> None:
    changeable = [name for name, option in kind.options.items() if option.mask]
    if not changeable:
        return
    names = data.draw(st.lists(st.sampled_from(changeable), min_size=1, unique=True))
    typed = get_type_hints(OPTIONS[kind])
    values = {name: a_value(typed[name]) for name in names}
    masks = [kind.options[name].mask for name in names]
    if len(set(masks)) < len(masks):
        with pytest.raises(ConfigError, match="Both "):
            made(kind)._body(values, creating=False)
        return
    body, mask = made(kind)._body(values, creating=False)
    assert set(mask) == set(masks)
    for name in names:
        place: Any = body
        for part in kind.options[name].path.split("."):
            place = place[part]
        assert place is not None
    assert len(mask) == len(set(mask))


@given(
    st.floats(0, 1e9, allow_nan=False)
    | st.integers(0, 10**9)
    | st.timedeltas(timedelta(0), timedelta(days=900))
)
def test_a_duration_comes_back_as_it_went(value: float | timedelta) -> None:
    text = seconds("ttl", value)
    assert re.fullmatch(r"\d+(\.\d{1,9})?s", text)
    wanted = value.total_seconds() if isinstance(value, timedelta) else value
    assert Answer({"ttl": text}, "it").duration("ttl") == pytest.approx(wanted, abs=1e-9)


@given(st.datetimes(timezones=st.timezones() | st.just(timezone.utc)))
def test_a_moment_comes_back_as_it_went(value: datetime) -> None:
    try:
        value.astimezone(timezone.utc)
    except OverflowError:
        return
    text = moment("at", value)
    assert text.endswith("Z")
    assert Answer({"at": text}, "it").moment("at") == value.astimezone(timezone.utc)


@given(
    st.builds(
        Cadence,
        retention=st.integers(3600, 10**7),
        hour=st.integers(0, 23),
        day_of_week=st.none() | st.sampled_from(["MONDAY", "SUNDAY"]),
    )
    | st.builds(Cadence, retention=st.just(3600), hour=st.just(0), day_of_month=st.integers(1, 31))
)
def test_a_cadence_comes_back_as_it_went(cadence: Cadence) -> None:
    assert Cadence.of(Answer(cadence.to_json(), "it")) == cadence


@given(st.text(max_size=100))
def test_no_name_leads_elsewhere(text: str) -> None:
    for kind in FORMATS:
        for name in (text, f"projects/{text}/branches/b", f"projects/p/snapshots/{text}", f"catalogs/{text}"):
            try:
                path = resource_path(kind, name)
            except NameRefusedError:
                continue
            table = r"(\.[A-Za-z0-9_-]+){2}" if kind == "synced_table" else ""
            assert re.fullmatch(rf"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)+{table}", path)
    try:
        path = operation_path(f"projects/p/operations/{text}")
    except NameRefusedError:
        return
    assert re.fullmatch(r"[A-Za-z0-9_/+=-]+", path)


def test_the_forms_of_names() -> None:
    assert FORMATS == {
        "project": "projects/<project>",
        "branch": "projects/<project>/branches/<branch>",
        "endpoint": "projects/<project>/branches/<branch>/endpoints/<endpoint>",
        "role": "projects/<project>/branches/<branch>/roles/<role>",
        "database": "projects/<project>/branches/<branch>/databases/<database>",
        "snapshot": "projects/<project>/snapshots/<snapshot>",
        "catalog": "catalogs/<catalog>",
        "synced_table": "synced_tables/<catalog>.<schema>.<table>",
        "cdf_config": "projects/<project>/branches/<branch>/databases/<database>/cdf-configs/<cdf-config>",
    }
    for kind, form in FORMATS.items():
        assert resource_path(kind, re.sub(r"<([\w-]+)>", r"my-\1", form))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_answer_is_read_with_whatever_is_missing_and_whatever_is_new(kind: type[Objects[Any]]) -> None:
    bare = kind.shape.of({"name": "n", "spec": None, "status": {"brand_new": 1}}, "it")
    assert bare == kind.shape(name="synced_tables/n" if kind.kind == "synced_table" else "n")
    for field_name, place in places(kind.shape).items():
        *groups, leaf = place.path.split(".")
        nested: dict[str, Any] = {leaf: object()}
        for group in reversed(groups):
            nested = {group: nested}
        with pytest.raises(ControlPlaneError, match=f"'{re.escape(place.path)}"):
            kind.shape.of(nested, field_name)


def test_a_state_that_nobody_knows_is_kept() -> None:
    found = branches.Branch.of({"name": "n", "status": {"current_state": "HIBERNATING"}}, "it")
    assert found.state == "HIBERNATING"
    assert not found.is_settled
    assert replace(found, state="READY").is_settled
    endpoint = endpoints.Endpoint.of({"status": {"endpoint_type": "ENDPOINT_TYPE_NEW"}}, "it")
    assert endpoint.endpoint_type == "NEW"
