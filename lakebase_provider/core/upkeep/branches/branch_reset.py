"""A branch reset from its parent: purged, and created again under the same name.

The API has no reset of its own. What the new branch has no copy of is told: roles and grants that were made
on the branch. Before it is purged, what it has to be again is kept on this machine, so that a run after a
kill finishes what that one began.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from lakebase_provider.core.base.clock import Clock, Deadline
from lakebase_provider.core.base.threads import to_its_end, until_gone, unwinding_on_sigterm
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.errors import ConfigError, LakebaseError
from lakebase_provider.core.errors.remedy import Remedy, offered
from lakebase_provider.core.workspace.objects.branches import Branch, BranchOptions, after_purge
from lakebase_provider.core.workspace.objects.endpoints import Endpoint, EndpointOptions, EndpointType
from lakebase_provider.core.workspace.objects.kept_changes import Kept, left_behind
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects
from lakebase_provider.core.workspace.operations import until

logger = logging.getLogger(__name__)

#: Privileges on a database and on what is in it, but for those of PUBLIC.
_GRANTS = """
SELECT kind, name, grantee::pg_catalog.regrole::text, privilege_type FROM (
    SELECT 'table' AS kind, c.oid::pg_catalog.regclass::text AS name, a.grantee, a.privilege_type
    FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
    WHERE c.relnamespace::pg_catalog.regnamespace::text NOT LIKE 'pg\\_%'
        AND c.relnamespace <> 'information_schema'::pg_catalog.regnamespace
    UNION ALL
    SELECT 'schema', n.nspname, a.grantee, a.privilege_type
    FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a WHERE n.nspname NOT LIKE 'pg\\_%'
    UNION ALL
    SELECT 'routine', p.oid::pg_catalog.regprocedure::text, a.grantee, a.privilege_type
    FROM pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl) a
    WHERE p.pronamespace::pg_catalog.regnamespace::text NOT LIKE 'pg\\_%'
        AND p.pronamespace <> 'information_schema'::pg_catalog.regnamespace
    UNION ALL
    SELECT 'database', d.datname, a.grantee, a.privilege_type
    FROM pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) a WHERE d.datname = current_database()
) granted WHERE grantee <> 0
"""


@dataclass(frozen=True, order=True)
class Grant:
    """A privilege that a role was given.

    Attributes:
        kind: ``"table"``, ``"schema"``, ``"routine"`` or ``"database"``.
        name: On what.
        role: To whom.
        privilege: What, such as ``"SELECT"``.
    """

    kind: str
    name: str
    role: str
    privilege: str


@dataclass(frozen=True)
class BranchReset:
    """What has become of a branch that was reset.

    Attributes:
        branch: The new branch, with another uid.
        former_uid: The former one's uid.
        endpoints: Its endpoints, sized as before, at other hosts.
        lost_roles: Postgres roles that the former branch had and the new one does not.
        lost_grants: Privileges likewise, in the client's database; None if one of the two could not be asked.
    """

    branch: Branch
    former_uid: str | None
    endpoints: tuple[Endpoint, ...]
    lost_roles: tuple[str, ...]
    lost_grants: tuple[Grant, ...] | None


@dataclass(frozen=True)
class _Plan:
    """What a branch has to be again after it is purged, and what its next data lacks by then."""

    name: str
    uid: str | None
    options: BranchOptions
    computes: dict[str, EndpointOptions]
    roles: set[str]
    grants: set[Grant] | None

    @classmethod
    def of(cls, former: Branch, workspace: WorkspaceObjects, grants: set[Grant] | None) -> _Plan:
        options: BranchOptions = {"source_branch": former.source_branch or ""}
        if former.expire_time is None:
            options["no_expiry"] = True
        else:
            options["expire_time"] = former.expire_time
        computes = {one.name: _options(one) for one in workspace.endpoints.list(former.name)}
        return cls(former.name, former.uid, options, computes, _roles(workspace, former.name), grants)

    def to_json(self) -> dict[str, Any]:
        at = self.options.get("expire_time")
        return {
            "options": {**self.options, **({} if at is None else {"expire_time": at.isoformat()})},
            "computes": self.computes,
            "roles": sorted(self.roles),
            "grants": None if self.grants is None else [astuple(grant) for grant in sorted(self.grants)],
        }

    @classmethod
    def from_json(cls, kept: Kept, found: Mapping[str, Any]) -> _Plan:
        options, grants = dict(found["options"]), found["grants"]
        if "expire_time" in options:
            options["expire_time"] = datetime.fromisoformat(options["expire_time"])
        return cls(
            kept.name,
            kept.uid,
            cast("BranchOptions", options),
            {name: cast("EndpointOptions", dict(one)) for name, one in dict(found["computes"]).items()},
            set(found["roles"]),
            None if grants is None else {Grant(*grant) for grant in grants},
        )

    @property
    def calls(self) -> str:
        """What has the branch back."""
        calls = ["import datetime"] if "expire_time" in self.options else []
        calls += [_call("branches.ensure", self.name, self.options)]
        calls += [_call("endpoints.ensure", name, options) for name, options in self.computes.items()]
        return "; ".join(calls)


class Reset:
    """The reset of a branch, which a kill does not leave half done for good.

    Args:
        name: The branch's full name.
        workspace: Where it is.
        connect: Opens a session on the branch, to read its grants.
        deadline: Until when.
        clock: Where the time comes from.
        wait_ready: Waits until the new branch can be used.
    """

    def __init__(
        self,
        name: str,
        workspace: WorkspaceObjects,
        connect: Callable[[], LakebaseConnection],
        deadline: Deadline,
        clock: Clock,
        wait_ready: Callable[[], Branch],
    ) -> None:
        self._name, self._workspace, self._connect = name, workspace, connect
        self._deadline, self._clock, self._wait_ready = deadline, clock, wait_ready

    def run(self, workspace_key: str, folder: Path) -> BranchReset:
        """Purge the branch, create it again from its source as that is now, and put back what was chosen.

        Where an earlier reset of the branch was killed after it was purged, that one is finished.

        Args:
            workspace_key: Tells the workspaces' files apart.
            folder: Where the plan is kept meanwhile.

        Raises:
            ObjectStateError: It is protected, a root, the default, or has children; nothing was changed.
            LakebaseError: The workspace refused, or was not done in time. If the branch is purged by then,
                the error says so, and its remedy is what has it back.
        """
        for left in left_behind(workspace_key, folder):
            if left.name == self._name:
                is_missing = self._workspace.branches.find(self._name) is None
                done = self.finish(left)
                if is_missing and done is not None:
                    return done
        former = self._workspace.branches.get(self._name)
        self._workspace.branches.require_disposable(former)
        plan = _Plan.of(former, self._workspace, self._grants())
        self._workspace.branches.require_creatable(plan.name, **plan.options)
        kept = Kept(workspace_key, self._name, former.uid or "", folder)
        return self._kept_until_done(kept, plan, purges=True)

    def finish(self, kept: Kept) -> BranchReset | None:
        """Do what is left to do of a reset that was killed after it had purged the branch.

        Returns:
            What has become of it; None if it was not purged, has expired meanwhile, was created by somebody
            else from another source, or is finished by another process.

        Raises:
            ConfigError: What was kept is damaged.
            LakebaseError: As by :meth:`run`.
        """
        found = kept.take()
        if found is None:
            return None
        try:
            plan = _Plan.from_json(kept, found)
        except (KeyError, TypeError, ValueError) as error:
            kept.stop(is_done=False)
            raise ConfigError(
                f"The plan of the reset of {kept.name} in {kept.path} is not as this package writes it.",
                remedy=f"Create the branch again if it is gone, and delete {kept.path}.",
            ) from error
        try:
            # The workspace may still be at it.
            what = f"The deletion of {kept.name}"
            [there] = until(self._settled, what, kept.name, self._deadline, self._clock)
            expires = plan.options.get("expire_time")
            is_late = expires is not None and expires.timestamp() <= self._clock.wall()
            was_kept = there is not None and there.uid == kept.uid
            is_another = there is not None and there.source_branch != plan.options["source_branch"]
            is_over = is_late or was_kept or is_another
        except BaseException:
            kept.stop(is_done=False)
            raise
        if is_over:
            kept.stop(is_done=True)
            return None
        return self._kept_until_done(kept, plan, purges=False)

    def _settled(self) -> tuple[Branch | None] | None:
        found = self._workspace.branches.find(self._name)
        return (found,) if found is None or found.pending_state is None else None

    def _kept_until_done(self, kept: Kept, plan: _Plan, *, purges: bool) -> BranchReset:
        branches = self._workspace.branches

        def remake() -> tuple[Endpoint, ...]:
            if purges:
                kept.enter(plan.to_json)
                # After a kill nobody raises an error.
                logger.warning(
                    "The branch %s is about to be purged and created again. If this is killed, reset it "
                    "again on this machine, or run %s.",
                    self._name,
                    plan.calls,
                )
            is_done = False
            try:
                if purges:
                    self._purge(kept, plan)
                try:
                    branches.ensure(plan.name, timeout=self._remaining(), **plan.options)
                except LakebaseError as error:
                    raise after_purge(error, plan.name, _again(plan)) from error
                restored = tuple(self._put_back(name, options) for name, options in plan.computes.items())
                is_done = True
                return restored
            finally:
                kept.stop(is_done=is_done)

        # Whoever is cancelled or interrupted in between would leave no branch behind: it waits for the end.
        with unwinding_on_sigterm():
            restored = to_its_end(lambda: until_gone(remake, threading.Event()), "lakebase-branch-reset")
        if any(one.endpoint_type == "READ_WRITE" and one.disabled for one in restored):
            # Nobody can log in there, as before.
            branch = branches.wait_ready(plan.name, timeout=self._remaining())
        else:
            branch = self._wait_ready()
        now = self._grants() if plan.grants is not None else None
        return BranchReset(
            branch,
            plan.uid,
            restored,
            tuple(sorted(plan.roles - _roles(self._workspace, plan.name))),
            None if plan.grants is None or now is None else tuple(sorted(plan.grants - now)),
        )

    def _purge(self, kept: Kept, plan: _Plan) -> None:
        branches = self._workspace.branches
        try:
            # Where another reset was faster, the branch of that name has the source's data by now.
            branches.delete(
                kept.name, purge=True, missing_ok=True, uid=kept.uid or None, timeout=self._remaining()
            )
        except LakebaseError as error:
            with contextlib.suppress(LakebaseError):
                found = branches.find(kept.name)
                if found is not None and found.is_settled:
                    # It was refused, and whoever deletes the branch later does not want it back.
                    kept.stop(is_done=True)
                    raise error from None
            copy = error.again()
            copy.message = f"The branch {kept.name} is being purged, or is gone: {error.message}"
            copy.remedy = offered(_again(plan))
            raise copy from error

    def _put_back(self, name: str, options: EndpointOptions) -> Endpoint:
        try:
            return self._workspace.endpoints.ensure(name, timeout=self._remaining(), **options)
        except LakebaseError as error:
            copy = error.again()
            copy.message = f"The branch was reset, but not the settings of {name}: {error.message}"
            copy.remedy = offered(
                Remedy(
                    f"Call client.branches.recover() on this machine, or "
                    f"{_call('endpoints.ensure', name, options)}.",
                    options=("client",),
                    otherwise="Run 'lakebase branches recover' on this machine.",
                )
            )
            raise copy from error

    def _remaining(self) -> float:
        # Above 0: that the time is up is an error of what is waited for, and not of an argument.
        return max(0.001, self._deadline.remaining())

    def _grants(self) -> set[Grant] | None:
        try:
            with self._connect() as connection:
                rows: Iterable[tuple[str, str, str, str]] = connection.execute(_GRANTS).fetchall()
                return {Grant(*row) for row in rows}
        except LakebaseError:
            return None


def _again(plan: _Plan) -> Remedy:
    return Remedy(
        f"Call client.branches.reset({plan.name!r}) again on this machine, or run {plan.calls}.",
        options=("client",),
        otherwise=f"Run 'lakebase branches reset {plan.name}' again on this machine.",
    )


def _options(former: Endpoint) -> EndpointOptions:
    kind: EndpointType = "READ_ONLY" if former.endpoint_type == "READ_ONLY" else "READ_WRITE"
    return {"endpoint_type": kind, **former.settings()}


def _call(method: str, name: str, options: Mapping[str, Any]) -> str:
    given = "".join(f", {option}={value!r}" for option, value in options.items())
    return f"client.workspace.{method}({name!r}{given})"


def _roles(workspace: WorkspaceObjects, branch: str) -> set[str]:
    return {role.postgres_role or role.name for role in workspace.roles.list(branch)}
