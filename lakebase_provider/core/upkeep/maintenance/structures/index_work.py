"""Makes, renews and drops indexes beside others' work, and removes what a killed attempt has left."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import sql

from lakebase_provider.core.database.catalog import TableName
from lakebase_provider.core.errors import ConfigError, LakebaseError, LockTimeoutError, MigrationError
from lakebase_provider.core.upkeep.maintenance.own_session import OwnSession
from lakebase_provider.core.upkeep.maintenance.structures.index_definition import (
    IndexDefinition,
    index_of_partition,
    tail,
)
from lakebase_provider.core.upkeep.maintenance.tended_tables import TendedTable, named_table, with_partitions
from lakebase_provider.core.upkeep.migrations.leftovers import put_right
from lakebase_provider.core.upkeep.migrations.statement_kinds import Concurrent

_INDEXES = """
SELECT n.nspname, c.relname, c.relkind::text, i.indisvalid, i.indisunique, pg_catalog.pg_get_indexdef(c.oid),
    (SELECT h.inhparent FROM pg_catalog.pg_inherits h WHERE h.inhrelid = c.oid), c.oid, i.indrelid,
    i.indisexclusion, EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = c.oid
        AND k.contype IN ('p', 'u', 'x')),
    c.relname ~ '_cc(new|old)[0-9]*$' AND NOT i.indisvalid
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE i.indrelid = %s
ORDER BY 1, 2
"""
_TABLE_OF = "SELECT indrelid FROM pg_catalog.pg_index WHERE indexrelid = pg_catalog.to_regclass(%s)"
_NAME_OF = """
SELECT n.nspname, c.relname FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s
"""
_TREE = "SELECT relid::oid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass(%s)) WHERE isleaf"


@dataclass(frozen=True)
class _Index:
    """An index as the catalog has it."""

    name: TableName
    kind: str
    valid: bool
    unique: bool
    definition: str
    parent: int | None
    oid: int
    table: int
    excludes: bool
    of_constraint: bool
    is_leftover: bool

    def is_same(self, written: tuple[bool, str]) -> bool:
        return (self.unique, tail(self.definition)) == written


def create(session: OwnSession, name: TableName, index: IndexDefinition) -> None:
    """Have an index as it is declared; see ``client.maintenance.create_index``."""
    table = named_table(session, name)
    written = index.as_written(session, table.name)
    with session.alone_with(str(table.name)):
        if table.kind == "p":
            _create_on_partitions(session, table, index, written)
        else:
            _create(session, table, index.name, index, written)


def _create(
    session: OwnSession, table: TendedTable, name: str, index: IndexDefinition, written: tuple[bool, str]
) -> None:
    full = TableName(name, table.name.schema)
    found = _named(_indexes(session, table.oid), full)
    if found is not None and found.valid:
        return _require_same(session, found, written)
    what = f"Building {full}"
    change = Concurrent("build", _text(session, table.name), _text(session, TableName(name)))
    statement = index.create(name, table.name.sql(), "CONCURRENTLY ")
    try:
        _repair(session, what, change)
        seconds = session.run(what, statement, gently=True)
    except LakebaseError:
        # An invalid index that is unique goes on refusing what is written. If the time is over, the next run
        # drops it: that would wait for the same transactions.
        with suppress(LakebaseError, psycopg.Error):
            _repair(session, what, change)
        raise
    session.did(str(full), "built; an earlier attempt had left it invalid" if found else "built", seconds)
    return None


def _require_same(session: OwnSession, found: _Index, written: tuple[bool, str]) -> None:
    if not found.is_same(written):
        raise ConfigError(
            f"There is an index {found.name}, and it is another one: {found.definition}.",
            remedy="Give another name, or drop the index first.",
        )
    session.skip(str(found.name), "it is there")


def _create_on_partitions(
    session: OwnSession, top: TendedTable, index: IndexDefinition, written: tuple[bool, str]
) -> None:
    """Build it on the partitions, one after another, and attach each to the index of the table above it."""
    full = TableName(index.name, top.name.schema)
    tree = with_partitions(session, top)
    there = _named(_indexes(session, top.oid), full)
    if there is not None and there.valid:
        return _require_same(session, there, written)
    if there is not None and not there.is_same(written):
        return _require_same(session, there, written)
    above = _parents(session, [table.oid for table in tree])
    depth = {table.oid: _depth(above, table.oid) for table in tree}
    made: dict[int, _Index] = {}
    # A table above others first: whether an index below is free to be attached depends on it.
    for table in sorted(tree, key=lambda one: (one.kind != "p", depth[one.oid], str(one.name))):
        own = there if table.oid == top.oid else _free(session, table, written, made[above[table.oid]])
        if own is None:
            name = index.name if table.oid == top.oid else index_of_partition(index.name, table.name.table)
            own = _create_on(session, table, name, index, written)
        made[table.oid] = own
    for table in sorted(tree, key=lambda one: -depth[one.oid]):
        if table.oid != top.oid and made[table.oid].parent is None:
            _attach(session, made[above[table.oid]].name, made[table.oid].name)
    return None


def _free(
    session: OwnSession, table: TendedTable, written: tuple[bool, str], parent: _Index
) -> _Index | None:
    """An index of the table that is as declared, and is or can be the parent's."""
    for one in _indexes(session, table.oid):
        is_free = one.parent == parent.oid or (one.parent is None and not one.of_constraint)
        if is_free and one.is_same(written) and (one.valid or one.kind == "I"):
            return one
    return None


