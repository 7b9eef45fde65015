"""What the options of maintenance accept; fronts check them with it, so it is imported without the driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from lakebase_provider.core.base.choices import require_choice
from lakebase_provider.core.config import arguments
from lakebase_provider.core.errors import ConfigError

#: Whether readers go on while a materialized view is refreshed.
Concurrently = Literal["auto", True, False]
#: Dead rows among all, from which a table that nobody names is vacuumed.
DEAD_SHARE = 0.1
#: Seconds from which a transaction counts as long.
LONG_TRANSACTION = 300.0
#: Defaults of all methods: seconds for a lock, attempts, seconds for all.
LOCK_TIMEOUT, ATTEMPTS, TIMEOUT = 5.0, 5, 3600.0
#: The kinds of maintenance, by the method's name, with the options of each.
ACTIONS: Mapping[str, tuple[str, ...]] = {
    "vacuum": ("tables", "dead_share", "analyze", "long_transaction"),
    "analyze": ("tables",),
    "refresh": ("views", "concurrently"),
    "create_index": ("table", "on", "name", "unique", "method", "include", "where"),
    "reindex": ("table", "index"),
    "drop_index": ("index",),
    "partitions": ("table", "every", "premake", "keep", "archive", "at"),
    "repair_sequences": ("tables",),
    "digest_statements": ("into", "top", "keep_days"),
}
#: Options of all of them.
PATIENCE = ("lock_timeout", "attempts", "timeout")
#: Options without which a kind has nothing to do.
_NEEDED = {
    "refresh": ("views",),
    "create_index": ("table", "on"),
    "drop_index": ("index",),
    "partitions": ("table", "every"),
}
#: Where in the name of an archive the partition's own name goes.
PLACE = "{partition}"


def _share(value: Any) -> None:
    remedy = "Give a share such as 0.1."
    if not 0 <= arguments.number("'dead_share'", value, remedy) <= 1:
        raise arguments.wrong("'dead_share'", value, "be from 0 to 1", remedy)


def _concurrently(value: Any) -> None:
    if value not in ("auto", True, False):
        raise arguments.wrong("'concurrently'", value, "be 'auto', True or False", "Leave it out for 'auto'.")


def _archive(value: Any) -> None:
    remedy = f"Give a path with it, such as '/lake/{PLACE}.parquet'."
    arguments.text("'archive'", value, remedy)
    if PLACE not in value:
        raise ConfigError(f"'archive' has no {PLACE}: each partition would replace the last.", remedy=remedy)


_CHECKS: Mapping[str, Callable[[Any], object]] = {
    "lock_timeout": lambda value: arguments.timeout(value, "lock_timeout"),
    "attempts": lambda value: arguments.count("'attempts'", value, least=1),
    "timeout": arguments.timeout,
    "long_transaction": lambda value: arguments.timeout(value, "long_transaction"),
    "dead_share": _share,
    "concurrently": _concurrently,
    "every": lambda value: require_choice("'every'", value, ("month", "week", "day")),
    "premake": lambda value: arguments.count("'premake'", value, most=1000),
    "keep": lambda value: arguments.count("'keep'", value, most=100_000),
    "archive": _archive,
    "top": lambda value: arguments.count("'top'", value, least=1),
    "keep_days": lambda value: arguments.count("'keep_days'", value, least=1, most=100_000),
}
#: Options that may be None.
_OPTIONAL = ("dead_share", "keep", "archive", "keep_days")


def require_options(given: Mapping[str, Any]) -> None:
    """Refuse options that cannot work.

    Args:
        given: Options by name, those that are known; others than of numbers and choices are not looked at.

    Raises:
        ConfigError: One is malformed, or they contradict each other.
    """
    for name, value in given.items():
        if name in _CHECKS and not (value is None and name in _OPTIONAL):
            _CHECKS[name](value)
    if given.get("archive") is not None and "keep" in given and given["keep"] is None:
        raise ConfigError("'archive' without 'keep' has no effect.", remedy="Say how many periods are kept.")


def require_action(action: Any, given: Mapping[str, Any]) -> None:
    """Refuse a kind of maintenance that there is not, or with options that cannot work.

    Args:
        action: Its name.
        given: All of its options, by name.

    Raises:
        ConfigError: There is no such kind or option, one is missing or malformed, or they contradict.
    """
    require_choice("'action'", action, ACTIONS)
    known = (*ACTIONS[action], *PATIENCE)
    for name in given:
        if name not in known:
            raise ConfigError(
                f"'{action}' has no option '{name}'.", remedy=f"The options are: {', '.join(known)}."
            )
    for name in _NEEDED.get(action, ()):
        if given.get(name) is None:
            raise ConfigError(f"'{action}' needs '{name}'.", remedy=f"Give {name}.")
    require_options({"keep": None, **given} if action == "partitions" else given)
