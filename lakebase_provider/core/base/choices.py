"""Arguments with a fixed set of values: one way to refuse any other value."""

from __future__ import annotations

from collections.abc import Iterable

from lakebase_provider.core.errors import ConfigError

#: Characters of a value that an error repeats.
_LONGEST_SHOWN = 60


def require_choice(argument: str, value: object, allowed: Iterable[str | None]) -> None:
    """Refuse a value that an argument does not accept.

    Args:
        argument: The argument's name, for the error.
        value: What was given.
        allowed: The allowed values, including None if it may be left out.

    Raises:
        ConfigError: The value is not among them.
    """
    allowed = tuple(allowed)
    if value not in allowed:
        shown = repr(value)
        shown = shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}…"
        raise ConfigError(
            f"{argument} is {shown}.", remedy=f"Use one of: {', '.join(filter(None, allowed))}."
        )
