"""Which tables maintenance may touch, and what keeps it from helping now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lakebase_provider.core.database.catalog import TableName, read_table
from lakebase_provider.core.database.synced.dependents import WRITER
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.upkeep.maintenance.own_session import OwnSession

#: Any form in which a table is named.
Named = str | tuple[str, str] | TableName

# What is in partitions is theirs; the partitioned table has statistics alone. Whoever owns the database may
# vacuum all of it.
_TABLES = """
SELECT n.nspname, c.relname, c.relkind::text, c.oid, pg_catalog.pg_get_userbyid(c.relowner),
    (SELECT pg_catalog.pg_has_role(d.datdba, 'USAGE') FROM pg_catalog.pg_database d
        WHERE d.datname = pg_catalog.current_database()),
    pg_catalog.pg_has_role(c.relowner, 'USAGE')
        OR CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 170000
            THEN pg_catalog.has_table_privilege(c.oid, 'MAINTAIN') ELSE false END,
    coalesce(pg_catalog.pg_stat_get_live_tuples(c.oid), 0),
    coalesce(pg_catalog.pg_stat_get_dead_tuples(c.oid), 0)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't'
    AND CASE WHEN %(oids)s::oid[] IS NULL
        THEN n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
        ELSE c.oid = ANY (%(oids)s) END
ORDER BY 1, 2
"""
_LEAVES = """
SELECT relid::oid FROM pg_catalog.pg_partition_tree(%s::oid::regclass)
"""
# A logical slot holds rows of the catalog alone. Sessions of other roles show nothing of this to a role
# without pg_read_all_stats.
_HORIZON = """
SELECT pg_catalog.format('the transaction of pid %%s (%%s, role %%s, %%s) is %%s s old', pid,
    coalesce(nullif(application_name, ''), 'unnamed'), usename, state,
    extract(epoch FROM pg_catalog.now() - xact_start)::int)
FROM pg_catalog.pg_stat_activity
WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid()
    AND backend_type = 'client backend' AND coalesce(backend_xmin, backend_xid) IS NOT NULL
    AND xact_start < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(seconds)s)
UNION ALL
SELECT pg_catalog.format('the prepared transaction %%s is %%s s old', pg_catalog.quote_literal(gid),
    extract(epoch FROM pg_catalog.now() - prepared)::int)
FROM pg_catalog.pg_prepared_xacts
WHERE database = pg_catalog.current_database()
    AND prepared < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(seconds)s)
UNION ALL
SELECT pg_catalog.format('the replication slot %%s is not in use', slot_name)
FROM pg_catalog.pg_replication_slots WHERE xmin IS NOT NULL AND NOT active
LIMIT 3
"""


@dataclass(frozen=True)
class TendedTable:
    """A table, as maintenance sees it.

    Attributes:
        name: Its name, with its schema.
        kind: The catalog's letter: ``r`` table, ``p`` partitioned, ``m`` materialized view.
        oid: Its OID.
        owner: Its owner's name.
        is_in_own_database: Whether the database is the role's, which then may vacuum all of it.
        may_maintain: Whether the table is the role's, or its owner has granted it MAINTAIN.
        live: Rows, as the statistics estimate them.
        dead: Dead rows, likewise.
    """

    name: TableName
    kind: str
    oid: int
    owner: str
    is_in_own_database: bool
    may_maintain: bool
    live: int
    dead: int

    @property
    def is_synced(self) -> bool:
        """Whether it is a synced table, which its pipeline alone changes."""
        return self.owner.startswith(WRITER)

    @property
    def dead_share(self) -> float:
        """The share of its rows that are dead."""
        return self.dead / (self.live + self.dead) if self.dead else 0.0

    @property
    def obstacle_to_vacuum(self) -> str | None:
        """Why it is not vacuumed or analyzed; None if it may be."""
        return None if self.is_in_own_database and not self.is_synced else self.obstacle

    @property
    def obstacle(self) -> str | None:
        """Why maintenance does not touch it; None if it may."""
        if self.is_synced:
            return "it is a synced table, which its pipeline alone changes"
        if not self.may_maintain:
            return f"the role may not maintain it: its owner is {self.owner}"
        return None


def all_tables(session: OwnSession) -> list[TendedTable]:
    """The database's tables and materialized views, but for the server's own."""
    return _found(session, None)


def named_tables(session: OwnSession, names: Sequence[Named]) -> list[TendedTable]:
    """The tables of these names, in their order.

    Raises:
        TableNotFoundError: There is no such table.
        ConfigError: It is something else, such as a view.
    """
    tables = [read_table(session.connection, TableName.parse(name)) for name in names]
    found = {table.oid: table for table in _found(session, [table.oid for table in tables])}
    for table in tables:
        if table.oid not in found:
            raise ConfigError(f"{table.name} is no table.", remedy="Name tables or materialized views.")
    return list(dict.fromkeys(found[table.oid] for table in tables))


def named_table(session: OwnSession, name: Named) -> TendedTable:
    """:func:`named_tables` for one."""
    return named_tables(session, [name])[0]


def with_partitions(session: OwnSession, table: TendedTable) -> list[TendedTable]:
    """The table with all below it; a table without partitions is alone."""
    oids = [oid for (oid,) in session.ask(_LEAVES, table.oid)] or [table.oid]
    return _found(session, oids)


def held_back(session: OwnSession, seconds: float) -> str | None:
    """What keeps rows from being removed that died since; None if nothing does.

    Args:
        session: The session.
        seconds: The age from which a transaction counts.
    """
    found = session.ask(_HORIZON, seconds=seconds)
    return "; ".join(text for (text,) in found) or None


def checked_names(argument: str, names: Any) -> list[TableName]:
    """A list of names of tables; one alone may be given as text.

    Raises:
        ConfigError: It is no such list.
    """
    if isinstance(names, (str, TableName)):
        names = [names]
    if not isinstance(names, Sequence) or not names:
        raise ConfigError(f"'{argument}' names nothing.", remedy='Give a list, such as ["sales.orders"].')
    return [TableName.parse(name) for name in names]


def _found(session: OwnSession, oids: list[int] | None) -> list[TendedTable]:
    rows = session.ask(_TABLES, oids=oids)
    return [TendedTable(TableName(name, schema), *rest) for schema, name, *rest in rows]