def _create_on(
    session: OwnSession, table: TendedTable, name: str, index: IndexDefinition, written: tuple[bool, str]
) -> _Index:
    full = TableName(name, table.name.schema)
    if table.kind == "p":
        statement = index.create(name, sql.SQL("ONLY {}").format(table.name.sql()))
        session.did(str(full), "declared", session.run(f"Declaring {full}", statement))
    else:
        _create(session, table, name, index, written)
    found = _named(_indexes(session, table.oid), full)
    assert found is not None
    return found


def _attach(session: OwnSession, parent: TableName, full: TableName) -> None:
    statement = sql.SQL("ALTER INDEX {} ATTACH PARTITION {}").format(parent.sql(), full.sql())
    seconds = session.run(f"Attaching {full}", statement)
    session.did(str(full), f"attached to {parent}", seconds)


def reindex(session: OwnSession, name: TableName, kind: Literal["table", "index"]) -> None:
    """Rebuild a table's indexes, or one index; see ``client.maintenance.reindex``."""
    table = named_table(session, name) if kind == "table" else _table_of(session, name)
    with session.alone_with(str(table.name)):
        for leaf in with_partitions(session, table):
            if leaf.kind == "p":
                continue
            _remove_leftovers(session, leaf)
            for index in _indexes(session, leaf.oid):
                if kind == "table" or _is_below(session, index, name):
                    _reindex(session, index)


def _reindex(session: OwnSession, index: _Index) -> None:
    if index.excludes:
        session.skip(str(index.name), "an exclusion constraint's index cannot be rebuilt concurrently")
        return
    statement = sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(index.name.sql())
    what = f"Rebuilding {index.name}"
    with session.going_on():
        try:
            seconds = session.run(what, statement, gently=True)
        except LakebaseError:
            with suppress(LakebaseError, psycopg.Error):
                _repair(session, what, Concurrent("rebuild", _text(session, index.name), "INDEX"))
            raise
        session.did(str(index.name), "rebuilt" if index.valid else "rebuilt: it was invalid", seconds)


def _remove_leftovers(session: OwnSession, table: TendedTable) -> None:
    left = [one for one in _indexes(session, table.oid) if one.is_leftover]
    change = Concurrent("rebuild", _text(session, table.name), "TABLE")
    _repair(session, f"Removing what is left on {table.name}", change)
    for one in left:
        session.did(str(one.name), "dropped: an earlier rebuild had left it")


def drop(session: OwnSession, name: TableName) -> None:
    """Drop an index if it is there; see ``client.maintenance.drop_index``."""
    text = _text(session, name)
    ((oid,),) = session.ask("SELECT pg_catalog.to_regclass(%s)::oid", text)
    if oid is None:
        session.skip(str(name), "it is not there")
        return
    table = _table_of(session, name)
    index = next(one for one in _indexes(session, table.oid) if one.oid == oid)
    if index.of_constraint:
        raise ConfigError(
            f"The index {index.name} belongs to a constraint of {table.name}.",
            remedy="Drop the constraint: ALTER TABLE ... DROP CONSTRAINT.",
        )
    with session.alone_with(str(table.name)):
        how, gently = ("", False) if index.kind == "I" else ("CONCURRENTLY ", True)
        statement = sql.SQL("DROP INDEX {}IF EXISTS {}").format(sql.SQL(how), index.name.sql())
        session.did(
            str(index.name), "dropped", session.run(f"Dropping {index.name}", statement, gently=gently)
        )


# What the catalog says.


def _indexes(session: OwnSession, table: int) -> list[_Index]:
    rows = session.ask(_INDEXES, table)
    return [_Index(TableName(name, schema), *rest) for schema, name, *rest in rows]


def _named(indexes: list[_Index], name: TableName) -> _Index | None:
    return next((one for one in indexes if one.name == name), None)


def _table_of(session: OwnSession, index: TableName) -> TendedTable:
    found = session.ask(_TABLE_OF, _text(session, index))
    if not found:
        raise ConfigError(f"There is no index {index}.", remedy="Give an index's name, with its schema.")
    ((schema, table),) = session.ask(_NAME_OF, found[0][0])
    return named_table(session, TableName(table, schema))


def _is_below(session: OwnSession, index: _Index, name: TableName) -> bool:
    leaves = {oid for (oid,) in session.ask(_TREE, _text(session, name))}
    ((own,),) = session.ask("SELECT pg_catalog.to_regclass(%s)::oid", _text(session, name))
    return index.oid == own or index.oid in leaves


def _parents(session: OwnSession, tables: list[int]) -> dict[int, int]:
    query = "SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits WHERE inhrelid = ANY (%s)"
    return dict(session.ask(query, tables))


def _depth(above: dict[int, int], oid: int) -> int:
    depth = 0
    while oid in above:
        oid, depth = above[oid], depth + 1
    return depth


def _repair(session: OwnSession, what: str, change: Concurrent) -> None:
    """Drop what an earlier attempt at a change has left."""
    try:
        session.attempt(what, lambda: put_right(session.connection, change, begun=False), gently=True)
    except MigrationError as error:
        raise LockTimeoutError(f"{what}: {error.message}", remedy=error.remedy) from error


def _text(session: OwnSession, name: TableName) -> str:
    return name.sql().as_string(session.connection)
