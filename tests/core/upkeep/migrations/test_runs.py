"""Runs of migrations on the local Lakebase."""

from __future__ import annotations

import asyncio
import logging
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from lakebase_provider.core import LakebaseClient, MigrationReport
from lakebase_provider.core.database import blockers
from lakebase_provider.core.errors import (
    ConfigError,
    LockTimeoutError,
    MigrationError,
    StatementTimeoutError,
    TransactionConflictError,
)
from lakebase_provider.core.upkeep.migrations.migrations import LEDGER, Migrations
from lakebase_provider.core.upkeep.migrations.sql_folder import read_folder
from tests.core.fake_clock import FakeClock
from tests.core.upkeep.migrations.conftest import Database, Write
from tests.eventually import eventually

A, B = "INSERT INTO log VALUES ('a')", "INSERT INTO log VALUES ('b')"


def states(report: MigrationReport) -> list[tuple[str, str]]:
    return [(file.name, file.state) for file in report.files]


def test_each_file_runs_once(client: LakebaseClient, database: Database, write: Write) -> None:
    folder = write(**{"0001_a": f"{A};\n{A};", "0002_b": B})
    planned = client.migrations.run(folder, dry_run=True)
    assert (states(planned), planned.dry_run) == (
        [("0001_a.sql", "pending"), ("0002_b.sql", "pending")],
        True,
    )
    assert database.rows("SELECT to_regclass('public.lakebase_migration')") == [(None,)]
    first = client.migrations.run(folder, target="0001")
    assert states(first) == [("0001_a.sql", "applied"), ("0002_b.sql", "pending")]
    assert [file.statements for file in first.applied] == [2]
    assert states(client.migrations.run(folder)) == [("0001_a.sql", "done"), ("0002_b.sql", "applied")]
    again = client.migrations.run(folder)
    assert (again.applied, again.pending, again.refused) == ((), (), ())
    assert database.rows("SELECT what FROM log ORDER BY 1") == [("a",), ("a",), ("b",)]
    told = client.migrations.status(folder).to_dict()["files"][0]
    assert (told["state"], told["applied_by"], told["in_transaction"]) == (
        "done",
        client.config.client_id,
        True,
    )
    assert told["applied_at"].startswith("20")


def test_a_file_that_fails_leaves_nothing(client: LakebaseClient, database: Database, write: Write) -> None:
    folder = write(**{"0001_a": A, "0002_b": f"{B};\n\nINSERT INTO log\nVALUES (1/0);"})
    with pytest.raises(MigrationError) as caught:
        client.migrations.run(folder)
    error = caught.value
    assert error.message.startswith("0002_b.sql:3: statement 2 of 2 (INSERT INTO) failed: DivisionByZero")
    assert (error.file, error.line, error.sqlstate, error.retryable) == ("0002_b.sql", 3, "22012", False)
    assert database.rows("SELECT what FROM log") == [("a",)]
    assert states(client.migrations.status(folder)) == [("0001_a.sql", "done"), ("0002_b.sql", "pending")]


def test_what_fails_shows_nothing_of_the_statement(client: LakebaseClient, write: Write) -> None:
    folder = write(**{"0001_a": "CREATE ROLE somebody PASSWORD 'dose-of-somebody' PASSWORT 'x'"})
    with pytest.raises(MigrationError) as caught:
        client.migrations.run(folder)
    assert "dose-of-somebody" not in "".join(traceback.format_exception(caught.value))


def test_what_fails_at_the_commit_is_told(client: LakebaseClient, database: Database, write: Write) -> None:
    folder = write(
        **{
            "0001_a": "CREATE TABLE p (n int PRIMARY KEY);"
            "CREATE TABLE c (n int REFERENCES p INITIALLY DEFERRED); INSERT INTO c VALUES (1)"
        }
    )
    with pytest.raises(MigrationError, match=r"0001_a.sql: the transaction failed: .*foreign key") as caught:
        client.migrations.run(folder)
    assert caught.value.sqlstate == "23503"
    assert database.rows("SELECT to_regclass('c')") == [(None,)]


