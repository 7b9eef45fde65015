"""Leases of one branch: taken here and given back there, and by two holders."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import (
    AlreadyExistsError,
    LakebaseError,
    LeaseLostError,
    ObjectStateError,
)
from lakebase_provider.core.upkeep.branches.lease_options import LeasePlan
from lakebase_provider.core.workspace.objects.branches import Branch
from lakebase_provider.local import LocalLakebase
from tests.core.upkeep.leases import BRANCHES, HurriedClock, has_table, left, make_dirty

# In two halves.


def test_a_branch_is_taken_here_and_given_back_there(client: LakebaseClient) -> None:
    lease = client.branches.take("run/1", ttl=3600)
    with pytest.raises(LeaseLostError, match="another one has its name") as caught:
        client.branches.give_back(lease.branch.id, uid="br-another")
    assert not caught.value.retryable
    client.workspace.branches.update(lease.name, no_expiry=True, is_protected=True)
    with pytest.raises(ObjectStateError, match="is protected now"):
        client.branches.give_back(lease.name, uid=lease.uid)
    client.workspace.branches.update(lease.name, is_protected=False)
    assert client.branches.give_back(lease.name, uid=lease.uid)
    assert not client.branches.give_back(lease.name, uid=lease.uid)
    assert left(client) == []


def test_another_principals_right_makes_it_and_begins_to_take_it_back(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    manager = lakebase_env.admin.add_principal(create_role=False)
    lakebase_env.admin.set(managers=[manager.client_id])
    credentials = {"client_id": manager.client_id, "client_secret": manager.client_secret}
    with LakebaseClient(lakebase_env.config(**credentials)) as managing:
        acting = client.managed_by(managing.workspace)
        branches = acting.branches
        # The login that it waits for is the client's own: the manager has no role.
        lease = branches.take("run/1", ttl=3600)
        with pytest.raises(LeaseLostError, match="another one has its name"):
            branches.begin_give_back(lease.name, uid="br-another")
        with pytest.raises(ObjectStateError, match="is the default branch now"):
            branches.begin_give_back("production")
        operation = branches.begin_give_back(lease.name, uid=lease.uid)
        assert operation is not None
        operation.wait()
        assert branches.begin_give_back(lease.name, uid=lease.uid) is None
        with pytest.raises(LakebaseError):
            client.rehearse("SELECT 1")
        assert acting.rehearse("SELECT 1").ok
    assert left(client) == []


def test_a_purge_compares_the_uid_before_each_request(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    """While the project is busy with the creation of another branch of that name, the purge is sent again."""
    branches = client.workspace.branches
    former = branches.create("ci-1", ttl=3600)
    path, busy = f"{BRANCHES}/ci-1", "Another operation on the project is still running"
    lakebase_env.admin.fault("DELETE", path, status=409, error_code="RESOURCE_CONFLICT", message=busy)

    class Replacing(HurriedClock):
        done = False

        def sleep(self, seconds: float) -> None:
            if not self.done:
                self.done = True
                lakebase_env.admin.clear_faults()
                branches.ensure("ci-1", ttl=3600, on_exists="recreate")

    late = LakebaseClient(client.config, clock=Replacing())
    with pytest.raises(LeaseLostError, match="another one has its name"):
        late.branches.give_back("ci-1", uid=str(former.uid))
    assert branches.get("ci-1").uid != former.uid


# Two holders of one id.


def test_a_retry_replaces_what_was_left(client: LakebaseClient) -> None:
    former = client.branches.take("run/1")
    make_dirty(former)
    with client.branches.lease("run/1") as lease:
        assert lease.uid != former.uid
        assert not has_table(lease.client, "dirty")
        # The one that was replaced, and does not know, leaves the other one alone.
        with pytest.raises(LeaseLostError, match="another one has its name"):
            former.extend()
        with pytest.raises(LeaseLostError, match="another one has its name"):
            former.release()
        former.release()
        assert client.workspace.branches.get(lease.name).uid == lease.uid
    assert left(client) == []


def test_a_retry_reuses_what_was_left_or_refuses_it(client: LakebaseClient) -> None:
    former = client.branches.take("run/1")
    make_dirty(former)
    with pytest.raises(AlreadyExistsError, match="exists"):
        client.branches.take("run/1", if_exists="fail")
    with client.branches.lease("run/1", if_exists="reuse") as lease:
        assert lease.uid == former.uid
        assert has_table(lease.client, "dirty")
    assert left(client) == []


def test_a_branch_that_no_lease_made_is_left_alone(client: LakebaseClient) -> None:
    branches = client.workspace.branches
    branches.create("mine", no_expiry=True)
    branches.create("base", no_expiry=True)
    branches.create("other", ttl=3600, source_branch="base")
    before = {branch.id: branch.uid for branch in branches.list()}
    for name, why in [
        ("production", "is the project's default branch"),
        ("mine", "does not expire"),
        ("other", "was made from projects/local/branches/base, not from projects/local/branches/production"),
    ]:
        for policy in ("recreate", "reuse"):
            with pytest.raises(AlreadyExistsError, match=why):
                client.branches.take(branch=name, if_exists=policy)  # type: ignore[arg-type] # one of them
    assert {branch.id: branch.uid for branch in branches.list()} == before


@pytest.mark.parametrize("state", ["ARCHIVED", "RESETTING", "IMPORTING", "DELETED"])
def test_a_branch_that_no_lease_made_is_refused_in_each_state(client: LakebaseClient, state: str) -> None:
    source, leases = "projects/local/branches/production", client.branches._leases
    mine = Branch(name="projects/local/branches/dev", state=state, source_branch=source)
    with pytest.raises(AlreadyExistsError, match="does not expire, so no lease has left it"):
        leases._require_lent(mine, LeasePlan())


def test_a_deleted_branch_is_purged_only_if_it_was_lent(client: LakebaseClient) -> None:
    branches = client.workspace.branches
    branches.create("mine", no_expiry=True)
    branches.delete("mine")
    with pytest.raises(AlreadyExistsError, match="is deleted, and does not expire") as caught:
        client.branches.take(branch="mine")
    assert "bring it back" in str(caught.value)
    assert branches.undelete("mine").expire_time is None
    former = client.branches.take("run/1")
    branches.delete(former.name)
    with client.branches.lease("run/1") as lease:
        assert lease.uid != former.uid
    assert left(client) == ["mine"]


@pytest.mark.parametrize(
    "options", [{"at_time": datetime(2027, 1, 31)}, {"at_lsn": "0/1", "snapshot": "s-1"}, {"at_lsn": 7}]
)
def test_nothing_is_purged_for_what_cannot_be_made(client: LakebaseClient, options: dict[str, Any]) -> None:
    former = client.branches.take("run/1")
    with pytest.raises(LakebaseError):
        client.branches.take("run/1", **options)
    assert client.workspace.branches.get(former.name).uid == former.uid


def test_what_cannot_be_reused_says_what_a_lease_can(client: LakebaseClient) -> None:
    former = client.branches.take("run/1")
    client.workspace.branches.delete(former.name)
    for policy in ("reuse", "fail"):
        with pytest.raises(AlreadyExistsError) as caught:
            client.branches.take("run/1", if_exists=policy)  # type: ignore[arg-type] # one of them
        assert "if_exists='recreate'" in str(caught.value)


def test_a_branch_that_another_holder_has_just_made_is_not_undone(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    busy = "Another operation on the project is still running"
    lakebase_env.admin.fault(
        "POST", BRANCHES, status=409, error_code="RESOURCE_CONFLICT", message=busy, times=1
    )

    class Making(HurriedClock):
        uid: str | None = None

        def sleep(self, seconds: float) -> None:
            if self.uid is None:
                self.uid = client.workspace.branches.create("ci-1", ttl=3600).uid

    late = LakebaseClient(client.config, clock=(clock := Making()))
    with pytest.raises(LakebaseError):
        late.branches.take(branch="ci-1", if_exists="reuse", min_cu=100_000)
    assert client.workspace.branches.get("ci-1").uid == clock.uid
