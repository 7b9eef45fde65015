"""What an inspection is asked for, checked: which checks, and from which value on something is not well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lakebase_provider.core.base.choices import require_choice
from lakebase_provider.core.config import arguments
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.upkeep.inspection.checks import CHECK_NAMES, CHECKS, Check, Limit

#: What callers give: a number is the limit of a warning, a pair that and the one of what is bad.
Limits = Mapping[str, float | Sequence[float | None] | None]


def chosen(names: Iterable[str] | None) -> tuple[Check, ...]:
    """The checks of these names, in the order of a report; all for None.

    Raises:
        ConfigError: There is no such check, or none is named.
    """
    if names is None:
        return CHECKS
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise arguments.wrong("checks", names, "be a list of names", "Give a list, such as ['bloat'].")
    wanted = list(names)
    for name in wanted:
        require_choice("A name in checks", name, CHECK_NAMES)
    if not wanted:
        raise ConfigError("checks names none.", remedy="Leave it out to run all.")
    return tuple(check for check in CHECKS if check.name in wanted)


def limits_of(given: Limits | None) -> dict[str, Limit]:
    """The limit of each check: what was given, or else its own.

    Raises:
        ConfigError: There is no check of a name, or its limit is neither a number, nor a pair, nor None; or
            what is bad would not be worse than what is warned of.
    """
    if given is not None and not isinstance(given, Mapping):
        raise arguments.wrong(
            "limits", given, "give limits by name", "Give limits such as {'bloat': [0.5, 0.8]}."
        )
    for name in given or {}:
        require_choice("A name in limits", name, CHECK_NAMES)
    own = {check.name: check for check in CHECKS}
    return {name: check.limit for name, check in own.items()} | {
        name: _limit(own[name], value) for name, value in (given or {}).items()
    }


def _limit(check: Check, value: object) -> Limit:
    remedy = f"Give {check.name} a number, or a pair such as [0.5, 0.8], or None for no limit."
    pair = value if isinstance(value, list | tuple) else [value]
    if not 1 <= len(pair) <= 2:
        raise ConfigError(f"The limit '{check.name}' has {len(pair)} numbers.", remedy=remedy)
    named = f"The limit '{check.name}'"
    limit = Limit(*(None if one is None else arguments.number(named, one, remedy) for one in pair))
    if None not in limit and limit.warn != limit.bad and check.is_past(limit.warn or 0.0, limit.bad):
        raise ConfigError(
            f"The limit '{check.name}' warns from {limit.warn:g} on, which is worse than what is bad, "
            f"{limit.bad:g}.",
            remedy="Give first the limit of a warning, then that of what is bad.",
        )
    return limit


def require_days(value: object) -> float:
    """Days that statistics have to cover.

    Raises:
        ConfigError: It is no number, or below 0.
    """
    remedy = "Give days, such as 7; 0 judges whatever there is."
    found = arguments.number("'statistics_days'", value, remedy)
    if found < 0:
        raise arguments.wrong("'statistics_days'", value, "be 0 or more", remedy)
    return found