def test_edited_and_deleted_files_are_refused(
    client: LakebaseClient, database: Database, write: Write, tmp_path: Path
) -> None:
    folder = write(**{"0001_a": A, "0002_b": B, "0003_c": A})
    client.migrations.run(folder)
    write(**{"0001_a": f"{A} -- better", "0004_d": B})
    (tmp_path / "0003_c.sql").unlink()
    write(**{"0003_other": B})
    with pytest.raises(MigrationError) as caught:
        client.migrations.run(folder)
    assert caught.value.message == (
        "Nothing was run: 0001_a.sql was edited after it ran; 0003_other.sql was edited after it ran."
    )
    (tmp_path / "0003_other.sql").unlink()
    (tmp_path / "0004_d.sql").unlink()
    with pytest.raises(MigrationError, match=r"0003_c.sql has run and is missing from the folder"):
        client.migrations.run(folder)
    assert states(client.migrations.status(folder)) == [
        ("0001_a.sql", "edited"),
        ("0002_b.sql", "done"),
        ("0003_c.sql", "missing"),
    ]
    assert database.rows("SELECT count(*) FROM log") == [(3,)]
    # Other line ends, as git may write them, are no edit.
    write(**{"0001_a": A, "0003_c": A})
    (tmp_path / "0001_a.sql").write_bytes(A.encode())
    assert client.migrations.run(folder).pending == ()


def test_files_out_of_order_are_refused_unless_told(
    client: LakebaseClient, database: Database, write: Write
) -> None:
    folder = write(**{"20240101_a": A, "20240301_c": A})
    client.migrations.run(folder)
    write(**{"20240201_b": B})
    with pytest.raises(MigrationError, match=r"20240201_b.sql comes before one that has run"):
        client.migrations.run(folder)
    assert client.migrations.status(folder).refused[0].state == "out_of_order"
    assert [f.name for f in client.migrations.run(folder, out_of_order=True).applied] == ["20240201_b.sql"]
    assert client.migrations.status(folder).refused == ()


def test_a_baseline_is_entered_without_being_run(
    client: LakebaseClient, database: Database, write: Write
) -> None:
    folder = write(**{"0001_a": A, "0002_b": A, "0003_c": B})
    planned = client.migrations.run(folder, baseline="0002", dry_run=True)
    assert [file.state for file in planned.files] == ["baseline", "baseline", "pending"]
    for _ in range(2):
        client.migrations.run(folder, baseline=2)
    assert [file.state for file in client.migrations.status(folder).files] == ["baseline", "baseline", "done"]
    assert database.rows("SELECT what FROM log") == [("b",)]
    write(**{"0004_d": B})
    with pytest.raises(MigrationError, match="has entries already"):
        client.migrations.run(folder, baseline=4)
    with pytest.raises(MigrationError, match="has entries already"):
        client.migrations.run(folder, baseline=4, dry_run=True)


def test_another_ledger(client: LakebaseClient, database: Database, write: Write) -> None:
    folder = write(
        **{"0001_a": "SET search_path TO elsewhere; CREATE SCHEMA elsewhere; CREATE TABLE t (n int)"}
    )
    client.migrations.run(folder, ledger='ops."100% ledger"')
    assert client.migrations.run(folder, ledger=("ops", "100% ledger")).applied == ()
    assert database.rows('SELECT name FROM ops."100% ledger"') == [("0001_a.sql",)]
    assert database.rows("SELECT to_regclass('public.lakebase_migration')") == [(None,)]


def test_arguments_that_make_no_sense(client: LakebaseClient, write: Write) -> None:
    folder = write(**{"0001_a": "SELECT 1"})
    for wrong in ({"target": 2}, {"baseline": "x"}, {"attempts": 0}, {"attempts": 1.5}, {"lock_timeout": 0}):
        with pytest.raises(ConfigError):
            client.migrations.run(folder, **wrong)  # type: ignore[arg-type]


