"""The values of options, checked and put as the workspace's JSON has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from lakebase_provider.core.config import arguments
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.errors.remedy import Remedy

#: Seconds ahead that a branch may expire.
_MOST_LIFE = 30 * 86_400.0
#: Seconds by which this machine's clock may be wrong where it judges a moment in the workspace's place.
CLOCKS_DIFFER = 300.0


def text(name: str, value: Any) -> str:
    """Text as it is."""
    return arguments.text(f"Option '{name}'", value, f"Give {name} as text, or leave it out.")


def flag(name: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise arguments.wrong(f"Option '{name}'", value, "be True or False", f"Give True or False as {name}.")
    return value


def only_true(name: str, value: Any) -> bool:
    """True: what it turns off is turned on by the option that it excludes."""
    if value is not True:
        remedy = "To undo it, give the other option of its kind instead."
        raise arguments.wrong(f"Option '{name}'", value, "be True", remedy)
    return True


def number(name: str, value: Any) -> float:
    """A finite number."""
    return arguments.number(f"Option '{name}'", value, f"Give a number as {name}.")


def seconds(name: str, value: Any) -> str:
    """Seconds as a duration of the API: ``"300s"``."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    found = arguments.seconds(
        f"Option '{name}'", value, f"Give {name} in seconds, such as 3600, or a timedelta."
    )
    plain = f"{Decimal(str(found)):.9f}".rstrip("0").rstrip(".")
    return f"{plain}s"


def moment(name: str, value: Any) -> str:
    """A moment as a timestamp of the API, in UTC."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise arguments.wrong(
            f"Option '{name}'",
            value,
            "be a datetime with a time zone",
            f"Give {name} as datetime.now(timezone.utc) does.",
        )
    remedy = f"Give {name} as datetime.now(timezone.utc) does."
    plain = arguments.in_utc(f"Option '{name}'", value, remedy).replace(tzinfo=None)
    return plain.isoformat(timespec="microseconds" if plain.microsecond else "seconds") + "Z"


def listed(name: str, value: Any) -> list[Any]:
    """A list of texts or objects; an empty one clears what is there."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise arguments.wrong(f"Option '{name}'", value, "be a list", f"Give a list as {name}.")
    return [dict(one) if isinstance(one, Mapping) else one for one in value]


def mapped(name: str, value: Any) -> dict[str, Any]:
    """Texts by name."""
    if not isinstance(value, Mapping):
        raise arguments.wrong(f"Option '{name}'", value, "be a mapping", f"Give texts by name as {name}.")
    return dict(value)


def told_as(wanted: Any, there: Any) -> bool:
    """Whether an attribute of an object, as the workspace tells it, is the value of an option.

    Args:
        wanted: The value.
        there: The attribute.
    """
    if isinstance(wanted, timedelta):
        wanted = wanted.total_seconds()
    if isinstance(wanted, datetime) and isinstance(there, datetime):
        # The workspace tells times to the microsecond, or less.
        return abs((there - wanted).total_seconds()) < 0.001
    if not isinstance(there, tuple):
        return bool(there == wanted)
    pairs = wanted.items() if isinstance(wanted, Mapping) else [_pair(one) for one in wanted]
    return sorted(there) == sorted(pairs)


def _pair(one: Any) -> Any:
    """A tag as an object's attribute has it."""
    return (one.get("key", ""), one.get("value", "")) if isinstance(one, Mapping) else one


def require_expiration(given: Mapping[str, Any], now: float) -> None:
    """Raise a ConfigError if a branch with these options could not expire as they say.

    Args:
        given: Options of a branch.
        now: The time, in seconds since 1970.
    """
    option = next((one for one in ("ttl", "expire_time") if one in given), None)
    if option is None:
        return
    if option == "ttl":
        life, slack = float(seconds("ttl", given["ttl"])[:-1]), 0.0
    else:
        life, slack = given["expire_time"].timestamp() - now, CLOCKS_DIFFER
    if not -slack < life <= _MOST_LIFE + slack:
        raise ConfigError(
            f"The branch is to expire in {life:.0f} s.",
            remedy=Remedy(
                "Let it expire within 30 days, or give no_expiry=True.",
                options=("no_expiry",),
                otherwise="Give a --ttl of at most 30d, or --no-expiry.",
            ),
        )
    if given.get("is_protected"):
        raise ConfigError(
            f"Both 'is_protected' and '{option}' are given: a protected branch cannot expire.",
            remedy="Give no_expiry=True, or leave it unprotected.",
        )
