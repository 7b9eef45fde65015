"""Values of the materialized partition for use in SQL and paths."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dagster as dg

from lakebase_provider.core.errors import ConfigError

#: Names of a partition's parameters begin with this.
PREFIX = "partition_"

_Definition = dg.PartitionsDefinition[Any] | None


def partition_names(definitions: Iterable[_Definition]) -> set[str]:
    """Names of the values that partitions may give."""
    names: set[str] = set()
    for definition in definitions:
        if definition is None:
            continue
        names |= {"partition_key", "partition_keys"}
        if isinstance(definition, dg.MultiPartitionsDefinition):
            names |= {PREFIX + one.name for one in definition.partitions_defs}
        if _by_time(definition) is not None:
            names |= {"partition_start", "partition_end"}
    return names


def partition_values(context: dg.AssetExecutionContext) -> dict[str, Any]:
    """The values of the run's partitions, combined if there are several."""
    if not context.has_partition_key and not context.has_partition_key_range:
        return {}
    keys = list(context.partition_keys)
    values: dict[str, Any] = {"partition_keys": [str(key) for key in keys]}
    if len(keys) == 1:
        values |= _of_key(keys[0])
    if _by_time(context.assets_def.partitions_def) is not None:
        window = context.partition_time_window
        values["partition_start"], values["partition_end"] = window.start, window.end
    return values


def each_partition(context: dg.AssetExecutionContext) -> list[dict[str, Any]]:
    """The values of each of the run's partitions; for an asset without partitions, a single empty one.

    Raises:
        ConfigError: The asset has partitions, but the run is for none.
    """
    definition = context.assets_def.partitions_def
    if definition is None:
        return [{}]
    if not context.has_partition_key and not context.has_partition_key_range:
        raise ConfigError(
            f"{context.asset_key.to_user_string()} has partitions, but the run is for none.",
            remedy="Materialize one or more of its partitions.",
        )
    return [
        {"partition_keys": [str(key)], **_of_key(key), **_window(definition, key)}
        for key in context.partition_keys
    ]


def _of_key(key: str) -> dict[str, Any]:
    values = {"partition_key": str(key)}
    if isinstance(key, dg.MultiPartitionKey):
        values |= {PREFIX + dimension: one for dimension, one in key.keys_by_dimension.items()}
    return values


def _window(definition: _Definition, key: str) -> dict[str, Any]:
    found = _by_time(definition)
    if found is None:
        return {}
    dimension, by_time = found
    if isinstance(key, dg.MultiPartitionKey):
        key = key.keys_by_dimension[dimension]
    window = by_time.time_window_for_partition_key(key)
    return {"partition_start": window.start, "partition_end": window.end}


def _by_time(definition: _Definition) -> tuple[str, dg.TimeWindowPartitionsDefinition] | None:
    """The time dimension and its name, if there is exactly one."""
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return "", definition
    if isinstance(definition, dg.MultiPartitionsDefinition):
        found = [
            (one.name, one.partitions_def)
            for one in definition.partitions_defs
            if isinstance(one.partitions_def, dg.TimeWindowPartitionsDefinition)
        ]
        if len(found) == 1:
            return found[0]
    return None