def test_no_file_inherits_a_session(client: LakebaseClient, database: Database, write: Write) -> None:
    folder = write(
        **{
            "0001_a": "SET lock_timeout = '1h'; SET search_path TO pg_catalog; CREATE TEMP TABLE log (n int)",
            "0002_b": "INSERT INTO log SELECT current_setting('lock_timeout')",
        }
    )
    client.migrations.run(folder, lock_timeout=7)
    assert database.rows("SELECT what FROM log") == [("7s",)]


def test_a_role_that_a_file_sets_does_not_write_the_ledger(
    client: LakebaseClient, database: Database, write: Write
) -> None:
    folder = write(
        **{
            "0001_a": "SET ROLE nobody_here; SELECT 1",
            "0002_b": "SET ROLE nobody_here; VACUUM (SKIP_LOCKED) log; SELECT 2",
        }
    )
    database.rows("CREATE ROLE nobody_here")
    database.rows("GRANT nobody_here TO CURRENT_USER")
    try:
        client.migrations.run(folder)
    finally:
        database.rows("DROP ROLE nobody_here")
    assert client.migrations.status(folder).pending == ()


# Locks, and others.


def test_a_lock_that_goes_away_is_waited_for(
    client: LakebaseClient, patient: Migrations, database: Database, write: Write, clock: FakeClock
) -> None:
    folder = write(**{"0001_a": f"{A};\nALTER TABLE log ADD n int"})
    with client.connect() as blocker:
        blocker.execute("SELECT FROM log")
        clock.sleep = lambda seconds: (clock.advance(seconds), blocker.rollback())[0]  # type: ignore[method-assign]
        assert states(patient.run(folder, lock_timeout=0.2)) == [("0001_a.sql", "applied")]
    assert clock.passed >= 0.5
    assert database.rows("SELECT what FROM log") == [("a",)]


def test_a_lock_that_stays_is_told_with_its_holder(
    client: LakebaseClient, patient: Migrations, database: Database, write: Write, clock: FakeClock
) -> None:
    folder = write(**{"0001_a": f"{A};\nALTER TABLE log ADD n int"})
    with client.connect() as blocker:
        blocker.execute("SELECT FROM log")
        pid = blocker.info.backend_pid
        with pytest.raises(LockTimeoutError) as caught:
            patient.run(folder, lock_timeout=1, attempts=3)
    assert caught.value.message.startswith("0001_a.sql:2: statement 2 of 2 (ALTER TABLE): The lock was not")
    assert f"pid {pid}" in caught.value.message
    assert caught.value.message.endswith("Attempts: 3.")
    assert len(clock.slept) == 2
    assert database.rows("SELECT what FROM log") == []


def test_a_transaction_that_is_undone_for_others_is_tried_again(
    patient: Migrations, database: Database, write: Write, clock: FakeClock
) -> None:
    database.rows("CREATE SEQUENCE tries")
    conflict = "DO $$ BEGIN IF nextval('tries') < {} THEN RAISE 'x' USING ERRCODE = '40P01'; END IF; END $$"
    assert patient.run(write(**{"0001_a": f"{A};{conflict.format(3)}"})).applied
    assert database.rows("SELECT what FROM log") == [("a",)]
    with pytest.raises(TransactionConflictError, match=r"0002_b.sql:1: statement 1 of 1"):
        patient.run(write(**{"0002_b": conflict.format(99)}), attempts=2)
    assert len(clock.slept) == 3


def test_a_statement_that_takes_too_long(client: LakebaseClient, write: Write) -> None:
    folder = write(**{"0001_a": "SELECT pg_sleep(60)"})
    with pytest.raises(StatementTimeoutError, match=r"0001_a.sql:1: statement 1 of 1"):
        client.migrations.run(folder, statement_timeout=0.1)


def test_the_limit_of_a_statement_is_the_files_to_set(
    client: LakebaseClient, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockers, "_GRACE", 0.1)
    folder = write(**{"0001_a": "SET statement_timeout TO 0; SELECT pg_sleep(0.5)"})
    assert client.migrations.run(folder, statement_timeout=0.1).applied


