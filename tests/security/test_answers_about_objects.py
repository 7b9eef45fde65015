"""A workspace that answers about other objects than were asked for, which would be used or deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ControlPlaneError, LakebaseError
from lakebase_provider.local import LocalLakebase

from .hostile_workspace import INSTANCE, RESOURCE, HostileWorkspace
from .lying_workspace import LyingWorkspace

VICTIM = "projects/victim/branches/run-1"
MINE = "projects/local/branches/run-mine"


@pytest.fixture
def workspace(lakebase_env: LocalLakebase) -> Iterator[LyingWorkspace]:
    with LyingWorkspace(lakebase_env.env()["DATABRICKS_HOST"]) as found:
        yield found


@pytest.fixture
def client(lakebase_env: LocalLakebase, workspace: LyingWorkspace) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config(workspace_host=workspace.url, client_id=lakebase_env.client_id,
                                            client_secret=lakebase_env.client_secret)) as found:  # fmt: skip
        yield found
    with LakebaseClient(lakebase_env.config()) as honest:
        for branch in honest.workspace.branches.list():
            if branch.id.startswith("run-"):
                honest.workspace.branches.delete(branch.name, purge=True)


@pytest.mark.parametrize(
    "name",
    [
        "projects/local/branches/production",
        "projects/local/branches/production/endpoints/primary",
        "projects/victim/branches/run-mine/operations/1",
        "projects/local2/operations/1",
        "projects/local/branches/../../victim/operations/1",
        "operations/1",
        "catalogs/local/operations/1",
    ],
)
def test_an_operation_is_one_of_the_project_that_was_asked(
    client: LakebaseClient, workspace: LyingWorkspace, name: str
) -> None:
    def lie(method: str, path: str, answer: Any) -> Any:
        is_change = method != "GET" and path.startswith("projects/")
        return {"name": name, "done": False} if is_change else answer

    workspace.lie = lie
    branches = client.workspace.branches
    changes: list[Callable[[], Any]] = [
        lambda: branches.create("run-mine", ttl=600),
        lambda: branches.begin_create("run-mine2", ttl=600),
        lambda: branches.update("production", is_protected=False),
        lambda: branches.delete("run-mine", purge=True),
        lambda: client.workspace.endpoints.update("primary", suspend_timeout=300),
    ]
    for change in changes:
        workspace.seen.clear()
        with pytest.raises(ControlPlaneError, match=r"'name' is .* no operation of 'projects/local'"):
            change()
        # Some of these are asked for by the change itself.
        assert "operations" not in name or name not in {path for _, path in workspace.seen}


def test_an_operations_answer_is_its_own(client: LakebaseClient, workspace: LyingWorkspace) -> None:
    def lie(_method: str, path: str, answer: Any) -> Any:
        return {**answer, "name": f"{VICTIM}/operations/1"} if "/operations/" in path else answer

    workspace.lie = lie
    with pytest.raises(ControlPlaneError, match=r"'name' is 'projects/victim"):
        client.workspace.branches.create("run-mine", ttl=600)


@pytest.mark.parametrize("name", [VICTIM, "projects/local/branches/production", "../x"])
def test_what_is_made_is_what_was_asked_for(
    client: LakebaseClient, workspace: LyingWorkspace, name: str
) -> None:
    def lie(_method: str, _path: str, answer: Any) -> Any:
        made = answer.get("response") if isinstance(answer, dict) else None
        return {**answer, "response": {**made, "name": name}} if made and made.get("name") else answer

    workspace.lie = lie
    for change in (
        lambda: client.workspace.branches.create("run-mine", ttl=600),
        lambda: client.workspace.branches.update("run-mine", ttl=900),
    ):
        with pytest.raises(ControlPlaneError, match=f"'name' is .* not '{MINE}'"):
            change()


@pytest.mark.parametrize("name", [VICTIM, "projects/local/branches/production/endpoints/primary", "x"])
def test_what_is_read_is_what_was_asked_for(
    client: LakebaseClient, workspace: LyingWorkspace, name: str
) -> None:
    def lie(_method: str, _path: str, answer: Any) -> Any:
        return {**answer, "name": name} if isinstance(answer, dict) and "name" in answer else answer

    workspace.lie = lie
    for read in (
        lambda: client.workspace.branches.get("production"),
        lambda: client.workspace.branches.find("production"),
        lambda: client.workspace.operation("projects/local/branches/production").wait(1),
        lambda: client.branches.wait_ready("production", timeout=5),
    ):
        with pytest.raises(ControlPlaneError, match=r"'name' is .* not 'projects/local/branches/production'"):
            read()


@pytest.mark.parametrize(
    "name", [VICTIM, "projects/local/branches/../run-1", "projects/local/branches/a/b", "run-1", "", None, 5]
)
def test_what_is_listed_lies_below_its_parent(
    client: LakebaseClient, workspace: LyingWorkspace, name: Any
) -> None:
    def lie(_method: str, path: str, answer: Any) -> Any:
        if path != "projects/local/branches":
            return answer
        one = {**answer["branches"][0], "name": name, "is_default": False}
        one["status"] = {**one.get("status", {}), "expire_time": "2099-01-01T00:00:00Z", "default": False}
        return {"branches": [*answer["branches"], one]}

    workspace.lie = lie
    for act in (
        lambda: client.workspace.branches.list(),
        lambda: client.branches.sweep(older_than=0, held=0),
        lambda: client.branches.budget(),
    ):
        with pytest.raises(ControlPlaneError, match=r"'branches.*name' is "):
            act()
    assert "DELETE" not in {method for method, _ in workspace.seen}


@pytest.mark.parametrize("listed", ["projects/local/branches", "branches/production/endpoints"])
def test_an_endpoint_is_looked_up_below_its_parents(
    client: LakebaseClient, workspace: LyingWorkspace, listed: str
) -> None:
    def lie(_method: str, path: str, answer: Any) -> Any:
        if not path.endswith(listed):
            return answer
        (key,) = (k for k in answer if isinstance(answer[k], list))
        return {key: [{**one, "name": f"{VICTIM}/endpoints/primary"} for one in answer[key]]}

    workspace.lie = lie
    with pytest.raises(ControlPlaneError, match=r"name' is 'projects/victim"):
        client.workspace.endpoints.locate("ep-nobody-1234")


@pytest.mark.parametrize("settings", [{}, {"endpoint": None, "instance": "i"}], ids=["endpoint", "instance"])
def test_no_host_of_another_object_is_logged_in_at(settings: dict[str, Any]) -> None:
    with HostileWorkspace() as hostile, LakebaseClient(hostile.config(connect_budget=3, **settings)) as asked:
        path = INSTANCE if settings else RESOURCE
        hostile.answers[path] = {**hostile.answers[path], "name": "projects/victim/branches/b/endpoints/e"}
        with pytest.raises(LakebaseError, match=r"'name' is 'projects/victim/branches/b/endpoints/e', not"):
            asked.connect()
