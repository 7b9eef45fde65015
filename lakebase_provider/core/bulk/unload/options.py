"""The options of an unload, checked before anything is read, also by DAG files without the driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from lakebase_provider.core.base.choices import require_choice
from lakebase_provider.core.bulk.sources.delta.opened import is_delta
from lakebase_provider.core.bulk.types.decimals import require_numeric
from lakebase_provider.core.bulk.unload.destination import FORMATS
from lakebase_provider.core.errors import ConfigError

WriteMode = Literal["append", "overwrite", "merge"]
#: What is said of files, and what of Delta tables.
_OF_FILES, _OF_DELTA = ("format", "by"), ("mode", "keys", "unload_id")


def check_unload_options(given: Mapping[str, Any]) -> None:
    """Check the known options before there is a connection.

    Args:
        given: ``to``, ``format``, ``parallel``, ``by``, ``batch_rows``, ``numeric``, ``mode``, ``keys`` and
            ``unload_id``. What is not known yet is left out, and nothing that depends on it is checked.

    Raises:
        ConfigError: An option has an unknown value or contradicts another.
    """
    if given.get("format") is not None:
        require_choice("format", given["format"], FORMATS)
    if "numeric" in given:
        require_numeric(given["numeric"])
    if given.get("batch_rows") is not None:
        _require_count("batch_rows", given["batch_rows"], "rows")
    if "parallel" in given:
        _require_count("parallel", given["parallel"], "files")
        if given["parallel"] > 1 and given.get("by", "known later") is None:
            raise ConfigError(
                "Several files are to be written, but nothing says which rows go where.",
                remedy="Name a column by which to divide the rows, such as by='id'.",
            )
    if given.get("mode") is not None:
        require_choice("mode", given["mode"], get_args(WriteMode))
    if "to" in given:
        kind, others = ("a Delta table", _OF_FILES) if is_delta(given["to"]) else ("files", _OF_DELTA)
        if wrong := [name for name in others if given.get(name) is not None]:
            raise ConfigError(f"{wrong[0]}= has no meaning for {kind}.", remedy="Leave it out.")
    if {"mode", "keys"} <= given.keys() and (given["mode"] == "merge") != bool(given["keys"]):
        raise ConfigError(
            "mode='merge' and keys= need each other.", remedy="Give both, or neither, for a Delta table."
        )


def _require_count(name: str, value: object, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} is {value!r}.", remedy=f"Give at least 1 as the number of {what}.")
