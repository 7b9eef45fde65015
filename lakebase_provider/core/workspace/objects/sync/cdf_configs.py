"""Lakehouse sync: which schemas of a database are written to Delta tables, and how far that is."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypedDict

from lakebase_provider.core.base.clock import Clock
from lakebase_provider.core.config import LakebaseConfig, arguments
from lakebase_provider.core.config.resource_names import Kind
from lakebase_provider.core.errors import ConfigError, NotFoundError, ObjectStateError
from lakebase_provider.core.workspace.answers import Answer
from lakebase_provider.core.workspace.objects.databases import Databases
from lakebase_provider.core.workspace.objects.object_kind import (
    DEFAULT_TIMEOUT,
    At,
    Named,
    Objects,
    Option,
    in_thread,
)
from lakebase_provider.core.workspace.objects.option_values import text
from lakebase_provider.core.workspace.operations import auntil, until
from lakebase_provider.core.workspace.workspace import ControlPlane

if TYPE_CHECKING:
    from typing_extensions import Unpack

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_STATE = "CDF_STATE_"


def _state(answer: Answer, name: str) -> str | None:
    found = answer.state(name)
    return None if found is None else found.removeprefix(_STATE)


@dataclass(frozen=True, kw_only=True)
class CdfStatus(Named):
    """How far one table's changes have been written.

    Attributes:
        name: Its full name, ``…/cdf-configs/<config>/cdf-statuses/<table>``.
        postgres_table: The table's name in Postgres.
        uc_table: Name of the Delta table with its history.
        state: ``SNAPSHOTTING``, ``STREAMING``, ``SKIPPED``, ``TERMINATED``, or what else the workspace says.
        status_detail: Why it is skipped.
        committed_lsn: Position in Postgres' log up to which all is written.
        last_sync_time: When something was last written.
        create_time: Since when the table is followed.
    """

    postgres_table: Annotated[str | None, At("postgres_table", Answer.text)] = None
    uc_table: Annotated[str | None, At("uc_table", Answer.text)] = None
    state: Annotated[str | None, At("state", _state)] = None
    status_detail: Annotated[str | None, At("status_detail", Answer.text)] = None
    committed_lsn: Annotated[str | None, At("committed_lsn", Answer.text)] = None
    last_sync_time: Annotated[datetime | None, At("last_sync_time", Answer.moment)] = None
    create_time: Annotated[datetime | None, At("create_time", Answer.moment)] = None

    def has_reached(self, lsn: str) -> bool:
        """Whether all up to a position is in the Delta table: it streams, and has committed as much."""
        is_read = self.committed_lsn is not None and _LSN.fullmatch(self.committed_lsn)
        return bool(
            self.state == "STREAMING" and is_read and _number(self.committed_lsn or "") >= _number(lsn)
        )


@dataclass(frozen=True, kw_only=True)
class CdfConfig(Named):
    """A schema whose tables' changes are written to Delta tables.

    Attributes:
        name: Its full name, ``projects/<project>/branches/<branch>/databases/<database>/cdf-configs/<id>``.
        catalog: The catalog of the Delta tables.
        schema: Their schema.
        postgres_schema: The schema in Postgres.
        create_time: When it was created.
    """

    catalog: Annotated[str | None, At("catalog", Answer.text)] = None
    schema: Annotated[str | None, At("schema", Answer.text)] = None
    postgres_schema: Annotated[str | None, At("postgres_schema", Answer.text)] = None
    create_time: Annotated[datetime | None, At("create_time", Answer.moment)] = None


class CdfConfigOptions(TypedDict, total=False):
    """What describes a new configuration of Lakehouse sync; nothing of it can be changed.

    Attributes:
        catalog: The catalog of the Delta tables; required.
        schema: Their schema; required.
        postgres_schema: The schema in Postgres; required.
    """

    catalog: str
    schema: str
    postgres_schema: str


class CdfConfigs(Objects[CdfConfig]):
    """Lakehouse sync, as ``client.workspace.cdf_configs``; with twins for asyncio, such as ``acreate``.

    A table is followed if its REPLICA IDENTITY is FULL, it has a row and is not partitioned. Where a
    configuration is named, its id is enough: it is one of the database that the client's configuration names.
    """

    kind: ClassVar[Kind] = "cdf_config"
    shape = CdfConfig
    options: ClassVar[Mapping[str, Option]] = {
        name: Option(name, text, reads=name) for name in ("catalog", "schema", "postgres_schema")
    }

    def __init__(self, config: LakebaseConfig, control_plane: ControlPlane, clock: Clock) -> None:
        super().__init__(config, control_plane, clock)
        self._databases = Databases(config, control_plane, clock)
        self._database: str | None = None

    def full_name(self, name: str, kind: Kind | None = None) -> str:
        """The full name of an object; of an id of the configuration's database, which is looked up.

        Raises:
            ConfigError: It is no name.
            NotFoundError: There is no such database.
            LakebaseError: The workspace refused or could not be reached.
        """
        if kind in (None, self.kind) and isinstance(name, str) and name and "/" not in name:
            name = f"{self._own_database()}/cdf-configs/{name}"
        return super().full_name(name, kind)

    def _own_database(self) -> str:
        # Its id need not be its name: hyphens stand for what ids cannot have.
        if self._database is None:
            there = self._databases.list()
            found = [one.name for one in there if one.postgres_database == self._config.database]
            if not found:
                raise NotFoundError(
                    f"No database of the branch is called {self._config.database!r}.",
                    remedy="Set database to one of the branch, or name the configuration in full.",
                )
            self._database = found[0]
        return self._database

    def list(self, database: str | None = None) -> tuple[CdfConfig, ...]:
        """All configurations of a database.

        Args:
            database: Its full name or its id, which is not its name in Postgres; the configuration's by
                default.

        Raises:
            LakebaseError: The workspace refused or could not be reached.
        """
        parent = self._own_database() if database is None else self.full_name(database, "database")
        return tuple(
            self.shape.of(one, f"Lakehouse sync of {parent}")
            for one in self._pages(f"{parent}/cdf-configs", "cdf_configs")
        )

    def create(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[CdfConfigOptions]
    ) -> CdfConfig:
        """Have a schema's changes written to Delta tables from now on, after all rows that are there.

        Args:
            name: Its name, or its id in the configuration's database: lower-case letters, digits,
                underscores.
            timeout: Seconds that it may take.
            options: The fields of :class:`CdfConfigOptions`.

        Raises:
            AlreadyExistsError: It exists, or the schema has another one.
            OperationFailedError: The workspace could not create it.
            OperationTimeoutError: It was not done in time, and goes on.
            LakebaseError: The workspace refused or could not be reached.
        """
        return self._create(name, options, timeout)

    def ensure(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[CdfConfigOptions]
    ) -> CdfConfig:
        """Create it, unless it is there.

        Raises:
            AlreadyExistsError: It is there, and differs.
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        return self._ensure(name, options, timeout)

    def delete(
        self, name: str, *, force: bool = False, missing_ok: bool = False, timeout: float = DEFAULT_TIMEOUT
    ) -> None:
        """End it.

        Args:
            name: Its name, or its id in the configuration's database.
            force: Whether to drop the Delta tables, too, with all the history that they hold.
            missing_ok: True to accept that there is none.
            timeout: Seconds that it may take.

        Raises:
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        self._delete(name, timeout, missing_ok=missing_ok, force=force or None)

    def statuses(self, name: str) -> tuple[CdfStatus, ...]:
        """How far each table is.

        Args:
            name: The configuration's name, or its id in the configuration's database.

        Raises:
            LakebaseError: The workspace refused or could not be reached.
        """
        name = self.full_name(name)
        what = f"the tables of {name}"
        return tuple(CdfStatus.of(one, what) for one in self._pages(f"{name}/cdf-statuses", "cdf_statuses"))

    def _pages(self, path: str, key: str) -> tuple[Mapping[str, Any], ...]:
        what = f"the {key} of {path.rpartition('/')[0]}"
        found = self._asked(lambda: tuple(self._control_plane.pages(what, path, key)))
        return tuple(one.fields for one in found)

    def wait_in_delta(
        self,
        lsn: str,
        name: str,
        *,
        tables: Collection[str] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> tuple[CdfStatus, ...]:
        """Wait until what was committed up to a position in Postgres' log is in the Delta tables.

        Args:
            lsn: What ``SELECT pg_current_wal_lsn()`` returned after the commit, such as ``"16/B374D848"``.
            name: The configuration's name, or its id in the configuration's database.
            tables: Names of the tables in Postgres; by default all but those that are skipped.
            timeout: Seconds to wait at most.

        Returns:
            How far each of the tables is.

        Raises:
            ObjectStateError: One of `tables` is skipped, or is no more followed; the error says why.
            OperationTimeoutError: It was not written in time.
            LakebaseError: The workspace refused or could not be reached.
        """
        name, wanted = self._asked_for(lsn, name, tables)
        deadline = self._deadline(timeout)
        return until(
            lambda: self._if_in_delta(lsn, name, wanted), f"{name} up to {lsn}", name, deadline, self._clock
        )

    async def await_in_delta(
        self,
        lsn: str,
        name: str,
        *,
        tables: Collection[str] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> tuple[CdfStatus, ...]:
        """:meth:`wait_in_delta` for asyncio; between its requests no thread is held."""
        name, wanted = await self._aasked_for(lsn, name, tables)
        deadline = self._deadline(timeout)
        return await auntil(
            lambda: self._if_in_delta(lsn, name, wanted), f"{name} up to {lsn}", name, deadline
        )

    def in_delta(
        self, lsn: str, name: str, *, tables: Collection[str] | None = None
    ) -> tuple[CdfStatus, ...] | None:
        """What :meth:`wait_in_delta` waits for, looked for once; None if it is not written yet.

        Args:
            lsn: As in :meth:`wait_in_delta`.
            name: As in :meth:`wait_in_delta`.
            tables: As in :meth:`wait_in_delta`.

        Raises:
            ObjectStateError: One of `tables` is skipped, or is no more followed; the error says why.
            LakebaseError: The workspace refused or could not be reached.
        """
        name, wanted = self._asked_for(lsn, name, tables)
        return self._if_in_delta(lsn, name, wanted)

    def _asked_for(
        self, lsn: str, name: str, tables: Collection[str] | None
    ) -> tuple[str, frozenset[str] | None]:
        remedy = "Give what SELECT pg_current_wal_lsn() returns, such as 16/B374D848."
        if not _LSN.fullmatch(arguments.text("'lsn'", lsn, remedy)):
            raise ConfigError("'lsn' is no position in Postgres' log.", remedy=remedy)
        if isinstance(tables, str) or (tables is not None and not tables):
            raise arguments.wrong("'tables'", tables, "be names of tables", "Give a list, or leave it out.")
        return self.full_name(name), None if tables is None else frozenset(tables)

    _aasked_for = in_thread(_asked_for)

    def _if_in_delta(
        self, lsn: str, name: str, tables: frozenset[str] | None
    ) -> tuple[CdfStatus, ...] | None:
        found = {one.postgres_table or one.id: one for one in self.statuses(name)}
        if tables is None:
            wanted = {table: one for table, one in found.items() if one.state != "SKIPPED"}
        else:
            wanted = {table: found[table] for table in sorted(tables) if table in found}
        for table, one in wanted.items():
            if one.state in ("SKIPPED", "TERMINATED"):
                raise ObjectStateError(
                    f"The table {table} is {one.state} in {name}: {one.status_detail or 'nobody says why'}.",
                    remedy="Give it REPLICA IDENTITY FULL and a row; partitioned tables are not followed.",
                )
        is_all = len(wanted) == len(tables) if tables is not None else bool(wanted)
        done = is_all and all(one.has_reached(lsn) for one in wanted.values())
        return tuple(wanted.values()) if done else None

    aget = in_thread(Objects.get)
    alist = in_thread(list)
    acreate = in_thread(create)
    aensure = in_thread(ensure)
    adelete = in_thread(delete)
    astatuses = in_thread(statuses)
    ain_delta = in_thread(in_delta)


def _number(lsn: str) -> int:
    high, low = lsn.split("/")
    return int(high, 16) << 32 | int(low, 16)


__all__ = ["CdfConfig", "CdfConfigOptions", "CdfConfigs", "CdfStatus"]
