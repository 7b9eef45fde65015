"""Secrets typed into the YAML of components and of Dagster's storage, where a variable's name belongs."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster.components.core.component_tree import ComponentTreeException
from dagster.components.testing import create_defs_folder_sandbox

import dagster_lakebase.components as components
from dagster_lakebase import LakebaseConnectionComponent, LakebaseHealthComponent
from lakebase_provider.core.config import settings
from lakebase_provider.core.errors import ConfigError
from tests.security.exposure import Canaries, chain, shown_by

pytestmark = [
    pytest.mark.filterwarnings("ignore:.parse_obj_as. is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.* is currently in beta:dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore:.* is currently in preview:dagster.PreviewWarning"),
]

CANARY = "dapiS3cr3tCanary0123456789abcdef"
SECRETS = [row.name for row in settings() if row.kind == "secret"]
TYPED: dict[str, Any] = {
    "text": CANARY,
    "template": "{{ '" + CANARY + "' }}",
    "failing template": "{{ nothing('" + CANARY + "') }}",
    "list": [CANARY],
    "value": {"value": CANARY},
    "default": {"env": "X", "default": CANARY},
    "name": {"env": CANARY},
    "nested": {"env": {"env": CANARY}},
}


def refusal(component: type[dg.Component], attributes: dict[str, Any]) -> BaseException:
    with create_defs_folder_sandbox() as sandbox:
        folder = sandbox.defs_folder_path / "lakebase"
        folder.mkdir()
        content = {"type": f"dagster_lakebase.{component.__name__}", "attributes": attributes}
        (folder / "defs.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(ComponentTreeException) as caught, sandbox.build_all_defs():
            pass
        return caught.value


def shown(error: BaseException) -> str:
    """All that logs have of it, and what pydantic tells a program."""
    told = [str(step.errors()) for step in chain(error) if hasattr(step, "errors")]
    return "".join([*traceback.format_exception(error), *told])


@pytest.mark.parametrize("how", TYPED)
@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_typed_as_text_is_refused_without_being_shown(name: str, how: str) -> None:
    given = {"endpoint": "projects/p/branches/b/endpoints/e", name: TYPED[how]}
    told = shown(refusal(LakebaseConnectionComponent, given))
    assert f"{name} is a secret" in told
    assert f"{name}: {{env: " in told
    assert CANARY not in told


@pytest.mark.parametrize(
    ("component", "given"),
    [
        (LakebaseConnectionComponent, {"clientsecret": CANARY}),
        (LakebaseConnectionComponent, {"max_size": CANARY}),
        (LakebaseConnectionComponent, {"branch_deployments": {"tl": CANARY}}),
        (LakebaseConnectionComponent, {"branch_deployments": CANARY}),
        (LakebaseHealthComponent, {"assets": ["a"], "limits": {"max_connections_used": CANARY}}),
        (LakebaseHealthComponent, {"assets": ["a"], "limits": CANARY}),
    ],
)
def test_nor_is_one_in_another_place(component: type[dg.Component], given: dict[str, Any]) -> None:
    assert CANARY not in shown(refusal(component, given))


@pytest.mark.parametrize("name", components.__all__)
def test_no_component_shows_what_it_does_not_know(name: str) -> None:
    told = shown(refusal(getattr(components, name), {"clientsecret": CANARY}))
    assert "clientsecret" in told
    assert CANARY not in told


@pytest.mark.parametrize("variable", ["DATABRICKS_CLIENT_SECRET", "_my_secret_2", "TheSecret", "S3_KEY"])
def test_a_variables_name_is_taken(variable: str) -> None:
    made = LakebaseConnectionComponent.resolve_from_dict({"client_secret": {"env": variable}})
    assert made.resource().client_secret == dg.EnvVar(variable)


def test_a_name_that_looks_like_a_secret_is_one_if_there_is_such_a_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CANARY, "value")
    made = LakebaseConnectionComponent.resolve_from_dict({"client_secret": {"env": CANARY}})
    assert made.resource().client_secret == dg.EnvVar(CANARY)


@pytest.mark.parametrize(
    "given",
    [
        {"client_secret": {"env": CANARY}},
        {"password": {"env": CANARY}},
        {"workspace_host": f"https://u:{CANARY}@x.cloud.databricks.com"},
        {"host": f"u:{CANARY}@h.databricks.com"},
        {"user": f"x\0{CANARY}"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_the_storage_shows_none_either(given: dict[str, Any], tmp_path: Path) -> None:
    config = {
        "endpoint": "projects/p/branches/b/endpoints/e",
        "workspace_host": "https://x.cloud.databricks.com",
        "client_id": "c",
        **given,
    }
    custom = {"module": "dagster_lakebase.storage", "class": "LakebaseStorage", "config": config}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"storage": {"custom": custom}}))
    del config, custom
    with pytest.raises(ConfigError) as caught:
        dg.DagsterInstance.from_config(str(tmp_path)).get_runs()
    canaries = Canaries()
    canaries.add(CANARY)
    given.clear()
    assert f"'{CANARY}'" not in str(caught.value)
    # Dagster's own frames, above, hold the file.
    ours = [where for where in canaries.in_any(shown_by(caught.value)) if "dagster_lakebase" in where]
    assert ours == []
    assert CANARY not in shown(caught.value)