def test_a_session_that_is_lost_is_no_matter_of_grants(client: LakebaseClient) -> None:
    with (
        pytest.raises(MigrationError, match="The session was lost: gone") as caught,
        client.migrations._session(LEDGER, 10),
    ):
        raise psycopg.OperationalError("gone")
    assert caught.value.retryable
    assert "Grant" not in caught.value.remedy


def test_what_was_begun_is_not_forgotten_before_it_was_looked_at(
    client: LakebaseClient, database: Database, write: Write
) -> None:
    folder = write(**{"0001_a": "CREATE INDEX CONCURRENTLY log_what ON log (what);\nVACUUM absent"})
    with pytest.raises(MigrationError, match="statement 2 of 2"):
        client.migrations.run(folder)
    # As a run leaves it that is killed in the middle of the build.
    [file] = read_folder(folder)
    database.rows(
        f"UPDATE lakebase_migration SET statement = 0, begun = true, checksum = '{file.checksum_of_first(1)}'"
    )
    database.rows("DROP INDEX log_what")
    with client.connect(autocommit=True) as one, client.connect() as old, ThreadPoolExecutor() as pool:
        old.execute("INSERT INTO log VALUES ('x')")
        done = pool.submit(one.execute, "CREATE INDEX CONCURRENTLY log_what ON log (what)")
        eventually(database.waits)
        with pytest.raises(MigrationError, match="is being built by another session"):
            client.migrations.run(folder)
        old.rollback()
        done.result()
    assert database.rows("SELECT statement, begun FROM lakebase_migration") == [(0, True)]


def test_a_run_that_takes_too_long_says_what_it_waited_for(
    client: LakebaseClient, database: Database, write: Write
) -> None:
    folder = write(**{"0001_a": "ALTER TABLE log ADD n int"})
    with client.connect() as blocker:
        blocker.execute("SELECT FROM log")
        with pytest.raises(MigrationError, match=r"was not done within 4 s\. It waited for a lock") as caught:
            client.migrations.run(folder, lock_timeout=60, timeout=4)
        assert f"pid {blocker.info.backend_pid}" in caught.value.message
        assert caught.value.retryable


