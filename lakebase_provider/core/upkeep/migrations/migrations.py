"""The way to a client's migrations: ``client.migrations``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from lakebase_provider.core.base.clock import Clock, Deadline
from lakebase_provider.core.config import LakebaseConfig, arguments
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.connect.target import Target
from lakebase_provider.core.database.catalog import TableName
from lakebase_provider.core.database.refusals import connection_lost
from lakebase_provider.core.database.structure.catalog_diff import CatalogDiff
from lakebase_provider.core.database.structure.catalog_diff import diff as diff_dumps
from lakebase_provider.core.database.structure.catalog_dump import CatalogDump, dump_catalog
from lakebase_provider.core.errors import ConfigError, LakebaseError, MigrationError
from lakebase_provider.core.errors.remedy import Remedy, offered
from lakebase_provider.core.tokens.cache import TokenProvider
from lakebase_provider.core.upkeep.migrations import foreign_commands
from lakebase_provider.core.upkeep.migrations.foreign_commands import CommandReport
from lakebase_provider.core.upkeep.migrations.migration_ledger import TABLE, Entry, MigrationLedger
from lakebase_provider.core.upkeep.migrations.migration_report import (
    FileState,
    MigrationFile,
    MigrationReport,
    Rehearsed,
)
from lakebase_provider.core.upkeep.migrations.runs import MigrationRun, RunOptions, keep_others_out
from lakebase_provider.core.upkeep.migrations.sql_folder import SqlFile, read_folder
from lakebase_provider.core.upkeep.migrations.squawk import lint as ask_squawk
from lakebase_provider.core.upkeep.programs.program_environment import (
    program_environment,
    tls_of_programs,
)
from lakebase_provider.core.workspace.objects.object_kind import in_thread

#: The ledger, unless another one is named.
LEDGER = TableName(TABLE, "public")
#: Seconds that a run may take, unless told otherwise.
_TIMEOUT = 3600.0
_GRANT = "Grant the role what the message names, or give a ledger in another schema."
#: By SQLSTATE: no privilege, and no such schema.
_REMEDIES: dict[str | None, str] = {"42501": _GRANT, "3F000": _GRANT}
_Folder = str | os.PathLike[str]
_LATER = Remedy(
    "Give the file a later version, or run it with out_of_order=True.",
    options=("out_of_order",),
    otherwise="Give the file a later version, or run it with --out-of-order.",
)


class Migrations:
    """Runs SQL files in their order, each exactly once, and compares what stands in databases.

    Each method has a twin for asyncio, such as ``arun``, which runs in a thread. One that is cancelled ends
    after the statement that is under way, and undoes its transaction.

    Args:
        config: The client's configuration.
        connect: Opens a session as the client does.
        target: Where the client connects, and as whom.
        tokens: Where passwords come from.
        clock: Where the time comes from.
        rehearse: Runs a folder's files on a branch first; takes the folder and what :meth:`run` takes.
    """

    def __init__(
        self,
        config: LakebaseConfig,
        connect: Callable[..., LakebaseConnection],
        target: Callable[[], Target],
        tokens: TokenProvider,
        clock: Clock,
        rehearse: Callable[[_Folder, Mapping[str, Any]], Rehearsed] | None = None,
    ) -> None:
        self._config = config
        self._connect = connect
        self._target = target
        self._tokens = tokens
        self._clock = clock
        self._rehearse = rehearse

    def run(
        self,
        folder: _Folder,
        *,
        target: int | str | None = None,
        lock_timeout: float = 5.0,
        statement_timeout: float | None = None,
        attempts: int = 5,
        dry_run: bool = False,
        baseline: int | str | None = None,
        out_of_order: bool = False,
        lint: bool = False,
        rehearse: bool = False,
        ledger: str | tuple[str, str] | TableName = LEDGER,
        timeout: float = _TIMEOUT,
    ) -> MigrationReport:
        """Run the files of a folder that have not run yet, in the order of their versions.

        A file is one transaction, in which it is entered in the ledger too. One that holds what cannot run in
        a transaction runs statement by statement; a later run goes on where an earlier one was killed. Files
        are called ``0001_name.sql`` or ``V1__name.sql``. Runs at the same time wait for each other.

        Args:
            folder: The folder.
            target: Version of the last file to run; all by default.
            lock_timeout: Seconds that a statement waits for a lock before its transaction is undone and tried
                again, so that who queues behind it goes on. What is made concurrently waits until `timeout`.
            statement_timeout: Seconds that a statement may take; the configuration's by default.
            attempts: How many times a transaction is tried that gets no lock, or is undone for another one.
            dry_run: Change nothing, and report what is pending.
            baseline: Version up to which the files are entered as done without being run, for a database that
                was there before its ledger.
            out_of_order: Also run files whose version is below that of one that has run.
            lint: Ask squawk about the files that are pending, and run nothing if it finds anything.
            rehearse: Run the files that are pending on a branch first, which is purged afterwards, and here
                only if that went well; with `dry_run` only there. ``client.rehearse`` also takes checks.
            ledger: Name of the ledger's table, which is created.
            timeout: Seconds that all of it may take, waiting for another run included.

        Raises:
            ConfigError: There is no such folder or version, or squawk is not installed.
            MigrationError: Files are refused (edited, missing, out of order, not well formed, or by squawk),
                a statement failed, or `timeout` has passed; what ran before is in the ledger.
            RehearsalError: The files failed on the branch; nothing ran here.
            LockTimeoutError: A lock was not acquired in any of the attempts; names its holder.
            TransactionConflictError: Each attempt was undone for another transaction.
            LakebaseError: No connection could be opened, the session ended, or a statement took too long.
        """
        options = RunOptions(
            arguments.timeout(lock_timeout, "lock_timeout"),
            None if statement_timeout is None else arguments.timeout(statement_timeout, "statement_timeout"),
            arguments.count("'attempts'", attempts, least=1),
        )
        deadline = Deadline(arguments.timeout(timeout), self._clock)
        files = read_folder(folder)
        last, first = _known("target", target, files), _known("baseline", baseline, files)
        rehearsal: Rehearsed | None = None
        if rehearse:
            given = {
                "target": target,
                "lock_timeout": lock_timeout,
                "statement_timeout": statement_timeout,
                "attempts": attempts,
                "baseline": baseline,
                "out_of_order": out_of_order,
                "ledger": ledger,
                "timeout": timeout,
            }
            rehearsal = self._rehearsed(folder, given, last, lint=lint)
        with self._session(ledger, deadline.remaining()) as (connection, book):
            if not dry_run:
                keep_others_out(connection, book, deadline, self._clock)
                book.ensure()
            entries = book.entries()
            wanted = _baseline(book, files, first, entries)
            if wanted and not dry_run:
                with connection.transaction():
                    for file in wanted:
                        book.enter(file, "baseline")
                entries = book.entries()
            states = _compared(files, entries, out_of_order)
            _require_runnable(states)
            if dry_run and not entries:
                states = _with_baseline(states, first)
            waiting = {file.version for file in states if file.state in ("pending", "part")}
            pending = [
                file for file in files if file.version in waiting and (last is None or file.version <= last)
            ]
            findings = ask_squawk(pending) if lint else ()
            if findings and not dry_run:
                raise MigrationError(
                    f"squawk finds: {'; '.join(map(str, findings))}",
                    remedy="Follow https://squawkhq.com, or leave out a rule in .squawk.toml.",
                )
            if not dry_run:
                run = MigrationRun(connection, book, options, self._connect, deadline, self._clock)
                applied = {file.version: run.apply(file, entries.get(file.version)) for file in pending}
                states = _after(_compared(files, book.entries(), True), applied)
            return MigrationReport(str(book.name), states, dry_run, findings, rehearsal)

    def _rehearsed(
        self, folder: _Folder, given: Mapping[str, Any], last: int | None, *, lint: bool
    ) -> Rehearsed | None:
        """What the files do on a branch; None if none is pending, or squawk is to stop them."""
        planned = self.run(folder, **given, lint=lint, dry_run=True)
        wanted = [file for file in planned.pending if last is None or file.version <= last]
        if planned.findings or not wanted:
            return None
        assert self._rehearse is not None
        return self._rehearse(folder, given)

    def status(
        self,
        folder: _Folder,
        *,
        ledger: str | tuple[str, str] | TableName = LEDGER,
        timeout: float | None = None,
    ) -> MigrationReport:
        """Compare a folder with the ledger; files that a run would refuse are reported, and nothing changes.

        Args:
            folder: The folder.
            ledger: Name of the ledger's table.
            timeout: Seconds that connecting may take; the configuration's `connect_budget` by default.

        Raises:
            ConfigError: There is no such folder.
            MigrationError: A file is not well formed.
            LakebaseError: No connection could be opened.
        """
        files = read_folder(folder)
        seconds = self._config.connect_budget if timeout is None else arguments.timeout(timeout)
        with self._session(ledger, seconds) as (_, book):
            return MigrationReport(str(book.name), _compared(files, book.entries(), False), dry_run=True)

    def command(
        self, words: Sequence[str], folder: _Folder | None = None, *, timeout: float = _TIMEOUT
    ) -> CommandReport:
        """Run another tool that migrates, such as Alembic, dbmate or Flyway, on this client's database.

        It finds the database in its environment: ``PGHOST``, ``PGPORT``, ``PGDATABASE``, ``PGUSER``,
        ``PGPASSWORD`` with a token, ``PGSSLMODE``, ``PGSSLROOTCERT``; ``DATABASE_URL``, without a password;
        ``FLYWAY_URL``, ``FLYWAY_USER`` and ``FLYWAY_PASSWORD``. What it writes is logged, without secrets. A
        token is accepted at logins for two minutes at least, an hour at most; sessions may last longer.

        Args:
            words: The program and its arguments, such as ``["alembic", "upgrade", "head"]``.
            folder: Where it runs; here by default.
            timeout: Seconds until it is ended, with all that it started.

        Raises:
            ConfigError: It cannot be started.
            MigrationError: It failed, or was not done in time.
            LakebaseError: There is no token or host.
        """
        deadline = Deadline(arguments.timeout(timeout), self._clock)
        token = self._tokens.get(min(deadline.remaining(), self._config.connect_budget))
        tls, target = tls_of_programs(self._config), self._target()

        def variables() -> dict[str, str]:
            password = dict.fromkeys(("PGPASSWORD", "FLYWAY_PASSWORD"), token.reveal())
            return program_environment(os.environ, target, tls, password)

        return foreign_commands.run_command(
            words,
            folder,
            variables,
            token,
            deadline,
            self._clock,
        )

    def dump(
        self,
        *,
        ledger: str | tuple[str, str] | TableName = LEDGER,
        timeout: float | None = None,
    ) -> CatalogDump:
        """What stands in the database now: each table, column, index, function, grant … with its definition.

        The system's own and the ledger are left out, and so are rows, publications, event triggers, foreign
        servers, casts, operators, collations, text search, and what ALTER DATABASE and ALTER ROLE set.

        Args:
            ledger: Name of the ledger's table.
            timeout: Seconds that connecting may take; the configuration's `connect_budget` by default.

        Raises:
            TransactionConflictError: Others dropped what was about to be described, again and again.
            LakebaseError: No connection could be opened.
        """
        seconds = None if timeout is None else arguments.timeout(timeout)
        with self._connect(seconds) as connection:
            return dump_catalog(connection, leave_out=[_named(ledger)])

    def diff(self, before: CatalogDump, after: CatalogDump | None = None) -> CatalogDiff:
        """What was created, removed and changed between two dumps, of this database or of others.

        Args:
            before: The earlier one.
            after: The later one; of this database as it is now by default.

        Raises:
            LakebaseError: No connection could be opened.

        Example:
            >>> before = client.migrations.dump()
            >>> client.migrations.run("migrations")
            >>> print(client.migrations.diff(before).to_markdown())
        """
        return diff_dumps(before, self.dump() if after is None else after)

    @contextmanager
    def _session(
        self, ledger: str | tuple[str, str] | TableName, seconds: float
    ) -> Iterator[tuple[LakebaseConnection, MigrationLedger]]:
        name = _named(ledger)
        budget = min(self._config.connect_budget, seconds)
        with self._connect(budget, autocommit=True) as connection:
            try:
                yield connection, MigrationLedger(connection, name)
            except psycopg.Error as error:
                if isinstance(error, LakebaseError):
                    raise
                lost = connection_lost(error)
                remedy = "Run again: what is applied is skipped." if lost else _REMEDIES.get(error.sqlstate)
                said = (error.diag.message_primary or str(error)).strip().rstrip(".")
                found = MigrationError(
                    f"The session was lost: {said}." if lost else f"The ledger {name}: {said}.",
                    remedy=remedy,
                    retryable=lost,
                )
                found.sqlstate = error.sqlstate
                raise found from error
            except BaseException:
                # The end of this process's part must be the end of the server's.
                if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
                    with suppress(psycopg.Error):
                        connection.cancel_safe(timeout=3.0)
                raise

    arun = in_thread(run)
    astatus = in_thread(status)
    acommand = in_thread(command)
    adump = in_thread(dump)
    adiff = in_thread(diff)


def _named(ledger: str | tuple[str, str] | TableName) -> TableName:
    name = TableName.parse(ledger)
    # A file that sets the search path must not move it.
    return TableName(name.table, LEDGER.schema) if name.schema is None else name


def _known(argument: str, version: int | str | None, files: Sequence[SqlFile]) -> int | None:
    if version is None:
        return None
    text = str(version).removeprefix("V")
    found = int(text) if text.isascii() and text.isdigit() else None
    if found not in [file.version for file in files]:
        raise ConfigError(
            f"'{argument}' is {version!r}, which is no version of a file in the folder.",
            remedy="Give the number with which a file's name begins.",
        )
    return found


def _baseline(
    book: MigrationLedger, files: Sequence[SqlFile], last: int | None, entries: Mapping[int, Entry]
) -> list[SqlFile]:
    """The files that are to be entered without being run."""
    wanted = [file for file in files if last is not None and file.version <= last]
    if all(file.version in entries for file in wanted):
        return []
    if entries:
        raise MigrationError(
            f"The ledger {book.name} has entries already, so that there is no baseline to begin with.",
            remedy="Leave out baseline.",
        )
    return wanted


def _with_baseline(states: Sequence[MigrationFile], last: int | None) -> tuple[MigrationFile, ...]:
    """As they would be once the baseline is entered."""
    return tuple(
        replace(file, state="baseline") if last is not None and file.version <= last else file
        for file in states
    )


def _compared(
    files: Sequence[SqlFile], entries: Mapping[int, Entry], out_of_order: bool
) -> tuple[MigrationFile, ...]:
    """The folder's files and the ledger's entries in one list, by version."""
    newest = max(entries, default=0)
    there = {file.version: file for file in files}
    found = []
    for version in sorted({*there, *entries}):
        file, entry = there.get(version), entries.get(version)
        if entry is None:
            assert file is not None
            late = version < newest and not out_of_order
            detail = f"version {newest} has run" if late else ""
            found.append(_reported(file, "out_of_order" if late else "pending", detail))
        elif file is None:
            found.append(_entered(entry, "missing"))
        else:
            found.append(_of_both(file, entry))
    return tuple(found)


def _reported(file: SqlFile, state: FileState, detail: str = "") -> MigrationFile:
    return MigrationFile(
        file.version,
        file.name,
        state,
        len(file.statements),
        file.in_transaction,
        detail=detail,
        outside=file.outside,
    )


def _entered(entry: Entry, state: FileState, file: SqlFile | None = None, detail: str = "") -> MigrationFile:
    return MigrationFile(
        entry.version,
        entry.name if file is None else file.name,
        state,
        0 if file is None else len(file.statements),
        None if file is None else file.in_transaction,
        entry.seconds,
        entry.applied_at,
        entry.applied_by,
        detail,
        () if file is None else file.outside,
    )


def _of_both(file: SqlFile, entry: Entry) -> MigrationFile:
    if not entry.is_of(file):
        as_other = "" if entry.name == file.name else f"it ran as {entry.name}"
        return _entered(entry, "edited", file, as_other)
    if entry.state == "part":
        return _entered(entry, "part", file, f"{entry.statement} of {len(file.statements)} are done")
    return _entered(entry, "baseline" if entry.state == "baseline" else "done", file)


def _require_runnable(states: Sequence[MigrationFile]) -> None:
    said = {
        "edited": "was edited after it ran",
        "missing": "has run and is missing from the folder",
        "out_of_order": "comes before one that has run",
    }
    refused = [file for file in states if file.state in said]
    if not refused:
        return
    kinds = {file.state for file in refused}
    remedies = []
    if kinds & {"edited", "missing"}:
        remedies.append("Have the files back as they ran, and put changes into new ones.")
    if "out_of_order" in kinds:
        remedies.append(offered(_LATER))
    told = "; ".join(f"{file.name} {said[file.state]}" for file in refused)
    error = MigrationError(f"Nothing was run: {told}.", remedy=" ".join(remedies))
    error.file = refused[0].name
    raise error


def _after(states: Sequence[MigrationFile], applied: Mapping[int, float]) -> tuple[MigrationFile, ...]:
    return tuple(
        replace(file, state="applied", seconds=applied[file.version]) if file.version in applied else file
        for file in states
    )
