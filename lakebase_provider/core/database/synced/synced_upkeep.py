"""Synced tables as they are declared: made so, or made anew under a second name, for none can be changed.

What a synced table was declared with, the workspace does not tell. It is kept beside it, in a table of the
database, by whoever declares it here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lakebase_provider.core.base.clock import Clock, Deadline
from lakebase_provider.core.config import LakebaseConfig, arguments
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.database.catalog import TableName
from lakebase_provider.core.database.synced import dependents
from lakebase_provider.core.database.synced.dependents import TableGrant
from lakebase_provider.core.errors import AlreadyExistsError, ConfigError, ObjectStateError
from lakebase_provider.core.workspace.objects.sync.synced_table import SyncedTable
from lakebase_provider.core.workspace.objects.sync.synced_tables import (
    SYNC_TIMEOUT,
    SyncedTableOptions,
    first_of,
)
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects
from lakebase_provider.core.workspace.operations import in_thread

if TYPE_CHECKING:
    from typing_extensions import Unpack

Action = Literal["unchanged", "created", "noted", "replaced"]

_TABLE = "lakebase_synced_table"
#: `other` is one that was begun and is not in use yet, or that was replaced and is not deleted yet.
_CREATE = f"""
CREATE TABLE IF NOT EXISTS {_TABLE} (
    name text PRIMARY KEY,
    active text NOT NULL,
    declared jsonb NOT NULL,
    other text,
    declared_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""
_READ = f"SELECT active, declared, other FROM {_TABLE} WHERE name = %s"  # noqa: S608 - a constant
_NOTE = f"""
INSERT INTO {_TABLE} (name, active, declared, other) VALUES (%s, %s, %s, %s) ON CONFLICT (name) DO UPDATE
SET active = excluded.active, declared = excluded.declared, other = excluded.other,
    declared_at = clock_timestamp()
"""  # noqa: S608 - a constant
_NOTE_OTHER = f"UPDATE {_TABLE} SET other = %s WHERE name = %s"  # noqa: S608 - a constant
_FORGET = f"DELETE FROM {_TABLE} WHERE name = %s"  # noqa: S608 - a constant
_SECOND = "_b"


@dataclass(frozen=True)
class ReconcileReport:
    """What was done so that a synced table is as it is declared.

    Attributes:
        action: ``"unchanged"``; ``"created"``; ``"noted"``: it was there, and what it was declared with
            was not known; ``"replaced"``: another one was made under the second name.
        table: The synced table that is in use now.
        changed: Options that differed.
        former: Name of the one that was replaced and is still there, with its table; None if there is none.
        indexes: How many indexes were put back.
        lost_grants: Privileges that the new table did not get.
    """

    action: Action
    table: SyncedTable
    changed: tuple[str, ...] = ()
    former: str | None = None
    indexes: int = 0
    lost_grants: tuple[TableGrant, ...] = ()


class SyncedTableUpkeep:
    """What a client does with synced tables beyond the workspace's API, as ``client.synced_tables``.

    Each method has a twin for asyncio, which runs in a thread.

    Args:
        config: The client's configuration.
        workspace: The workspace's objects.
        connect: Opens a session as the client does; takes seconds.
        clock: Where the time comes from.
    """

    def __init__(
        self,
        config: LakebaseConfig,
        workspace: WorkspaceObjects,
        connect: Callable[[float | None], LakebaseConnection],
        clock: Clock,
    ) -> None:
        self._config = config
        self._tables = workspace.synced_tables
        self._connect = connect
        self._clock = clock

    def delete(
        self, name: str, *, missing_ok: bool = False, drop_table: bool = True, timeout: float = SYNC_TIMEOUT
    ) -> None:
        """Delete a synced table, and the table in Postgres that the workspace leaves there.

        Args:
            name: Its name in the Unity Catalog.
            missing_ok: True to accept that there is none; a table that one has left is dropped all the same.
            drop_table: False to leave the table in Postgres, as it is, where nothing fills it any more.
            timeout: Seconds that it may take.

        Raises:
            ObjectStateError: The table in Postgres is none of a synced table.
            LakebaseError: The workspace or the server refused, or was not done in time.
        """
        deadline = self._deadline(timeout)
        name = self._tables.full_name(name)
        active = self._noted(name, deadline)[0]
        self._tables.delete(active, missing_ok=missing_ok, timeout=max(1.0, deadline.remaining()))
        with self._session(deadline) as connection:
            if drop_table:
                self._drop(connection, active)
            connection.execute(_FORGET, [name])

    def reconcile(
        self,
        name: str,
        *,
        view: str | None = None,
        drop_orphans: bool = False,
        timeout: float = SYNC_TIMEOUT,
        **options: Unpack[SyncedTableOptions],
    ) -> ReconcileReport:
        """Have a synced table as it is declared, with its rows; may be repeated.

        One that is not there is created. One whose mode, key or source is another is not changed, for nothing
        can be: a second one is made beside it, its first rows are waited for, it gets the first one's indexes
        and grants, and `view` shows it from then on. Until then readers see the first one. The
        second's name ends in ``_b``; the next change leads back to the first name.

        Args:
            name: Its name in the Unity Catalog, ``<catalog>.<schema>.<table>``.
            view: Name of a view, ``schema.view``, which readers use and which shows the one in use.
            drop_orphans: Whether to drop what is no longer filled: a table that a deleted one has left in
                Postgres, and after a change the first one with its table.
            timeout: Seconds that it may take.
            options: The fields of :class:`.SyncedTableOptions`; `postgres_database` is the client's.

        Returns:
            What was done, and which one is in use.

        Raises:
            AlreadyExistsError: An orphan is in the way, and `drop_orphans` does not let it be dropped.
            OperationFailedError: The first sync of a new one failed; the one before is still in use.
            LakebaseError: The workspace or the server refused, or was not done in time.
        """
        deadline = self._deadline(timeout)
        shown = None if view is None else TableName.parse(view)
        given = self._declared(options)
        name = self._tables.full_name(name)
        active, declared, other = self._noted(name, deadline)
        found = self._tables.find(active)
        changed: tuple[str, ...] = ()
        if found is not None and declared is not None:
            keys = given.keys() | declared.keys()
            changed = tuple(sorted(one for one in keys if given.get(one) != declared.get(one)))
        if found is not None and not changed:
            if declared is None or shown is not None:
                self._note(name, active, given, other, shown, deadline)
            if other is not None and drop_orphans:
                self._end_other(name, other, deadline)
            kept = None if drop_orphans else other
            return ReconcileReport("unchanged" if declared is not None else "noted", found, former=kept)
        if found is None:
            made = self._made(active, given, deadline, drop_orphans=drop_orphans)
            self._note(name, active, given, other, shown, deadline)
            return ReconcileReport("created", made)
        if other is not None:
            if not drop_orphans:
                raise ObjectStateError(
                    f"The synced table {other} is there, which an earlier change has left.",
                    remedy="Give drop_orphans=True to have it deleted with its table.",
                )
            self._end_other(name, other, deadline)
        return self._replace(name, found, given, changed, shown, deadline, drop_orphans=drop_orphans)

    def _replace(
        self,
        name: str,
        former: SyncedTable,
        given: Mapping[str, Any],
        changed: tuple[str, ...],
        view: TableName | None,
        deadline: Deadline,
        *,
        drop_orphans: bool,
    ) -> ReconcileReport:
        second = f"{name}{_SECOND}" if former.name == name else name
        if self._tables.find(second) is not None:
            raise AlreadyExistsError(
                f"The synced table {second} exists, and is none that was made here.",
                remedy="Delete it, if it is of no use: its name is needed for the second one.",
            )
        with self._session(deadline) as connection:
            # Whoever comes after a kill knows whose it is.
            connection.execute(_NOTE_OTHER, [second, name])
        made = self._made(second, given, deadline, drop_orphans=drop_orphans)
        with self._session(deadline) as connection:
            indexes = dependents.put_indexes(connection, _table(former.name), _table(second))
            grants = dependents.grants_on(connection, _table(former.name))
            lost = dependents.put_grants(connection, grants, _table(second))
        self._note(name, second, given, former.name, view, deadline)
        if drop_orphans:
            self._end_other(name, former.name, deadline)
        return ReconcileReport(
            "replaced", made, changed, None if drop_orphans else former.name, indexes, lost
        )

    def _noted(self, name: str, deadline: Deadline) -> tuple[str, dict[str, Any] | None, str | None]:
        """Which one is in use, what it was declared with if that is known, and which other one is there."""
        with self._session(deadline) as connection:
            connection.execute(_CREATE)
            found = connection.execute(_READ, [name]).fetchone()
        return (name, None, None) if found is None else (str(found[0]), found[1], found[2])

    def _end_other(self, name: str, other: str, deadline: Deadline) -> None:
        """Delete one that is not in use, with its table."""
        self._tables.delete(other, missing_ok=True, timeout=max(1.0, deadline.remaining()))
        with self._session(deadline) as connection:
            self._drop(connection, other)
            connection.execute(_NOTE_OTHER, [None, name])

    def _made(
        self, name: str, given: Mapping[str, Any], deadline: Deadline, *, drop_orphans: bool
    ) -> SyncedTable:
        with self._session(deadline) as connection:
            owner = dependents.owner_of(connection, _table(name))
            if owner is not None and not drop_orphans:
                raise AlreadyExistsError(
                    f"The table {_table(name)} is in Postgres already, which {name} would be.",
                    remedy="Give drop_orphans=True if a deleted synced table left it, or use another name.",
                )
            if owner is not None:
                self._drop(connection, name)
        made = self._tables.create(name, timeout=max(1.0, deadline.remaining()), **given)
        return self._tables.wait(name, timeout=max(1.0, deadline.remaining()), **first_of(made)).table

    def _drop(self, connection: LakebaseConnection, name: str) -> None:
        table = _table(name)
        owner = dependents.owner_of(connection, table)
        if owner is None:
            return
        if not owner.startswith(dependents.WRITER):
            raise ObjectStateError(
                f"The table {table} belongs to {owner}: it is none that a synced table has left.",
                remedy="Use another name, or drop it yourself.",
            )
        dependents.drop_table(connection, table)

    def _note(
        self,
        name: str,
        active: str,
        given: Mapping[str, Any],
        other: str | None,
        view: TableName | None,
        deadline: Deadline,
    ) -> None:
        """Keep what is declared, and let the view show what is in use, in one transaction."""
        with self._session(deadline) as connection:
            if view is not None:
                dependents.show_through(connection, view, _table(active))
            connection.execute(_NOTE, [name, active, json.dumps(given), other])

    def _declared(self, options: SyncedTableOptions) -> dict[str, Any]:
        given = {option: value for option, value in options.items() if value is not None}
        database = given.setdefault("postgres_database", self._config.database)
        if database != self._config.database:
            raise ConfigError(
                f"The synced table is to be in {database!r}, and the client is of {self._config.database!r}.",
                remedy="Use a client of the database in which the synced table is.",
            )
        # As it comes back from where it is kept.
        found: dict[str, Any] = json.loads(json.dumps(given))
        return found

    def _deadline(self, timeout: float) -> Deadline:
        return Deadline(arguments.timeout(timeout), self._clock)

    @contextmanager
    def _session(self, deadline: Deadline) -> Iterator[LakebaseConnection]:
        with self._connect(max(1.0, deadline.remaining())) as connection:
            yield connection

    adelete = in_thread(delete)
    areconcile = in_thread(reconcile)


def _table(name: str) -> TableName:
    """The table in Postgres of a synced table."""
    _, schema, table = name.rpartition("/")[2].split(".")
    return TableName(table, schema)


__all__ = ["ReconcileReport", "SyncedTableUpkeep", "TableGrant"]