def test_two_runs_at_once_follow_each_other(
    client: LakebaseClient, database: Database, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = write(**{"0001_a": f"{A};LOCK TABLE gate", "0002_b": B})
    database.rows("CREATE TABLE gate (n int)")
    with client.connect() as gate, ThreadPoolExecutor() as pool:
        gate.execute("LOCK TABLE gate")
        first = pool.submit(client.migrations.run, folder, lock_timeout=60)
        eventually(database.waits)
        with pytest.raises(MigrationError, match=r"Another run .* for all of 2 s: pid \d+") as caught:
            client.migrations.run(folder, timeout=2)
        assert caught.value.retryable
        second = pool.submit(client.migrations.run, folder)
        eventually(lambda: caplog.text.count("Waiting for another run") == 2)
        gate.rollback()
        assert len(first.result().applied) == 2
        assert second.result().applied == ()
    assert database.rows("SELECT what FROM log ORDER BY 1") == [("a",), ("b",)]


def test_asyncio(client: LakebaseClient, database: Database, write: Write) -> None:
    folder = write(**{"0001_a": f"{A};LOCK TABLE gate;{B}"})
    database.rows("CREATE TABLE gate (n int)")

    async def cancel_while_it_waits() -> None:
        with client.connect() as gate:
            gate.execute("LOCK TABLE gate")
            running = asyncio.create_task(client.migrations.arun(folder, lock_timeout=60))
            await asyncio.to_thread(eventually, database.waits)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    asyncio.run(cancel_while_it_waits())
    assert database.rows("SELECT what FROM log") == []
    assert asyncio.run(client.migrations.astatus(folder)).pending
    assert asyncio.run(client.migrations.arun(folder)).applied


def test_the_log_tells_each_statement_and_no_values(
    client: LakebaseClient, database: Database, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="lakebase_provider.core.upkeep")
    client.migrations.run(write(**{"0001_a": f"{A};\nINSERT INTO log VALUES ('canary')"}))
    said = [record.getMessage() for record in caplog.records]
    assert "0001_a.sql:2: statement 2 of 2, INSERT INTO" in said
    assert any(line.startswith("0001_a.sql:2: statement 2 of 2: 0.") for line in said)
    assert "canary" not in caplog.text


# Outside of a transaction.


def test_what_cannot_run_in_a_transaction_runs_by_itself(
    client: LakebaseClient, database: Database, write: Write
) -> None:
    folder = write(
        **{
            "0001_a": f"CREATE TYPE mood AS ENUM ('ok'); {A}",
            "0002_b": "SET search_path TO public;\nCREATE INDEX CONCURRENTLY log_what ON log (what);\n"
            "ALTER TYPE mood ADD VALUE 'sad';\nALTER TABLE log ADD mood mood DEFAULT 'sad';\nVACUUM log",
        }
    )
    try:
        report = client.migrations.run(folder)
        assert [file.in_transaction for file in report.applied] == [True, False]
        assert database.rows("SELECT mood FROM log") == [("sad",)]
        assert database.rows("SELECT statement, begun, state FROM lakebase_migration WHERE version = 2") == [
            (5, False, "done")
        ]
    finally:
        database.rows("DROP TYPE mood CASCADE")


def test_a_failed_file_goes_on_after_what_is_done_and_may_be_mended(
    client: LakebaseClient, database: Database, write: Write
) -> None:
    head = f"SET search_path TO elsewhere, public;\n{A};\nCREATE SCHEMA elsewhere;\n"
    folder = write(**{"0001_a": f"{head}CREATE TABLE t (n int);\nVACUUM absent;\n{B}"})
    with pytest.raises(MigrationError, match=r"0001_a.sql:5: statement 5 of 6 \(VACUUM\) failed"):
        client.migrations.run(folder)
    report = client.migrations.status(folder)
    assert [(file.state, file.detail) for file in report.pending] == [("part", "4 of 6 are done")]
    # What has run is not to be edited.
    write(**{"0001_a": f"{head}CREATE TABLE u (n int);\nVACUUM t;\n{B}"})
    with pytest.raises(MigrationError, match=r"0001_a.sql was edited"):
        client.migrations.run(folder)
    write(**{"0001_a": f"{head}CREATE TABLE t (n int);\nVACUUM t;\nCREATE TABLE u (n int);\n{B}"})
    assert client.migrations.run(folder).applied
    assert database.rows("SELECT what FROM log ORDER BY 1") == [("a",), ("b",)]
    # By the search path that the first statement set in another session.
    assert database.rows("SELECT to_regclass('elsewhere.u') IS NOT NULL") == [(True,)]


def test_a_file_is_done_when_the_statement_that_failed_is_removed(
    client: LakebaseClient, database: Database, write: Write
) -> None:
    folder = write(**{"0001_a": f"{A};\nVACUUM log;\nVACUUM absent"})
    with pytest.raises(MigrationError, match="statement 3 of 3"):
        client.migrations.run(folder)
    write(**{"0001_a": f"{A};\nVACUUM log"})
    assert client.migrations.run(folder).applied
    assert states(client.migrations.status(folder)) == [("0001_a.sql", "done")]


def test_the_removal_of_what_was_left_ends_in_time(
    client: LakebaseClient, database: Database, write: Write
) -> None:
    database.rows("INSERT INTO log VALUES ('x'), ('x')")
    build = "CREATE UNIQUE INDEX CONCURRENTLY log_what ON log (what)"
    with pytest.raises(psycopg.errors.UniqueViolation):
        database.rows(build)
    with client.connect() as blocker:
        blocker.execute("SELECT FROM log")
        with pytest.raises(MigrationError, match=r"was not done within 4 s\. It waited for a lock"):
            client.migrations.run(write(**{"0001_a": build}), timeout=4)


def test_an_invalid_index_is_dropped_and_built_again(
    client: LakebaseClient, database: Database, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    database.rows("INSERT INTO log VALUES ('x'), ('x')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        database.rows('CREATE UNIQUE INDEX CONCURRENTLY "Unique" ON log (what)')
    invalid = (
        "SELECT count(*) FILTER (WHERE NOT indisvalid), count(*) FROM pg_index"
        " WHERE indrelid = 'log'::regclass"
    )
    assert database.rows(invalid) == [(1, 1)]
    folder = write(
        **{"0001_a": 'CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "Unique" ON public.log (what)'}
    )
    with pytest.raises(MigrationError, match="could not create unique index"):
        client.migrations.run(folder)
    # It would go on refusing what is written.
    assert database.rows(invalid) == [(0, 0)]
    database.rows("DELETE FROM log WHERE ctid <> (SELECT min(ctid) FROM log)")
    assert client.migrations.run(folder).applied
    assert database.rows(invalid) == [(0, 1)]
    assert "Dropping the invalid index public.Unique" in caplog.text


def test_what_a_failed_rebuild_left_is_dropped(
    client: LakebaseClient, database: Database, write: Write
) -> None:
    database.rows("CREATE INDEX log_what ON log (what)")
    with client.connect(autocommit=True) as rebuilding, client.connect() as old, ThreadPoolExecutor() as pool:
        old.execute("INSERT INTO log VALUES ('y')")
        done = pool.submit(rebuilding.execute, "REINDEX INDEX CONCURRENTLY log_what")
        eventually(database.waits)
        rebuilding.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            done.result()
    names = "SELECT relname FROM pg_class WHERE relname LIKE 'log\\_what%' ORDER BY 1"
    assert database.rows(names) == [("log_what",), ("log_what_ccnew",)]
    assert client.migrations.run(write(**{"0001_a": "REINDEX INDEX CONCURRENTLY log_what"})).applied
    assert database.rows(names) == [("log_what",)]


@pytest.mark.parametrize("change", ["TABLE CONCURRENTLY p", "INDEX CONCURRENTLY p_n"])
def test_what_a_failed_rebuild_left_at_a_partition_is_dropped(
    client: LakebaseClient, database: Database, write: Write, change: str
) -> None:
    database.rows("CREATE TABLE p (n int) PARTITION BY LIST (n)")
    database.rows("CREATE TABLE q PARTITION OF p FOR VALUES IN (1)")
    database.rows("CREATE INDEX p_n ON p (n)")
    with client.connect(autocommit=True) as one, client.connect() as old, ThreadPoolExecutor() as pool:
        # Its snapshot is waited for; a lock would be asked for before anything is built.
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        old.execute("SELECT FROM q")
        done = pool.submit(one.execute, f"REINDEX {change}".encode())
        eventually(database.waits)
        one.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            done.result()
    invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
    assert database.rows(invalid) == [(1,)]
    assert client.migrations.run(write(**{"0001_a": f"REINDEX {change}"})).applied
    assert database.rows(invalid) == [(0,)]


def test_a_pending_detachment_is_finalized(client: LakebaseClient, database: Database, write: Write) -> None:
    database.rows("CREATE TABLE p (n int) PARTITION BY LIST (n)")
    database.rows("CREATE TABLE q PARTITION OF p FOR VALUES IN (1)")
    detach = "ALTER TABLE p DETACH PARTITION q CONCURRENTLY"
    with client.connect(autocommit=True) as one, client.connect() as old, ThreadPoolExecutor() as pool:
        old.execute("SELECT FROM p")
        done = pool.submit(one.execute, detach)
        eventually(database.waits)
        one.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            done.result()
    assert database.rows("SELECT inhdetachpending FROM pg_inherits") == [(True,)]
    assert client.migrations.run(write(**{"0001_a": detach})).applied
    assert database.rows("SELECT count(*) FROM pg_inherits") == [(0,)]
