"""Whether a table was written between two observations, and so whether its data version changes.

Postgres counts the rows that are written to a table, but its statistics are lost in a crash, on request
(``pg_stat_reset``) and maybe when a suspended compute restarts. After such a loss the counters tell nothing:
equal ones may hide a write, and different ones may mean none. Then a watermark decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import dagster as dg

#: The metadata of an observation with which the next one is compared.
TABLE_STATE = "lakebase/table_state"
_DATA_VERSION = "dagster/data_version"
#: How many of an asset's latest observations are searched for its last state: a sensor's have none.
_LOOKED_AT = 10


@dataclass(frozen=True)
class TableState:
    """What an observation saw of a table that tells whether it was written since.

    Attributes:
        statistics: Since when the server has counted; changes after each loss of statistics. None if nothing
            is counted: on a replica, and for views and foreign tables.
        counters: Changes after each insert, update or delete that the statistics have recorded.
        files: Changes after TRUNCATE, or if the table was replaced by one with the same name.
        watermark: The time of the newest row, if requested; None for a table without rows.
        rows: Changes after each write, from reading every row, if rows are counted.
    """

    statistics: str | None
    counters: str | None
    files: str | None
    watermark: str | None = None
    rows: str | None = None

    def version(self) -> str | None:
        """A data version that no other state has; None if nothing tells of writes."""
        if self.statistics is None and self.watermark is None and self.rows is None:
            return None
        return hashlib.md5(repr(asdict(self)).encode(), usedforsecurity=False).hexdigest()

    def is_written_since(self, earlier: TableState) -> bool:
        """Whether the table was written after that state or, if nothing can tell, may have been."""
        if self.rows is not None and earlier.rows is not None:
            return self.rows != earlier.rows
        if (self.files, self.watermark) != (earlier.files, earlier.watermark):
            return True
        if self.statistics is not None and self.statistics == earlier.statistics:
            return self.counters != earlier.counters
        return self.watermark is None


class Observed(NamedTuple):
    """A state, and the data version that was reported with it."""

    state: TableState
    version: str

    def metadata(self) -> Mapping[str, Any]:
        """What the next observation reads."""
        return {TABLE_STATE: dg.MetadataValue.json(asdict(self.state))}


def observed(state: TableState, last: Observed | None) -> Observed | None:
    """The state with its data version, which stays the last one's until something is written.

    Args:
        state: What the observation sees.
        last: What the previous one saw, if any.

    Returns:
        None if nothing tells of writes, as for a view without a watermark.
    """
    version = state.version()
    if version is None:
        return None
    if last is not None and not state.is_written_since(last.state):
        version = last.version
    return Observed(state, version)


def last_observed(instance: dg.DagsterInstance, keys: Iterable[dg.AssetKey]) -> dict[dg.AssetKey, Observed]:
    """What the last observation of each asset saw, for those that were observed before."""
    found = {key: _last_observed(instance, key) for key in keys}
    return {key: last for key, last in found.items() if last is not None}


def last_version(instance: dg.DagsterInstance, key: dg.AssetKey) -> str | None:
    """The data version that an asset's observations told last; None if none did."""
    return next((version for version, _ in _versions(instance, key)), None)


def _last_observed(instance: dg.DagsterInstance, key: dg.AssetKey) -> Observed | None:
    for version, metadata in _versions(instance, key):
        if (state := _state_of(metadata)) is not None:
            return Observed(state, version)
    return None


def _versions(instance: dg.DagsterInstance, key: dg.AssetKey) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The data versions of the latest observations that tell one, with their metadata."""
    for record in instance.fetch_observations(key, limit=_LOOKED_AT).records:
        observation = record.asset_observation
        version = None if observation is None else (observation.tags or {}).get(_DATA_VERSION)
        if observation is not None and version is not None:
            yield version, observation.metadata


def _state_of(metadata: Mapping[str, Any]) -> TableState | None:
    saved = getattr(metadata.get(TABLE_STATE), "value", None)
    # Another release may have stored other fields; the next observation then reports a change.
    if not isinstance(saved, Mapping) or set(saved) != {field.name for field in fields(TableState)}:
        return None
    return TableState(**saved)
