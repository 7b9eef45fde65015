"""Names of columns, tables and schemas that Postgres accepts; DAG files check them too."""

from __future__ import annotations

from lakebase_provider.core.errors import ConfigError

#: Postgres silently truncates longer names, so that two of them may become one.
MAX_NAME_BYTES = 63


def identifier(name: str, *, what: str = "column") -> str:
    """A name that Postgres accepts unchanged.

    Args:
        name: The name, without quotes around it.
        what: What it names, for the error.

    Raises:
        ConfigError: It is empty, longer than 63 bytes or has a NUL character.
    """
    if not isinstance(name, str):
        raise ConfigError(f"The {what}'s name is of type {type(name).__name__}.", remedy="Give a str.")
    if not name:
        raise ConfigError(f"The {what}'s name is empty.", remedy=f"Give the {what} a name.")
    if "\0" in name:
        raise ConfigError(f"The {what}'s name {name!r} has a NUL character.", remedy="Remove it.")
    size = len(name.encode(errors="surrogatepass"))
    if size > MAX_NAME_BYTES:
        raise ConfigError(
            f"The {what}'s name {name!r} has {size} bytes; Postgres would cut it off at {MAX_NAME_BYTES}.",
            remedy=f"Shorten it to {MAX_NAME_BYTES} bytes of UTF-8.",
        )
    return name
