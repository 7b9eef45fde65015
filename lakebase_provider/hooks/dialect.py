"""How rows are replaced in Postgres, which has no REPLACE: common-sql asks a dialect for the statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.providers.common.sql.dialects.dialect import Dialect

# to_regclass' sibling: the table is found by the search path when its name has no schema.
_PRIMARY_KEY = """
    SELECT a.attname
    FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
    WHERE i.indrelid = %s::regclass AND i.indisprimary
    ORDER BY pg_catalog.array_position(i.indkey::int2[], a.attnum)
"""


class LakebaseDialect(Dialect):
    """Postgres' upsert, without the Postgres provider being installed."""

    def get_primary_keys(self, table: str, schema: str | None = None) -> list[str] | None:
        """Columns of the primary key, in its order; None without one.

        Args:
            table: Name of the table, with its schema or found by the search path.
            schema: Name of the schema, where the table's name has none.
        """
        name = f"{schema}.{table}" if schema else table
        return [row[0] for row in self.get_records(_PRIMARY_KEY, (name,))] or None

    def generate_replace_sql(
        self, table: str, values: Sequence[Any], target_fields: Sequence[str] | None, **kwargs: Any
    ) -> str:
        """An ``INSERT … ON CONFLICT … DO UPDATE``.

        Args:
            table: Name of the table.
            values: A row.
            target_fields: Names of the columns.
            kwargs: ``replace_index`` names the unique column or columns; the primary key by default.

        Raises:
            ValueError: There are no `target_fields`, or neither a primary key nor a `replace_index`.
        """
        if not target_fields:
            raise ValueError("Replacing rows needs target_fields, the names of the columns.")
        index = kwargs.get("replace_index") or self._primary_keys_of(table)
        if not index:
            raise ValueError(f"Table {table} has no primary key: give replace_index, the unique columns.")
        unique = [index] if isinstance(index, str) else list(index)
        changed = [
            f"{self.escape_word(name)} = excluded.{self.escape_word(name)}"
            for name in target_fields
            if name not in unique
        ]
        insert: str = self.generate_insert_sql(table, values, target_fields, **kwargs)
        action = f"UPDATE SET {', '.join(changed)}" if changed else "NOTHING"
        return f"{insert} ON CONFLICT ({', '.join(map(self.escape_word, unique))}) DO {action}"

    def _primary_keys_of(self, table: str) -> list[str] | None:
        # common-sql asks for the statement anew for each chunk of rows.
        known = self.__dict__.setdefault("_primary_keys", {})
        if table not in known:
            known[table] = self.get_primary_keys(table)
        keys: list[str] | None = known[table]
        return keys
