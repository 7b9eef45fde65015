"""Names of columns, tables and schemas that Postgres accepts; DAG files check them too."""

from __future__ import annotations

import re

from lakebase_provider.core.errors import ConfigError

#: Postgres silently truncates longer names, so that two of them may become one.
MAX_NAME_BYTES = 63
_PART = re.compile(r'"(?P<quoted>(?:[^"]|"")*)"|(?P<plain>[^".][^.]*)')


def identifier(name: str, *, what: str = "column") -> str:
    """A name that Postgres accepts unchanged.

    Args:
        name: The name, without quotes around it.
        what: What it names, for the error.

    Raises:
        ConfigError: It is empty, longer than 63 bytes or has a NUL character or half of a surrogate pair.
    """
    if not isinstance(name, str):
        raise ConfigError(f"The {what}'s name is of type {type(name).__name__}.", remedy="Give a str.")
    if not name:
        raise ConfigError(f"The {what}'s name is empty.", remedy=f"Give the {what} a name.")
    if "\0" in name:
        raise ConfigError(f"The {what}'s name {name!r} has a NUL character.", remedy="Remove it.")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ConfigError(
            f"The {what}'s name {name!r} holds half of a surrogate pair.", remedy="Remove it."
        ) from None
    if size > MAX_NAME_BYTES:
        raise ConfigError(
            f"The {what}'s name {name!r} has {size} bytes; Postgres would cut it off at {MAX_NAME_BYTES}.",
            remedy=f"Shorten it to {MAX_NAME_BYTES} bytes of UTF-8.",
        )
    return name


def split_name(name: object) -> list[str]:
    """The parts of a table's name as users write it: schema and table, or the table alone.

    Args:
        name: ``"table"`` or ``"schema.table"``; a part in double quotes may hold dots (and quotes, doubled).

    Raises:
        ConfigError: It is not one.
    """
    if not isinstance(name, str):
        raise ConfigError(
            f"A table's name is of type {type(name).__name__}.",
            remedy="Give 'table', 'schema.table' or (schema, table).",
        )
    parts, at = [], 0
    while True:
        match = _PART.match(name, at)
        if match is None:
            break
        quoted = match.group("quoted")
        parts.append(match.group("plain") if quoted is None else quoted.replace('""', '"'))
        at = match.end()
        if at == len(name) and len(parts) <= 2:
            return parts
        if name[at : at + 1] != ".":
            break
        at += 1
    raise ConfigError(
        f"{name!r} is not a table name.",
        remedy="Give 'table' or 'schema.table', with double quotes around a part that holds a dot; "
        "or the tuple (schema, table).",
    )
