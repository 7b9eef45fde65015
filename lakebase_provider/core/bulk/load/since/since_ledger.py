"""From the version of a Delta table that the ledger holds for a table, to the newest one.

A load notes the version that the table then has as the end of its id, such as
``delta:/lake/orders#53d2…@12``, in the transaction in which it changes the table: so the version in the
ledger is the one that the table has, whatever becomes of the process. Whoever comes second waits for the
first, and finds its version.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lakebase_provider.core.bulk.load.ledger import Ledger
from lakebase_provider.core.bulk.load.plan import LoadPlan
from lakebase_provider.core.bulk.sources.delta.changes import Changes
from lakebase_provider.core.bulk.sources.delta.opened import REPLACE, OpenDelta, is_delta, open_delta
from lakebase_provider.core.database.catalog import TableName
from lakebase_provider.core.errors import ChangesUnavailableError, ConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Increment:
    """What is to be loaded.

    Attributes:
        source: The source.
        plan: How, with the id that the ledger is to hold.
        fallback: The source and the plan if the changes turn out to be unreadable; None if that is an error.
    """

    source: Any
    plan: LoadPlan
    fallback: tuple[Any, LoadPlan] | None = None


def since_ledger(source: Any, plan: LoadPlan, ledger: Ledger, name: TableName) -> Increment:
    """What a table lacks of a Delta table; other loads of the two wait until the transaction ends.

    Args:
        source: A Delta table, as loads take it.
        plan: The plan, with ``since``.
        ledger: The table's ledger.
        name: The table.

    Raises:
        ConfigError: The source is no Delta table, or cannot be read.
        ChangesUnavailableError: The changes since the version in the ledger are not known, and the plan does
            not say to replace all rows then.
        LoadInterruptedError: Another load of the two took longer than the session's lock_timeout.
    """
    if not is_delta(source):
        raise ConfigError(
            f"since= needs a Delta table, and the source is a {type(source).__name__}.",
            remedy="Give 'delta:' and the table's path, or load without since=.",
        )
    table = open_delta(source)
    ledger.wait(name, f"delta:{table.place}")
    table.refresh()
    stream = f"{table.id}{_fingerprint(table.filter, plan.columns)}"
    noted = ledger.newest_id(name, f"delta:{table.place}#", f"#{table.id}")
    next_id = f"delta:{table.place}#{stream}@{table.version}"
    merge = replace(plan, since=None, fallback=None, load_id=next_id)
    # Keys are an option of merges, and of tables that are to be created.
    keys = plan.keys if plan.create else None
    whole = replace(merge, mode="replace", delete="none", keys=keys)
    fallback = (table, whole) if plan.fallback == "replace" else None
    if noted is None:
        logger.info("The ledger holds no version of %s for %s: loading all rows.", table.name, name)
        return Increment(table, merge if fallback is None else whole)
    try:
        known = _known(noted, stream, table)
        if known >= table.version:
            return Increment(table, replace(merge, load_id=noted))
        table.require_changes(known)
    except ChangesUnavailableError as error:
        if fallback is None:
            raise
        logger.warning("Replacing all rows of %s: %s", name, error.message)
        return Increment(*fallback)
    logger.info("Loading the changes of %s from version %d to %d.", table.name, known + 1, table.version)
    return Increment(Changes(table, known, plan.columns), merge, fallback)


def _fingerprint(filter: str | None, columns: Sequence[str] | None) -> str:
    """What tells apart loads of other rows or columns of the same table; "" for all of them."""
    if filter is None and columns is None:
        return ""
    text = json.dumps([filter, None if columns is None else sorted(columns)])
    return f"/{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _known(noted: str, stream: str, table: OpenDelta) -> int:
    """The version in an id of the ledger."""
    found, _, version = noted.rpartition("#")[2].rpartition("@")
    if found == stream:
        return int(version)
    if found.partition("/")[0] == table.id:
        what = "were loaded with another filter or other columns, so its changes do not tell what is missing"
    else:
        what = "are of another table at its place, which was replaced since"
    raise ChangesUnavailableError(
        f"The rows of {table.name}, version {version}, that the ledger holds {what}.", remedy=REPLACE
    )
