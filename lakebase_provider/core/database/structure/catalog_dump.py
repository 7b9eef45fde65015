"""What is defined in a database, as text that does not depend on when and where it was made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.catalog import TableName
from lakebase_provider.core.database.structure.catalog_queries import QUERIES
from lakebase_provider.core.errors import TransactionConflictError

#: What the server's texts depend on, whatever the session has set.
_SETTINGS = b"""
SET LOCAL search_path TO ''; SET LOCAL timezone TO 'UTC'; SET LOCAL datestyle TO 'ISO, YMD';
SET LOCAL intervalstyle TO postgres; SET LOCAL extra_float_digits TO 1; SET LOCAL bytea_output TO hex;
SET LOCAL quote_all_identifiers TO off
"""
#: How many times it is tried while others change what is described.
_ATTEMPTS = 3
#: What the server says of what was dropped since: XX000 by its functions that write definitions.
_GONE = ("XX000", "42P01")
_KINDS = {kind: place for place, kind in enumerate(QUERIES)}


@dataclass(frozen=True)
class CatalogObject:
    """Something that is defined in a database.

    Attributes:
        kind: Such as ``"table"``, ``"column"`` or ``"grants on table"``.
        name: Its name in SQL, with its schema, quoted where it needs quotes.
        definition: What it is, as SQL or close to it.
        belongs_to: The name of the table that it is part of; its own if of none.
    """

    kind: str
    name: str
    definition: str
    belongs_to: str

    @property
    def place(self) -> tuple[str, int, str]:
        """Where it stands in a dump: a table together with what is part of it."""
        return self.belongs_to, _KINDS.get(self.kind, len(_KINDS)), self.name


@dataclass(frozen=True)
class CatalogDump:
    """What is defined in a database, in an order that depends on names alone.

    Attributes:
        objects: The objects.
    """

    objects: tuple[CatalogObject, ...]

    def to_dict(self) -> dict[str, Any]:
        """The dump as JSON can hold it."""
        return {
            "objects": [
                {
                    "kind": one.kind,
                    "name": one.name,
                    "definition": one.definition,
                    "belongs_to": one.belongs_to,
                }
                for one in self.objects
            ]
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> CatalogDump:
        """The dump that :meth:`to_dict` made."""
        return cls(tuple(CatalogObject(**one) for one in plain["objects"]))


def dump_catalog(connection: psycopg.Connection[Any], *, leave_out: Iterable[TableName] = ()) -> CatalogDump:
    """What is defined in a database, as of one moment.

    Schemas, extensions, enums, domains, composite and range types, sequences, tables, columns, constraints,
    indexes, views, materialized views, functions, procedures, aggregates, triggers, rules, policies, extended
    statistics, grants, default privileges and comments. What belongs to the system, to an extension or to
    nobody but a session is left out; so are rows, the order of columns and where a sequence stands.
    So are publications, event triggers, foreign servers, casts, operators, collations, text search, and what
    ALTER DATABASE and ALTER ROLE set.

    Args:
        connection: An idle connection, which is rolled back.
        leave_out: Tables that are left out, with all that is part of them.

    Raises:
        TransactionConflictError: Others dropped what was about to be described, again and again.
    """
    assert connection.info.transaction_status == TransactionStatus.IDLE
    hidden = [name.sql().as_string(connection) for name in leave_out]
    for _ in range(_ATTEMPTS):
        try:
            found = _described(connection, hidden)
        except psycopg.Error as error:
            if error.sqlstate not in _GONE:
                raise
            continue
        # The functions that write names and definitions look at now, and some say NULL of what is gone.
        if all(cell is not None for one in found for cell in (one.name, one.definition, one.belongs_to)):
            return CatalogDump(tuple(sorted(found, key=lambda one: one.place)))
    raise TransactionConflictError(
        f"The catalog could not be described in {_ATTEMPTS} attempts, since others changed it meanwhile.",
        remedy="Try again when nobody creates and drops objects.",
    )


def _described(connection: psycopg.Connection[Any], names: list[str]) -> list[CatalogObject]:
    found: list[CatalogObject] = []
    with plain_cursor(connection) as cursor:
        try:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            rows = cursor.execute(
                "SELECT c.oid FROM pg_catalog.unnest(%s::text[]) n (name)"
                " JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(n.name)",
                (names,),
            ).fetchall()
            hidden = [row[0] for row in rows]
            cursor.execute(_SETTINGS, prepare=False)
            for kind, query in QUERIES.items():
                cursor.execute(query.encode(), {"hidden": hidden})
                found += [
                    CatalogObject(kind, name, definition, belongs_to)
                    for belongs_to, name, definition in cursor.fetchall()
                ]
        finally:
            connection.rollback()
    return found
