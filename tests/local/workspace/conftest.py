"""Calls of the real databricks-sdk that nearly every test of the control plane makes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from databricks.sdk.common.lro import LroOptions
from databricks.sdk.common.types.fieldmask import FieldMask
from databricks.sdk.service.postgres import Branch, BranchSpec, Endpoint, EndpointSpec, EndpointType
from google.protobuf.duration_pb2 import Duration  # type: ignore[import-untyped]

from lakebase_provider.local import LocalLakebase
from tests.local.conftest import Lake

PROJECT = "projects/local"
PRODUCTION = f"{PROJECT}/branches/production"
READ_ONLY = EndpointType.ENDPOINT_TYPE_READ_ONLY
#: For operations that are not expected to end.
SOON = LroOptions(timeout=timedelta(seconds=1))


class Plane(Lake):
    """The control plane, with the calls that most tests begin with."""

    def __init__(self, server: LocalLakebase) -> None:
        super().__init__(server)
        self.api = self.workspace.postgres

    def begin_branch(self, branch_id: str, **spec: Any) -> Any:
        """Ask for a branch that does not expire unless it says so, and return the operation."""
        if not spec.keys() & {"ttl", "expire_time", "no_expiry"}:
            spec["no_expiry"] = True
        return self.api.create_branch(PROJECT, Branch(spec=BranchSpec(**spec)), branch_id)

    def branch(self, branch_id: str, **spec: Any) -> Branch:
        """Create a branch."""
        found = self.begin_branch(branch_id, **spec).wait()
        assert isinstance(found, Branch)
        return found

    def change(self, branch: str, mask: str, **spec: Any) -> Branch:
        """Update a branch."""
        body = Branch(spec=BranchSpec(**spec))
        return self.api.update_branch(branch, body, FieldMask(field_mask=[mask])).wait()

    def replica(self, branch: str = PRODUCTION, endpoint_id: str = "reader") -> Endpoint:
        """Create an endpoint that reads."""
        body = Endpoint(spec=EndpointSpec(endpoint_type=READ_ONLY))
        return self.api.create_endpoint(branch, body, endpoint_id).wait()

    def send(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Send what the SDK has no method for."""
        path = f"/api/2.0/postgres/{path}"
        return self.workspace.api_client.do(method, path, query=query, body=body)

    def names(self, **options: Any) -> list[str]:
        """The ids of all branches."""
        return [str(found.branch_id) for found in self.api.list_branches(PROJECT, **options)]


@pytest.fixture
def plane(lakebase_env: LocalLakebase) -> Plane:
    return Plane(lakebase_env)


def seconds(number: float) -> Any:
    return Duration(seconds=int(number))
