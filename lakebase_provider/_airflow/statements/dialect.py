"""How rows are inserted and replaced in Postgres: common-sql gets the statement from a dialect."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow.providers.common.sql.dialects.dialect import Dialect
from psycopg import sql

from lakebase_provider.core.errors import ConfigError

if TYPE_CHECKING:
    from lakebase_provider.core.database.catalog import Column, Table, TableName

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")
_NAME = re.compile(rf'(?:(?:{_PLAIN.pattern}|"(?:[^"]|"")+")(?:\.(?!\Z)|\Z))+')
_CAPITALS = re.compile("[A-Z]+")


class LakebaseDialect(Dialect):
    """Postgres' statements, without the Postgres provider.

    Names follow SQL's rules: a plain one is folded to lower case, one in double quotes is kept. What is
    neither plain nor quoted becomes a quoted name, never SQL.
    """

    @property
    def name(self) -> str:
        """The dialect's name in SQLAlchemy."""
        return "postgresql"

    def escape_word(self, word: str) -> str:
        """The name for a statement with placeholders, quoted if necessary.

        Args:
            word: Name of a column, in quotes or not.
        """
        quoted = len(word) > 1 and word[0] == word[-1] == '"'
        if not quoted and _PLAIN.fullmatch(word) and not self._must_quote(word):
            return word
        return _in_statement(sql.Identifier(self.unquoted(word) if quoted else word))

    def _must_quote(self, word: str) -> bool:
        return self.hook.escape_column_names or word.casefold() in self.reserved_words

    @staticmethod
    def unquoted(word: str) -> str:
        """The catalog's form of a name in SQL's form."""
        if len(word) > 1 and word[0] == word[-1] == '"':
            return word[1:-1].replace('""', '"')
        return _folded(word)

    @staticmethod
    def is_table_name(table: str) -> bool:
        """Whether it is a table name in SQL's form: of plain words, or quoted if necessary.

        Args:
            table: The name, with its schema or without.
        """
        return _NAME.fullmatch(table) is not None

    @staticmethod
    def table_name(table: str, schema: str | None = None) -> TableName:
        """A table's name in the catalog's form.

        Args:
            table: The name in SQL's form, with or without its schema.
            schema: Name of the schema, if the table's name has none.

        Raises:
            ConfigError: It is not a table name.
        """
        # Part of loading, which a task that only runs SQL does not need.
        from lakebase_provider.core.database.catalog import TableName

        parts = re.findall(r'"(?:[^"]|"")*"|[^".]+', table)
        if schema is not None:
            parts = [schema, *parts]
        if ".".join(parts) != (table if schema is None else f"{schema}.{table}") or not 0 < len(parts) < 3:
            # Raises with what is wrong with it.
            return TableName.parse(table)
        names = [LakebaseDialect.unquoted(part) for part in parts]
        return TableName(names[-1], names[0] if len(names) == 2 else None)

    def get_primary_keys(self, table: str, schema: str | None = None) -> list[str] | None:
        """Columns of the primary key, in its order; None without one.

        Args:
            table: Name of the table, with its schema or found in the search path.
            schema: Name of the schema, if the table's name has none.

        Raises:
            TableNotFoundError: There is no such table.
        """
        return list(self._read(table, schema).primary_key) or None

    def get_column_names(
        self,
        table: str,
        schema: str | None = None,
        predicate: Callable[[Any], bool] = lambda column: True,
    ) -> list[str] | None:
        """Names of the columns, in order.

        Args:
            table: Name of the table, with its schema or found in the search path.
            schema: Name of the schema, if the table's name has none.
            predicate: Selects columns; it gets what PostgresDialect would pass.
        """
        columns = self._read(table, schema).columns
        return [column.name for column in columns if predicate(_as_postgres_has_it(column))]

    def get_target_fields(self, table: str, schema: str | None = None) -> list[str] | None:
        """Names of the columns that accept a value: neither identity nor computed columns.

        Args:
            table: Name of the table, with its schema or found in the search path.
            schema: Name of the schema, if the table's name has none.
        """
        found = self._read(table, schema)
        return [column.name for column in found.writable if not column.identity]

    def _read(self, table: str, schema: str | None) -> Table:
        from lakebase_provider.core.database.catalog import read_table

        with closing(self.hook.get_conn()) as connection:
            connection.autocommit = True
            return read_table(connection, self.table_name(table, schema))

    def generate_insert_sql(
        self, table: str, values: Sequence[Any], target_fields: Sequence[str] | None, **kwargs: Any
    ) -> str:
        """An ``INSERT``.

        Args:
            table: Name of the table.
            values: A row.
            target_fields: Names of the columns; all by default.
            kwargs: Have no effect.
        """
        name = _in_statement(self.table_name(table).sql())
        return super().generate_insert_sql(name, values, target_fields)

    def generate_replace_sql(
        self, table: str, values: Sequence[Any], target_fields: Sequence[str] | None, **kwargs: Any
    ) -> str:
        """An ``INSERT … ON CONFLICT … DO UPDATE``.

        Args:
            table: Name of the table.
            values: A row.
            target_fields: Names of the columns.
            kwargs: ``replace_index`` names the unique column or columns, the primary key by default;
                ``replace_target`` the columns to update, all others by default, none if empty.

        Raises:
            ConfigError: There are no `target_fields`, or neither a primary key nor a `replace_index`.
        """
        if not target_fields:
            raise ConfigError("Replacing rows needs the column names.", remedy="Give target_fields.")
        index = kwargs.get("replace_index") or self.get_primary_keys(table)
        if not index:
            raise ConfigError(
                f"Table {table} has no primary key by which to replace rows.",
                remedy="Set replace_index to the unique column or columns.",
            )
        unique = [index] if isinstance(index, str) else list(index)
        target = kwargs.get("replace_target")
        if target is None:
            keys = {self.unquoted(name) for name in unique}
            target = [name for name in target_fields if self.unquoted(name) not in keys]
        elif isinstance(target, str):
            target = [target]
        changed = [f"{name} = excluded.{name}" for name in map(self.escape_word, target)]
        insert = self.generate_insert_sql(table, values, target_fields)
        action = f"UPDATE SET {', '.join(changed)}" if changed else "NOTHING"
        return f"{insert} ON CONFLICT ({', '.join(map(self.escape_word, unique))}) DO {action}"


def _in_statement(name: sql.Composable) -> str:
    # In a statement with placeholders, psycopg takes a percent sign as the beginning of one.
    return name.as_string().replace("%", "%%")


def _folded(name: str) -> str:
    # Postgres folds only ASCII, and only what needs no quotes.
    return _CAPITALS.sub(lambda match: match.group().lower(), name) if _PLAIN.fullmatch(name) else name


def _as_postgres_has_it(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.type_name,
        "nullable": not column.not_null,
        "default": column.has_default,
        "autoincrement": column.generated,
        "identity": bool(column.identity),
    }
