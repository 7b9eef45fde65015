"""Rehearses a change on a leased branch, and runs it on the parent if it went well and that was asked for."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

import psycopg

from lakebase_provider.core.base.clock import Clock, Deadline
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.database.catalog import TableName, find_table
from lakebase_provider.core.database.refusals import connection_lost
from lakebase_provider.core.database.rows.kept_rows import (
    KeptRows,
    Selection,
    as_text,
    compare,
    keep,
    key_columns,
)
from lakebase_provider.core.database.rows.row_diff import RowDiff
from lakebase_provider.core.database.structure.catalog_diff import CatalogDiff, diff
from lakebase_provider.core.database.structure.catalog_dump import dump_catalog
from lakebase_provider.core.errors import (
    ConfigError,
    EndpointNotFoundError,
    LakebaseError,
    LeaseLostError,
    LockTimeoutError,
    RehearsalError,
    StatementTimeoutError,
    TransactionConflictError,
    WrongBranchError,
)
from lakebase_provider.core.errors.redaction import redacted, redactor
from lakebase_provider.core.upkeep.branches.lease import BranchLease
from lakebase_provider.core.upkeep.branches.lease_options import LeaseOptions
from lakebase_provider.core.upkeep.branches.restore_point import note
from lakebase_provider.core.upkeep.migrations.migrations import LEDGER
from lakebase_provider.core.upkeep.rehearsal.recorder import LockWatch, Recorder, StatementRun
from lakebase_provider.core.upkeep.rehearsal.rehearsal_checks import CheckResult
from lakebase_provider.core.upkeep.rehearsal.rehearsal_options import RehearsalOptions, RehearsalPlan
from lakebase_provider.core.upkeep.rehearsal.rehearsal_report import RehearsalReport
from lakebase_provider.core.upkeep.rehearsal.rehearsed_work import (
    Call,
    Client,
    Files,
    Place,
    Statements,
    Work,
)

logger = logging.getLogger(__name__)

#: Characters of what a function's own error says.
_LONGEST_FAILURE = 2000
_NO_DIFFERENCE = CatalogDiff((), (), ())


def rehearse(client: Client, work: Any, options: RehearsalOptions, clock: Clock) -> RehearsalReport:
    """Rehearse work; see ``client.rehearse``.

    Args:
        client: The client of the parent.
        work: Statements, a function that takes a connection, the path of a folder of migrations, or
            :class:`.Work`.
        options: How.
        clock: Where the time comes from.
    """
    plan = RehearsalPlan.of(options)
    found = _work(work)
    _require_approved(plan, found.checksum)
    parent = client.branches.own_branch()
    lease: LeaseOptions = {**(plan.lease or {}), "source": parent}
    with client.branches.lease(plan.run_name(), **lease) as held:
        report = _Rehearsal(held, parent, found, plan, clock).run()
    if report.ok and plan.then == "run":
        report = replace(report, restore_point=_restore_point(client, parent))
        try:
            report = replace(report, ran=run_on(client, found, plan, clock))
        except RehearsalError as error:
            error.report = report
            raise
    logger.log(logging.INFO if report.ok else logging.WARNING, "%s", report.to_markdown())
    if plan.then == "run":
        report.require_ok()
    return report


def rehearse_files(
    client: Client, folder: str | os.PathLike[str], options: Mapping[str, Any], clock: Clock
) -> RehearsalReport:
    """Rehearse the files of migrations in a folder.

    Args:
        client: The client of the parent.
        folder: The folder.
        options: What ``client.migrations.run`` is given beside it.
        clock: Where the time comes from.

    Raises:
        RehearsalError: They failed on the branch.
    """
    report = rehearse(client, Files(folder, options), {"timeout": options["timeout"]}, clock)
    report.require_ok()
    return report


def run_on(client: Client, work: Any, plan: RehearsalPlan, clock: Clock) -> tuple[StatementRun, ...]:
    """Run work on a client's own branch, as a rehearsal does: with limits for locks, and again without one.

    Args:
        client: The client.
        work: As for :func:`rehearse`.
        plan: Its limits.
        clock: Where the time comes from.

    Returns:
        The statements with times and rows.

    Raises:
        LakebaseError: It failed.
    """
    found = _work(work)
    recorder = Recorder(clock, places=found.places)

    def connect(timeout: float | None = None, /, **parameters: Any) -> LakebaseConnection:
        connection = client.connect(timeout, **parameters)
        recorder.record(connection)
        return connection

    def require_approved() -> None:
        _require_approved(plan, recorder.checksum)

    deadline = Deadline(plan.timeout, clock)
    found.run(Place(client, connect, plan.run_options(), deadline, clock, require_approved))
    return recorder.runs()


def _require_approved(plan: RehearsalPlan, checksum: str | None) -> None:
    """Raise an error if other statements were approved; of some it is known only when they were executed."""
    if plan.approved is None or checksum in (None, plan.approved):
        return
    raise RehearsalError(
        f"What was approved ({plan.approved}) is not what would run ({checksum}), so nothing of it runs.",
        remedy="Rehearse it again, and have that approved.",
    )


def _restore_point(client: Client, parent: str) -> dict[str, Any]:
    """The moment before the parent is changed: noting it is free."""
    with client.connect(autocommit=True) as connection:
        point = note(connection, parent)
    # If the run fails half-way, no report has it.
    logger.info("The restore point of %s is %s.", parent, point)
    return point.to_dict()


def _work(given: Any) -> Work:
    if isinstance(given, (str, Sequence)):
        return Statements(given)
    if isinstance(given, os.PathLike):
        return Files(given, {})
    if hasattr(given, "run") and hasattr(given, "places"):
        return cast("Work", given)
    if callable(given):
        return Call(given)
    raise ConfigError(
        f"What is rehearsed is of type {type(given).__name__}.",
        remedy="Give SQL, a list of statements, a function that takes a connection, or a Path of migrations.",
    )


class _Rehearsal:
    """A rehearsal on a leased branch."""

    def __init__(
        self, lease: BranchLease[Any], parent: str, work: Work, plan: RehearsalPlan, clock: Clock
    ) -> None:
        self._lease, self._parent, self._work, self._plan, self._clock = lease, parent, work, plan, clock
        self._client: Client = lease.client
        self._not_compared: dict[str, str] = {}

    def run(self) -> RehearsalReport:
        with ExitStack() as stack:
            # It keeps the rows until they are compared.
            keeper = stack.enter_context(self._connect(autocommit=True))
            before = dump_catalog(keeper, leave_out=[LEDGER])
            kept = {name: self._kept(keeper, name, keys) for name, keys in self._plan.compared().items()}
            watch = LockWatch(self._client.connect(autocommit=True))
            stack.callback(watch.close)
            recorder = Recorder(self._clock, watch, self._work.places)
            began = self._clock.elapsed()
            failure = self._worked(recorder)
            seconds = self._clock.elapsed() - began
            statements = recorder.runs()
            checks: tuple[CheckResult, ...] = ()
            tables: tuple[RowDiff, ...] = ()
            difference = _NO_DIFFERENCE
            if failure is None:
                checks = self._checked(stack)
                compared = [self._compared(keeper, name, rows) for name, rows in kept.items()]
                tables = tuple(found for found in compared if found is not None)
                difference = _without_secrets(diff(before, dump_catalog(keeper, leave_out=[LEDGER])))
        return RehearsalReport(
            self._parent,
            self._lease.branch.id,
            _iso(self._lease.branch.source_branch_time or self._lease.branch.create_time),
            seconds,
            statements,
            recorder.left_out,
            failure,
            checks,
            tables,
            self._not_compared,
            difference,
            self._limits(),
            self._work.checksum or recorder.checksum,
        )

    def _connect(self, timeout: float | None = None, /, **parameters: Any) -> LakebaseConnection:
        connection = self._client.connect(timeout, **parameters)
        try:
            # The same token opens the parent: nothing is written before it is known where.
            self._client.branches.require(self._lease.uid, connection)
            if not connection.autocommit:
                connection.rollback()
        except BaseException:
            connection.close()
            raise
        return connection

    def _worked(self, recorder: Recorder) -> str | None:
        """Do the work, and say what went wrong with it; what is wrong with the way there is raised."""
        deadline = Deadline(self._plan.timeout, self._clock)

        def connect(timeout: float | None = None, /, **parameters: Any) -> LakebaseConnection:
            connection = self._connect(timeout, **parameters)
            recorder.record(connection)
            return connection

        def require_approved() -> None:
            _require_approved(self._plan, recorder.checksum)

        limits = self._plan.run_options()
        place = Place(self._client, connect, limits, deadline, self._clock, require_approved)
        try:
            self._work.run(place)
        except LakebaseError as error:
            # Of what passes, these are about the work all the same, and not about the way to the database.
            is_of_work = isinstance(
                error, (LockTimeoutError, TransactionConflictError, StatementTimeoutError)
            )
            if (error.retryable and not is_of_work) or isinstance(
                error, (LeaseLostError, EndpointNotFoundError, WrongBranchError)
            ):
                raise
            return error.message
        except psycopg.Error as error:
            if connection_lost(error):
                raise
            # The text of a data exception quotes the value.
            quotes = (error.sqlstate or "").startswith("22")
            said = error.diag.message_primary or str(error).partition("\n")[0]
            return type(error).__name__ if quotes else redacted(said)
        except Exception as error:
            return redacted(f"{type(error).__name__}: {error}")[:_LONGEST_FAILURE]
        return None

    def _checked(self, stack: ExitStack) -> tuple[CheckResult, ...]:
        checks = self._plan.checked()
        if not checks:
            return ()
        connection = stack.enter_context(self._connect())
        connection.read_only = True
        return tuple(check.run(connection, self._clock) for check in checks)

    def _kept(self, keeper: LakebaseConnection, name: TableName, keys: tuple[str, ...]) -> KeptRows | None:
        """The rows of a table before the work; None if there is no such table."""
        table = find_table(keeper, name)
        if table is None:
            return None
        columns = tuple(column.name for column in table.columns)
        return keep(keeper, Selection(table, key_columns(table, keys), columns))

    def _compared(self, keeper: LakebaseConnection, name: TableName, kept: KeptRows | None) -> RowDiff | None:
        table = find_table(keeper, name)
        if table is None:
            gone = "there is no such table." if kept is None else f"it is gone, with {kept.rows:,} rows."
            self._not_compared[str(name)] = gone
            return None
        try:
            keys = self._plan.compared()[name] if kept is None else kept.selection.keys
            columns = tuple(column.name for column in table.columns)
            now = Selection(table, key_columns(table, keys), columns)
            if kept is None:
                kept = keep(keeper, now, no_rows=True)
            with as_text(keeper):
                return compare(keeper, kept, now, examples=self._plan.examples).diff
        except ConfigError as error:
            self._not_compared[str(name)] = error.message
            return None

    def _limits(self) -> tuple[str, ...]:
        since = _iso(self._lease.branch.source_branch_time or self._lease.branch.create_time)
        return (
            "There was no traffic: how long statements wait for locks on the parent, and who waits for "
            "theirs, is not known.",
            f"What was written to the parent since {since or 'the branch was made'} is not in it: rows, "
            "roles, and where sequences stand.",
            "Synced tables are frozen on a branch, and what follows the parent's changes (Lakehouse sync, "
            "replication) does not follow a branch's.",
            "Times are those of the branch's own compute, which may be smaller than the parent's, and begins "
            "with nothing in its memory.",
        )


def _without_secrets(found: CatalogDiff) -> CatalogDiff:
    """The difference as it may be shown: a comment or a function may hold a secret of this process."""
    strike = redactor()
    created, removed = (
        tuple(replace(one, definition=strike(one.definition)) for one in objects)
        for objects in (found.created, found.removed)
    )
    changed = tuple(replace(one, before=strike(one.before), after=strike(one.after)) for one in found.changed)
    return CatalogDiff(created, removed, changed)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
