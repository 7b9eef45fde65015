"""Branches of the local Lakebase by the size of their data: `make bench-branches`."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psycopg
from databricks.sdk import WorkspaceClient

from benchmarks.harness import Bench
from lakebase_provider.local import LocalLakebase

_API = "/api/2.0/postgres"
_PROJECT = "projects/local"
_PRODUCTION = f"{_PROJECT}/branches/production"
_PRIMARY = f"{_PRODUCTION}/endpoints/primary"
#: Megabytes of table and index.
_SIZES = (10, 100, 1000)
_ROUNDS = 5
_IDLE = 10
#: Bytes of a row with its place in the index, and how many rows that makes of a megabyte.
_FILL = "CREATE TABLE filled AS SELECT i, repeat('x', 200) AS s FROM generate_series(1, %s) AS i"
_ROWS = 4_100


class Branches:
    """Branches of one local Lakebase; each step returns the seconds that it took."""

    def __init__(self, lake: LocalLakebase) -> None:
        self._lake = lake
        self._api = WorkspaceClient(
            host=lake.env()["DATABRICKS_HOST"], client_id=lake.client_id, client_secret=lake.client_secret
        ).api_client
        self.token = self._api.do("POST", f"{_API}/credentials", body={"endpoint": _PRIMARY})["token"]

    def create(self, branch_id: str, **spec: Any) -> float:
        """From the request until the operation is done."""
        body = {"spec": {"no_expiry": True, **spec}}
        query = {"branch_id": branch_id}
        start = time.perf_counter()
        self._await(self._api.do("POST", f"{_API}/{_PROJECT}/branches", query=query, body=body))
        return time.perf_counter() - start

    def delete(self, branch_id: str) -> None:
        path = f"{_API}/{_PROJECT}/branches/{branch_id}"
        self._await(self._api.do("DELETE", path, query={"purge": "true"}))

    def _await(self, operation: Any) -> None:
        while not operation["done"]:
            time.sleep(0.005)  # asking is work for the server that is measured
            operation = self._api.do("GET", f"{_API}/{operation['name']}")
        assert "error" not in operation, operation

    def endpoint(self, branch_id: str) -> str:
        return f"{_PROJECT}/branches/{branch_id}/endpoints/primary"

    def count(self, branch_id: str, table: str = "filled") -> tuple[float, int]:
        """A login and a look at the table; the look is not counted."""
        host = self._api.do("GET", f"{_API}/{self.endpoint(branch_id)}")["status"]["hosts"]["host"]
        start = time.perf_counter()
        with psycopg.connect(
            host=host,
            port=self._lake.port,
            dbname="databricks_postgres",
            user=self._lake.client_id,
            password=self.token,
            sslmode="verify-full",
            sslrootcert=self._lake.ca_path,
        ) as connection:
            seconds = time.perf_counter() - start
            row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()  # noqa: S608
        assert row is not None
        return seconds, row[0]

    def wake(self, branch_id: str) -> float:
        """A login at a suspended branch."""
        self._lake.admin.suspend(self.endpoint(branch_id))
        return self.count(branch_id)[0]


@contextmanager
def filled(megabytes: int) -> Iterator[tuple[LocalLakebase, Branches, str]]:
    """A local Lakebase with that much data, and the moment before a last row was deleted."""
    with LocalLakebase() as lake:
        branches = Branches(lake)
        execute = lake.admin.execute
        execute("CREATE ROLE everybody; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC")
        execute(_FILL, (megabytes * _ROWS,))
        moment = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        execute("DELETE FROM filled WHERE i = 1")
        yield lake, branches, moment


def measure(bench: Bench, megabytes: int) -> dict[str, float]:
    """All steps at one size: medians by step."""
    found: dict[str, list[float]] = {}
    with filled(megabytes) as (_, branches, moment):
        rows = megabytes * _ROWS
        for number in range(_ROUNDS + 1):
            figures = {"create": branches.create("head")}
            figures["first login"], count = branches.count("head")
            assert count == rows - 1
            figures["wake"] = branches.wake("head")
            branches.delete("head")
            figures["point in time"] = branches.create(
                "then", source_branch=_PRODUCTION, source_branch_time=moment
            )
            assert branches.count("then")[1] == rows
            branches.delete("then")
            if number:
                for name, figure in figures.items():
                    found.setdefault(name, []).append(figure)
    for name, values in found.items():
        bench.record_many(name, f"{megabytes} MB", values, "s")
    return {name: statistics.median(values) for name, values in found.items()}


def memory(bench: Bench) -> float:
    """Megabytes of each of ten branches that nobody uses, pages that they share counted in parts."""
    with filled(100) as (lake, branches, _):
        lake.admin.set(unarchived_branch_limit=_IDLE + 1)
        for number in range(_IDLE):
            branches.create(f"idle-{number}")
            branches.count(f"idle-{number}")
        folder = Path(lake.running.folder, "c")
        sizes = [proportional(found) for found in sorted(folder.glob("*/postgres/data/postmaster.pid"))]
    assert len(sizes) == _IDLE
    bench.record_many("memory when idle", f"each of {_IDLE} branches", sizes, "MB")
    return max(sizes)


def proportional(pid_file: Path) -> float:
    """Megabytes of a server and its processes (PSS)."""
    server = int(pid_file.read_text().splitlines()[0])
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    total = 0
    for process in (server, *map(int, children)):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def main() -> int:
    """Measure, print, and compare with the goals."""
    bench = Bench("branches")
    steps = {size: measure(bench, size) for size in _SIZES}
    largest = memory(bench)
    bench.at_most("create at 100 MB, seconds", steps[100]["create"], 1.0)
    bench.at_most(
        "create at 1000 MB by 100 MB (10 is proportional)", steps[1000]["create"] / steps[100]["create"], 10.0
    )
    bench.at_most("wake, seconds, at any size", max(found["wake"] for found in steps.values()), 0.7)
    bench.at_most("largest of the idle branches, MB", largest, 30.0)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(main())
