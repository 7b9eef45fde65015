"""Attacks on a Dagster resource with secrets as text: what Dagster, pydantic and Python keep of them."""

from __future__ import annotations

import copy
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster_shared.serdes import serialize_value
from pydantic import ValidationError

from dagster_lakebase import LakebaseBranchDeployment, LakebaseResource
from lakebase_provider.core import Secret
from lakebase_provider.core.config import settings
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.local import LocalLakebase
from tests.dagster.test_launchpad import who
from tests.dagster.two_steps import Nested

SECRETS = [row.name for row in settings() if row.kind == "secret"]
CANARY = "dapi-canary-0123"


WAYS: dict[str, Callable[[Any], object]] = {
    "vars": vars,
    "dump": lambda resource: resource.model_dump(),
    "json": lambda resource: resource.model_dump_json(),
    "pickle": pickle.dumps,
    "copy": lambda resource: vars(copy.deepcopy(resource)),
    "repr": repr,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [LakebaseResource, LakebaseBranchDeployment])
def test_a_resource_with_a_secret_as_text_holds_none_in_its_fields(
    kind: type[LakebaseResource], way: str
) -> None:
    given: Any = {**dict.fromkeys(SECRETS, CANARY), "workspace_host": f"https://u:{CANARY}@w.databricks.com"}
    resource = kind(**given)
    assert CANARY not in str(WAYS[way](resource))
    if way != "copy":  # Dagster's own resources have no deep copies
        assert CANARY not in str(WAYS[way](Nested(lakebase=resource)))


def test_what_dagster_stores_of_a_secret_as_text_is_its_mask() -> None:
    given: Any = {**dict.fromkeys(SECRETS, CANARY), "host": f"u:{CANARY}@w.databricks.com"}
    lakebase = LakebaseResource(**given)
    defs = dg.Definitions(assets=[who], resources={"lakebase": lakebase, "nested": Nested(lakebase=lakebase)})
    job = defs.resolve_implicit_global_asset_job_def()
    stored = (RepositorySnap.from_def(defs.get_repository_def()), job.get_job_snapshot())
    shown = "".join(map(serialize_value, stored))
    assert "client_secret" in shown
    assert CANARY not in shown


def test_a_host_with_a_user_name_is_refused_as_ever(lakebase_env: LocalLakebase) -> None:
    resource = LakebaseResource(workspace_host=f"https://u:{CANARY}@w.databricks.com")
    with pytest.raises(ConfigError, match="'workspace_host' is a text that contains a user name"):
        _ = resource.lakebase_config


@pytest.mark.parametrize(
    "wrong", [{"client_secrets": CANARY}, {"client_secret": {"value": CANARY}}, {"token": [CANARY]}]
)
def test_a_refused_argument_is_in_no_part_of_the_error(wrong: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        LakebaseResource(password=CANARY, **wrong)
    error = caught.value
    del wrong
    frames = traceback.TracebackException.from_exception(error, capture_locals=True)
    # But for the frame of this test.
    del frames.stack[0]
    assert CANARY not in f"{error} {error.errors()} {error.json()} {''.join(frames.format())}"


def test_a_secret_as_text_is_refused_where_it_cannot_be_held_back() -> None:
    with pytest.raises(ConfigError, match="'token' is given to configure_at_launch") as caught:
        LakebaseResource.configure_at_launch(token=CANARY)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert CANARY not in "".join(shown.format())


def test_a_copy_has_the_secret(lakebase_env: LocalLakebase) -> None:
    resource = LakebaseResource(client_id="team", client_secret=CANARY)
    copied = copy.deepcopy(resource)
    assert copied.lakebase_config == resource.lakebase_config
    assert copied.lakebase_config.client_secret == Secret(CANARY)
