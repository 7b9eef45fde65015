"""Which table an asset is, and how Dagster shows its columns."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import Any

import dagster as dg

from lakebase_provider.core.database.facts import TableFacts, TableRef
from lakebase_provider.core.errors import ConfigError

TABLE_NAME = "dagster/table_name"
_DEFAULT_SCHEMA = "public"


def table_of(
    key: dg.AssetKey, metadata: Mapping[str, Any] | None = None, *, schema: str | None = None
) -> TableRef:
    """The table that an asset stands for, for whatever stores it, loads it or looks at it.

    Args:
        key: Without other notice its last part is the table, the one before it the schema; ``public`` if
            there is none.
        metadata: Where ``dagster/table_name`` says otherwise: ``[database.][schema.]table``. Quotes are
            needed around a name with a dot, and all names are taken as they are written. The metadata
            ``schema`` names the schema alone.
        schema: The schema of assets whose metadata name none; before the key's.

    Raises:
        DagsterInvalidDefinitionError: ``dagster/table_name`` or ``schema`` cannot be read, or the two name
            different schemas.
    """
    metadata = metadata or {}
    named = name_in(metadata, "schema", key)
    given = metadata.get(TABLE_NAME)
    if given is None:
        prefix = key.path[-2] if len(key.path) > 1 else _DEFAULT_SCHEMA
        return TableRef(named or schema or prefix, key.path[-1])
    parts = _parts(key, _value(given))
    if len(parts) == 1:
        return TableRef(named or schema or _DEFAULT_SCHEMA, parts[0])
    if named not in (None, parts[-2]):
        raise dg.DagsterInvalidDefinitionError(
            f"{TABLE_NAME} of asset {key.to_user_string()} names schema {parts[-2]!r}, and its metadata "
            f"'schema' {named!r}. Leave one of them out."
        )
    return TableRef(parts[-2], parts[-1])


def require_database(key: dg.AssetKey, metadata: Mapping[str, Any] | None, database: str) -> None:
    """Make sure that the database that an asset's ``dagster/table_name`` names, if any, is this one.

    Args:
        key: The asset.
        metadata: Its metadata.
        database: The database that the connection leads to.

    Raises:
        ConfigError: It names another one.
        DagsterInvalidDefinitionError: ``dagster/table_name`` cannot be read.
    """
    given = (metadata or {}).get(TABLE_NAME)
    parts = [] if given is None else _parts(key, _value(given))
    if len(parts) == 3 and parts[0] != database:
        raise ConfigError(
            f"{TABLE_NAME} of asset {key.to_user_string()} names database {parts[0]!r}, and the connection"
            f" leads to database {database!r}.",
            remedy=f"Correct {TABLE_NAME}, or give the asset a resource of that database.",
        )


def name_in(metadata: Mapping[str, Any], name: str, owner: object) -> str | None:
    """What the metadata ``schema`` or ``table`` names; None if it is empty or not there.

    Args:
        metadata: The metadata.
        name: Which of the two.
        owner: What they belong to, for the error: an asset's key, or text.

    Raises:
        DagsterInvalidDefinitionError: It is no text.
    """
    found = _value(metadata.get(name))
    if found is not None and not isinstance(found, str):
        named = f"asset {owner.to_user_string()}" if isinstance(owner, dg.AssetKey) else owner
        raise dg.DagsterInvalidDefinitionError(
            f"Metadata {name!r} of {named} is {found!r}. Use a name, as text."
        )
    return str(found) if found else None


def _parts(key: dg.AssetKey, text: Any) -> list[str]:
    try:
        parts = next(csv.reader([text], delimiter="."), []) if isinstance(text, str) else []
    except csv.Error:  # a line feed outside quotes
        parts = []
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise dg.DagsterInvalidDefinitionError(
            f"{TABLE_NAME} of asset {key.to_user_string()} is {text!r}. Use [database.][schema.]table."
        )
    return parts


def _value(entry: Any) -> Any:
    # Dagster may have wrapped what the author wrote, as it does in MetadataValue.text("orders").
    return getattr(entry, "value", entry)


def column_schema(facts: TableFacts) -> dg.TableSchema:
    """A table's columns as Dagster shows them."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                column.name,
                column.type_name,
                column.comment,
                constraints=dg.TableColumnConstraints(nullable=not column.not_null, unique=column.unique),
            )
            for column in facts.columns
        ]
    )
