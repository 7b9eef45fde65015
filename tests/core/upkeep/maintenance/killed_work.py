"""Maintenance in a process of its own, which is killed at some moment of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime, timezone
from multiprocessing.connection import Connection

from lakebase_provider.core import LakebaseClient, LakebaseConfig

#: What is done: each has a phase of its own.
PHASES = ("index", "partitioned index", "rebuild", "view", "partitions", "drop")
AT = datetime(2027, 3, 15, tzinfo=timezone.utc)


def all_of_it(client: LakebaseClient, folder: str, says: Connection | None = None) -> None:
    """Each kind of work whose kill leaves something behind."""
    maintenance = client.maintenance

    def begin(phase: str) -> None:
        if says is not None:
            says.send(phase)

    begin("index")
    maintenance.create_index("orders", ["day", "total"])
    begin("partitioned index")
    maintenance.create_index("events", ["what"])
    begin("rebuild")
    maintenance.reindex("orders")
    begin("view")
    maintenance.refresh("days")
    begin("partitions")
    archive = f"{folder}/{{partition}}.parquet"
    maintenance.partitions("events", every="month", premake=1, keep=0, archive=archive, at=AT)
    begin("drop")
    maintenance.drop_index("orders_day_total_idx")


def work(says: Connection, environment: Mapping[str, str], folder: str) -> None:
    """Do all of it, and say what begins."""
    os.environ.update(environment)
    with LakebaseClient(LakebaseConfig.from_env()) as client:
        all_of_it(client, folder, says)
        says.send("done")
