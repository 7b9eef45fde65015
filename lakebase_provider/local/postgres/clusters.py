"""One cluster for all keys, until the branch `data` replaces this module."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lakebase_provider.local.postgres.postgres import Postgres


class HistoryError(ValueError):
    """The time or LSN lies outside of what is kept."""


@dataclass(frozen=True)
class Fork:
    """Where a copy begins."""

    lsn: str
    time: float


@dataclass(frozen=True)
class Snapshot(Fork):
    """What was kept."""

    full_size_bytes: int


class Clusters:
    """All keys lead to the one Postgres."""

    def __init__(self, root: Postgres) -> None:
        self.root = root

    def adopt(self, key: str) -> None:
        """Say whose the root is."""

    def cluster(self, key: str) -> Postgres:
        """The one."""
        return self.root

    def create(self, key: str) -> None:
        """Nothing is created."""

    def fork(self, key: str, source: str, *, at_time: float | None = None, at_lsn: str | None = None) -> Fork:
        """Nothing is copied."""
        [(lsn,)] = self.root.execute("SELECT pg_current_wal_lsn()::text")
        return Fork(at_lsn or lsn, at_time or time.time())

    def fork_snapshot(self, key: str, snapshot: str) -> Fork:
        """Nothing is copied."""
        return self.fork(key, snapshot)

    def snapshot(
        self, key: str, source: str, *, at_time: float | None = None, at_lsn: str | None = None
    ) -> Snapshot:
        """Nothing is kept."""
        fork = self.fork(key, source, at_time=at_time, at_lsn=at_lsn)
        return Snapshot(fork.lsn, fork.time, self.size(key))

    def standby(self, key: str, source: str) -> None:
        """Nothing is copied."""

    def start(self, key: str) -> None:
        """It runs."""

    def stop(self, key: str) -> None:
        """It runs on."""

    def drop(self, key: str) -> None:
        """It stays."""

    def size(self, key: str) -> int:
        """Bytes of all databases."""
        [(size,)] = self.root.execute("SELECT sum(pg_database_size(oid))::bigint FROM pg_database")
        return int(size)
