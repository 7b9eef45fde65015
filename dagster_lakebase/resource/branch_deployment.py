"""The resource that leads a branch deployment to a branch of its own, and everything else to production."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from dagster import EnvVar
from pydantic import Field, PrivateAttr

from dagster_lakebase.resource.resource import LakebaseResource
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.config.resource_names import id_of
from lakebase_provider.core.errors import ConfigError

if TYPE_CHECKING:
    from lakebase_provider.core.client import LakebaseClient
    from lakebase_provider.core.connect.connection import AsyncLakebaseConnection
    from lakebase_provider.core.workspace.objects.branches import Branch

#: What the ids of such branches begin with: not as those of leases, which a sweep takes to last for hours.
PREFIX = "pr"
#: Seconds that they live after their last run.
TTL = 7 * 86_400.0
#: What DAGSTER_CLOUD_IS_BRANCH_DEPLOYMENT is elsewhere, if it is set at all.
_NO = ("", "0", "false", "False")


class LakebaseBranchDeployment(LakebaseResource):
    """A :class:`LakebaseResource` that in a branch deployment is on a branch of its own.

    In a branch deployment of Dagster+ (``DAGSTER_CLOUD_IS_BRANCH_DEPLOYMENT``), or where `deployment` names
    one, the branch is made from the one that the settings lead to, at the first use in a run: with
    production's rows, and without any way back to them. So what an asset reads that the deployment has not
    materialized is production's, and what it writes stays on the branch. Everywhere else this is a
    LakebaseResource and no more. Making a branch needs CAN MANAGE on the project.

    The branch's id follows from the deployment's name, so that every process finds the same one. The
    workspace deletes the branch `ttl` seconds after the last run has used it; the next one makes it anew.
    :func:`lakebase_delete_branch_op` purges it when the pull request is closed. A sensor's tick uses the
    branch, and neither makes it nor prolongs its life.

    Raises:
        ConfigError: At set-up: this is a branch deployment without a name, and also as for
            :class:`LakebaseResource`.

    Example:
        .. code-block:: python

            lakebase = LakebaseBranchDeployment(ttl=3 * 86_400)
            defs = validate_table_owners(
                dg.Definitions(
                    assets=[orders],
                    resources={"lakebase": lakebase, "io_manager": LakebaseIOManager(lakebase=lakebase)},
                )
            )
    """

    deployment: str | None = Field(
        default=None,
        description="Name of the branch deployment, such as a pull request's, in any form; nothing in "
        "production. Dagster+'s own by default: DAGSTER_CLOUD_GIT_REPO with DAGSTER_CLOUD_GIT_BRANCH, or "
        "else DAGSTER_CLOUD_PULL_REQUEST_ID.",
    )
    prefix: str = Field(
        default=PREFIX,
        description="What the branch's id begins with: up to 20 lower-case letters and digits, a letter "
        "first.",
    )
    ttl: float = Field(
        default=TTL,
        description="Seconds after the last run until the workspace deletes the branch; at most 30 days.",
    )

    _branch: Branch | None = PrivateAttr(default=None)

    @property
    def branch_id(self) -> str | None:
        """Id of the deployment's branch; None in production.

        Raises:
            ConfigError: This is a branch deployment without a name, or `prefix` is none.
        """
        name = _named(self.deployment)
        if name is None:
            return None
        # Not needed to load a code location.
        from lakebase_provider.core import branch_id_for

        return branch_id_for(name, self.prefix)

    @property
    def lakebase_config(self) -> LakebaseConfig:
        """The settings of :class:`LakebaseResource`, in a branch deployment on its branch.

        Raises:
            ConfigError: As for :class:`LakebaseResource`; or this is a branch deployment without a name, or
                the settings lead to a Provisioned instance, which has no branches.
        """
        branch = self.branch_id
        config = super().lakebase_config
        return config if branch is None else config.on_branch(branch)

    @property
    def client(self) -> LakebaseClient:
        """The core's client; in a run, or in a script, its branch is made first."""
        if self._lease is None or self._run_id is not None:
            self.open_branch()
        return self.client_for_branches

    @asynccontextmanager
    async def get_async_connection(
        self, timeout: float | None = None
    ) -> AsyncIterator[AsyncLakebaseConnection]:
        """:meth:`LakebaseResource.get_async_connection`; the branch is made first, in a thread."""
        await asyncio.to_thread(lambda: self.client)
        async with super().get_async_connection(timeout) as connection:
            yield connection

    def open_branch(self) -> Branch | None:
        """Have the deployment's branch, ready for logins: the one that is there, or a new one.

        Returns:
            The branch; None in production, where there is nothing to make.

        Raises:
            AlreadyExistsError: There is one of its name that was not made for it, or it is archived.
            LimitError: The project has as many branches as it may have.
            LakebaseError: The workspace or the server refused, or was not done in time.
        """
        branch = self.branch_id
        if branch is not None and self._branch is None:
            parent = super().lakebase_config
            source = None if parent.branch is None else f"projects/{parent.project}/branches/{parent.branch}"
            taken = self.client_for_branches.branches.take(
                branch=branch, source=source, ttl=self.ttl, if_exists="reuse"
            )
            self._branch = taken.branch
        return self._branch

    def close_branch(self) -> None:
        """Purge the deployment's branch, if it is there, with all that was written to it; never production.

        Raises:
            ObjectStateError: It has become the default branch, or protected, or has children.
            LakebaseError: The workspace refused, or was not done in time.
        """
        branch, self._branch = self.branch_id, None
        if branch is not None:
            self.client_for_branches.workspace.branches.delete(branch, purge=True, missing_ok=True)

    def branch_metadata(self) -> dict[str, str]:
        """Those of :class:`LakebaseResource`, and where the branch comes from.

        ``lakebase/parent`` is the id of the branch that it was made from, ``lakebase/parent_lsn`` the
        position in that one's log up to which it has the data, if the workspace tells.
        """
        branch = self.open_branch()
        if branch is None:
            return super().branch_metadata()
        found = {"lakebase/branch": branch.id, "lakebase/parent": id_of(branch.source_branch or "")}
        known = {"lakebase/parent_lsn": branch.source_branch_lsn, "lakebase/lsn": self._position()}
        return {**found, **{name: value for name, value in known.items() if value}}


def _named(given: str | None) -> str | None:
    """The deployment's name; None in production."""
    if isinstance(given, EnvVar):
        # In a script nobody resolves it.
        name = given.get_value()
        if name is None:
            raise ConfigError(
                f"'deployment' is read from the environment variable '{given.env_var_name}', which is not "
                "set.",
                remedy=f"Set {given.env_var_name}; to nothing in production.",
            )
        given = name
    if given:
        return given
    if os.environ.get("DAGSTER_CLOUD_IS_BRANCH_DEPLOYMENT", "") in _NO:
        return None
    branch = os.environ.get("DAGSTER_CLOUD_GIT_BRANCH") or os.environ.get("DAGSTER_CLOUD_PULL_REQUEST_ID")
    if not branch:
        # Never production instead.
        raise ConfigError(
            "This is a branch deployment of Dagster+, and neither DAGSTER_CLOUD_GIT_BRANCH nor "
            "DAGSTER_CLOUD_PULL_REQUEST_ID says which.",
            remedy="Name it: LakebaseBranchDeployment(deployment=…).",
        )
    return "/".join(filter(None, [os.environ.get("DAGSTER_CLOUD_GIT_REPO"), branch]))
