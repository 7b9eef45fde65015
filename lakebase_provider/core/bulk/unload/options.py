"""The options of an unload, checked before anything is read, also by DAG files without the driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lakebase_provider.core.base.choices import require_choice
from lakebase_provider.core.bulk.types.decimals import require_numeric
from lakebase_provider.core.bulk.unload.destination import FORMATS
from lakebase_provider.core.errors import ConfigError


def check_unload_options(given: Mapping[str, Any]) -> None:
    """Check the known options before there is a connection.

    Args:
        given: ``format``, ``parallel``, ``by``, ``batch_rows`` and ``numeric``. What is not known yet is left
            out, and nothing that depends on it is checked.

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


def _require_count(name: str, value: object, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} is {value!r}.", remedy=f"Give at least 1 as the number of {what}.")
