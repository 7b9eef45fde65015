"""What callers pass to methods, checked: an error names the argument, its kind and a remedy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime, timezone
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from lakebase_provider.core.errors import ConfigError

#: 10,000 years, the most that a protobuf Duration holds.
_MOST_SECONDS = 315_576_000_000


def wrong(argument: str, value: object, must: str, remedy: str) -> ConfigError:
    """The error about an argument.

    Args:
        argument: What it is called, as a message begins.
        value: What was given; of anything but a number only its type is shown.
        must: What it must be, such as ``"be text"``.
        remedy: What to do.
    """
    small = isinstance(value, int) and -1e15 < value < 1e15
    plain = small or value is None or isinstance(value, float)
    shown = repr(value) if plain else type(value).__name__
    return ConfigError(f"{argument} must {must}, not {shown}.", remedy=remedy)


def text(argument: str, value: Any, remedy: str) -> str:
    """Text that is not empty.

    Raises:
        ConfigError: It is something else.
    """
    if not isinstance(value, str):
        raise wrong(argument, value, "be text", remedy)
    if not value:
        raise ConfigError(f"{argument} is empty.", remedy=remedy)
    return value


def number(argument: str, value: Any, remedy: str) -> float:
    """A finite number, of whatever type: numpy's and Decimal's, too.

    Raises:
        ConfigError: It is something else.
    """
    if not isinstance(value, bool) and isinstance(value, (Real, Decimal)):
        try:
            found = int(value) if isinstance(value, Integral) else float(value)
            if math.isfinite(found):
                return found
        except (ValueError, OverflowError):
            # A signaling NaN, or an integer beyond what a float holds.
            pass
    raise wrong(argument, value, "be a number", remedy)


def count(argument: str, value: Any, *, least: int = 0, most: int | None = None) -> int:
    """A whole number.

    Args:
        argument: What it is called, as a message begins.
        value: What was given.
        least: What it must be at least, 0 or 1.
        most: What it may be at most; None for no bound.

    Raises:
        ConfigError: It is something else.
    """
    remedy = "Give a whole number, such as 5."
    found = number(argument, value, remedy)
    if found < least or found != int(found):
        raise wrong(argument, value, f"be a whole number{' above 0' if least else ''}", remedy)
    if most is not None and found > most:
        raise wrong(argument, value, f"be at most {most}", f"Give at most {most}.")
    return int(found)


def timeout(value: Any, argument: str = "timeout") -> float:
    """Seconds to wait at most, above 0.

    Raises:
        ConfigError: It is something else.
    """
    remedy = f"Give {argument} in seconds, such as 300."
    found = number(f"'{argument}'", value, remedy)
    if found <= 0:
        raise wrong(f"'{argument}'", value, "be above 0", remedy)
    return found


def seconds(argument: str, value: Any, remedy: str) -> float:
    """Seconds, 0 or more, and not more than the workspace's durations hold.

    Raises:
        ConfigError: It is something else.
    """
    found = number(argument, value, remedy)
    if found < 0:
        raise wrong(argument, value, "be 0 or more", remedy)
    if found > _MOST_SECONDS:
        raise wrong(argument, value, f"be at most {_MOST_SECONDS}", remedy)
    return found


def in_utc(argument: str, value: datetime, remedy: str) -> datetime:
    """A moment with a zone, in UTC.

    Raises:
        ConfigError: In UTC it is before year 1 or after 9999, though in its own zone it is not.
    """
    try:
        return value.astimezone(timezone.utc)
    except OverflowError:
        raise ConfigError(f"{argument} is outside of years 1 to 9999 in UTC.", remedy=remedy) from None


def known_options(what: str, given: Iterable[str], plan: type[Any]) -> None:
    """Options of those that a dataclass has.

    Args:
        what: Whose they are, as a message begins.
        given: Their names.
        plan: The dataclass.

    Raises:
        ConfigError: There is no such option.
    """
    known = [field.name for field in fields(plan)]
    for name in given:
        if name not in known:
            raise ConfigError(
                f"{what} has no option '{name}'.", remedy=f"The options are: {', '.join(known)}."
            )
