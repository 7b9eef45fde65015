"""Runs that are killed (SIGKILL) in the middle of a file, and run again: exactly once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lakebase_provider.core import LakebaseClient
from tests.core.upkeep.migrations.conftest import Database, Write
from tests.eventually import eventually

#: Waits until the test lets the n-th through.
PASS = "SELECT FROM gate WHERE n = {} FOR SHARE"


@contextmanager
def run_held_at(client: LakebaseClient, database: Database, folder: Path, lock: str) -> Iterator[None]:
    """A run in a process of its own, which waits for that lock, and is killed while it does."""
    words = [sys.executable, "-m", "tests.core.upkeep.migrations.killed_run", str(folder)]
    with client.connect() as holder:
        holder.execute(lock.encode())
        process = subprocess.Popen(words)
        try:
            eventually(database.waits, within=30)
        finally:
            process.kill()
            process.wait()
        yield


@pytest.fixture
def gate(database: Database) -> Database:
    database.rows("CREATE TABLE gate (n int)")
    database.rows("INSERT INTO gate VALUES (1), (2), (3)")
    return database


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("last", ["SELECT 1", "VACUUM gate"], ids=["in a transaction", "step by step"])
def test_a_file_that_is_killed_takes_place_exactly_once(
    client: LakebaseClient, gate: Database, write: Write, at: int, last: str
) -> None:
    steps = ";\n".join(f"INSERT INTO log VALUES ('{n}');\n{PASS.format(n)}" for n in (1, 2, 3))
    folder = write(**{"0001_a": f"{steps};\n{last}"})
    with run_held_at(client, gate, folder, f"SELECT FROM gate WHERE n = {at} FOR UPDATE"):
        pass
    assert client.migrations.run(folder, timeout=30).applied
    assert gate.rows("SELECT what FROM log ORDER BY 1") == [("1",), ("2",), ("3",)]
    assert client.migrations.run(folder).applied == ()


@pytest.mark.parametrize(
    "change",
    [
        "CREATE INDEX CONCURRENTLY log_new ON log (what)",
        "REINDEX INDEX CONCURRENTLY log_old",
        "DROP INDEX CONCURRENTLY log_old",
    ],
)
def test_a_concurrent_change_that_is_killed_takes_place_exactly_once(
    client: LakebaseClient, gate: Database, write: Write, change: str
) -> None:
    gate.rows("CREATE INDEX log_old ON log (what)")
    folder = write(**{"0001_a": f"INSERT INTO log VALUES ('a');\n{change};\nINSERT INTO log VALUES ('b')"})
    with run_held_at(client, gate, folder, "INSERT INTO log VALUES ('other')"):
        pass
    assert client.migrations.run(folder, timeout=30).applied
    assert gate.rows("SELECT what FROM log WHERE what <> 'other' ORDER BY 1") == [("a",), ("b",)]
    assert gate.rows("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]
    expected = {"CREATE": ["log_new", "log_old"], "REINDEX": ["log_old"], "DROP": []}[change.split()[0]]
    found = gate.rows(
        "SELECT relname FROM pg_class WHERE relkind = 'i' AND relname LIKE 'log\\_%' ORDER BY 1"
    )
    assert [name for (name,) in found] == expected


def test_what_was_done_when_it_was_killed_is_not_done_again(
    client: LakebaseClient, gate: Database, write: Write
) -> None:
    """As if the kill had come between the end of a build, and the note of it."""
    folder = write(**{"0001_a": "CREATE INDEX CONCURRENTLY log_new ON log (what);\nVACUUM log"})
    with run_held_at(client, gate, folder, "INSERT INTO log VALUES ('other')"):
        pass
    eventually(lambda: gate.rows("SELECT state, begun FROM lakebase_migration") == [("part", True)])
    eventually(lambda: not gate.waits())
    gate.rows("DROP INDEX log_new")
    gate.rows("CREATE INDEX log_new ON log (what)")
    [[before]] = gate.rows("SELECT 'log_new'::regclass::oid")
    assert client.migrations.run(folder, timeout=30).applied
    assert gate.rows("SELECT 'log_new'::regclass::oid") == [(before,)]
