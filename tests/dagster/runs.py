"""What the tests of the Dagster side have in common."""

from __future__ import annotations

import os
from typing import Any

import dagster as dg

from lakebase_provider.local import LocalLakebase


def materialize(assets: list[Any], **arguments: Any) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(assets, instance=instance, **arguments)


def open_connections(lake: LocalLakebase) -> int:
    """Sessions that the server has under the test's application name."""
    rows = lake.admin.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND pid <> pg_backend_pid()",
        [os.environ["PGAPPNAME"]],
    )
    return int(rows[0][0])


def causes(error: BaseException) -> list[BaseException]:
    """The error and what led to it."""
    chain: list[BaseException] = []
    step: BaseException | None = error
    # Dagster raises the author's error from what it made of it, so that the chain may be a ring.
    while step is not None and not any(step is seen for seen in chain):
        chain.append(step)
        step = step.__cause__ or step.__context__
    return chain
