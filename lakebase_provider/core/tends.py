"""How a client tends its database: maintenance, grants, and programs of others that connect by themselves."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lakebase_provider.core.base.clock import Clock
from lakebase_provider.core.config import arguments
from lakebase_provider.core.reads import Reads

if TYPE_CHECKING:
    from lakebase_provider.core.connect.target import Target
    from lakebase_provider.core.tokens.cache import TokenProvider
    from lakebase_provider.core.upkeep.grants.grants import Grants
    from lakebase_provider.core.upkeep.maintenance.maintenance import Maintenance


class Tends(Reads):
    """The tending part of :class:`~lakebase_provider.core.client.LakebaseClient`."""

    tokens: TokenProvider
    _clock: Clock

    @abstractmethod
    def target(self) -> Target:
        """Host, port, database and role."""

    @property
    def maintenance(self) -> Maintenance:
        """What a scheduler does for tables in use, such as vacuum and building indexes."""
        from lakebase_provider.core.upkeep.maintenance.maintenance import Maintenance

        return Maintenance(self.connect, lambda query, to: self.unload(query, to).rows, self._clock)

    @property
    def grants(self) -> Grants:
        """Has roles and privileges as they are declared, and says first what that changes."""
        from lakebase_provider.core.upkeep.grants.grants import Grants

        return Grants(self.connect, self._clock)

    @contextmanager
    def program_environment(self, timeout: float | None = None) -> Iterator[dict[str, str]]:
        """The environment of a program that connects by itself, such as dbt, psql or pg_dump, for a block.

        It is this process's, with ``PGHOST``, ``PGPORT``, ``PGDATABASE``, ``PGUSER``, ``PGSSLMODE`` and
        ``PGSSLROOTCERT``; ``DATABASE_URL``, ``FLYWAY_URL`` and ``FLYWAY_USER``; and ``PGPASSFILE``, a file
        that only this user can read, whose token is renewed until the block ends: logins succeed for as long
        as it lasts. No password is in a variable or an argument.

        Args:
            timeout: Seconds that the first token may take; the configuration's `connect_budget` by default.

        Raises:
            ConfigError: The file cannot be written.
            LakebaseError: There is no token or host.

        Example:
            >>> with client.program_environment() as variables:
            ...     subprocess.run(["pg_dump", "--schema-only"], env=variables, check=True)
        """
        from lakebase_provider.core.upkeep.programs.pass_file import renewed_pass_file
        from lakebase_provider.core.upkeep.programs.program_environment import (
            program_environment,
            tls_of_programs,
        )

        seconds = self.config.connect_budget if timeout is None else arguments.timeout(timeout)
        target, tls = self.target(), tls_of_programs(self.config)
        with renewed_pass_file(target, self.tokens, seconds) as path:
            yield program_environment(os.environ, target, tls, {"PGPASSFILE": str(path)})
