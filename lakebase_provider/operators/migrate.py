"""Migrations as a task: files of SQL, each run once, or another tool that migrates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from lakebase_provider._airflow.task.arguments import (
    LakebaseArguments,
    conn_id_of,
    require_hook_params,
    require_seconds,
)
from lakebase_provider._airflow.task.failing_fast import UnwindingOnKill, failing_fast
from lakebase_provider.links import LakebaseConsoleLink

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from lakebase_provider.hooks.lakebase import LakebaseHook

#: Arguments that concern files of SQL, and their defaults.
_OF_FILES = {
    "target": None,
    "lock_timeout": 5.0,
    "statement_timeout": None,
    "attempts": 5,
    "dry_run": False,
    "baseline": None,
    "out_of_order": False,
    "lint": False,
    "rehearse": False,
    "ledger": "public.lakebase_migration",
}


class LakebaseMigrateOperator(UnwindingOnKill, LakebaseArguments, BaseOperator):
    """Runs the files of a folder that have not run yet, in the order of their versions; or another tool.

    A file is one transaction, in which it is entered in the ledger too. One that holds what cannot run in a
    transaction, such as ``CREATE INDEX CONCURRENTLY``, runs statement by statement, and a retry goes on where
    a killed try ended. Runs at the same time wait for each other. The task returns the report, a
    :class:`.MigrationReport` as a dict; of a command its ``program``, ``seconds`` and last lines of
    ``output``.

    Args:
        folder: The folder with the files (templated); of a command, where it runs.
        command: Another tool that migrates instead, with its arguments (templated), such as
            ``["alembic", "upgrade", "head"]``. It finds the database in its environment: libpq's variables,
            ``DATABASE_URL`` without a password, and Flyway's.
        conn_id: Id of the Airflow connection (templated); ``lakebase_default`` by default.
        lakebase_conn_id: An alias of `conn_id`.
        branch: Name or id of a branch on which to work, instead of the connection's own (templated).
        target: Version of the last file to run (templated); all by default.
        lock_timeout: Seconds that a statement waits for a lock before its transaction is undone and tried
            again, so that who queues behind it goes on.
        statement_timeout: Seconds that a statement may take; the connection's by default.
        attempts: How many times a transaction is tried that gets no lock, or is undone for another one.
        dry_run: Whether to change nothing, and report what is pending.
        baseline: Version up to which the files are entered as done without being run (templated), for a
            database that was there before its ledger.
        out_of_order: Whether to run files, too, whose version is below that of one that has run.
        lint: Whether to ask squawk about the files that are pending, and run nothing if it finds anything.
        rehearse: Whether to run them on a branch first, which is purged, and nothing here if they fail there.
            It needs CAN MANAGE on the project. For checks, an approval, or another connection with that right
            take ``LakebaseRehearseOperator(folder=…)``.
        ledger: Name of the ledger's table, which is created.
        timeout: Seconds that all of it may take, waiting for another run included.
        hook_params: Settings that take precedence over the connection's.
        restore_point: Whether to note, before anything is changed, the moment to come back to, which costs
            nothing: XCom's ``restore_point``, the `at` of ``LakebaseRestoreRowsOperator``.
        kwargs: Arguments of ``BaseOperator``.

    Raises:
        ConfigError: An argument is malformed, or has no meaning for a command; when the DAG is parsed.
        AirflowFailException: Files are refused (edited, missing, out of order, not well formed, or by
            squawk), a statement failed, or else a retry cannot help. What ran before is in the ledger.
        LakebaseError: When the task fails and a retry may help.

    Example:
        >>> LakebaseMigrateOperator(task_id="migrate", folder="/opt/airflow/migrations")
    """

    template_fields: Sequence[str] = ("folder", "command", "conn_id", "branch", "target", "baseline")
    operator_extra_links = (LakebaseConsoleLink(),)

    def __init__(
        self,
        *,
        folder: str | None = None,
        command: Sequence[str] | None = None,
        conn_id: str | None = None,
        lakebase_conn_id: str | None = None,
        branch: str | None = None,
        target: int | str | None = None,
        lock_timeout: float = 5.0,
        statement_timeout: float | None = None,
        attempts: int = 5,
        dry_run: bool = False,
        baseline: int | str | None = None,
        out_of_order: bool = False,
        lint: bool = False,
        rehearse: bool = False,
        ledger: str = "public.lakebase_migration",
        timeout: float = 3600.0,
        hook_params: Mapping[str, Any] | None = None,
        restore_point: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.folder = folder
        self.command = command
        self.conn_id = conn_id_of(conn_id, lakebase_conn_id, kwargs.get("default_args"))
        self._take_branch(branch)
        self.target = target
        self.lock_timeout = lock_timeout
        self.statement_timeout = statement_timeout
        self.attempts = attempts
        # BaseOperator has a method of that name.
        self.is_dry_run = dry_run
        self.baseline = baseline
        self.out_of_order = out_of_order
        self.lint = lint
        self.rehearse = rehearse
        self.ledger = ledger
        self.timeout = timeout
        self.hook_params = hook_params
        self.restore_point = restore_point
        _require_one(self)
        self._check_own_arguments(("lock_timeout", "statement_timeout", "timeout", "hook_params"))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        require_seconds(given, "lock_timeout", "statement_timeout", "timeout")
        require_hook_params(given.get("hook_params"))

    def _options_of_files(self) -> dict[str, Any]:
        return {name: self.is_dry_run if name == "dry_run" else getattr(self, name) for name in _OF_FILES}

    def get_db_hook(self) -> LakebaseHook:
        """The hook of the connection that is migrated."""
        # The hook brings the driver; parsing a DAG must not.
        from lakebase_provider.hooks.lakebase import LakebaseHook

        return LakebaseHook(self.conn_id, **{**(self.hook_params or {}), **self._branch_setting})

    def execute(self, context: Context) -> dict[str, Any]:
        """Migrate and return the report."""
        from dataclasses import asdict

        with failing_fast(), self._unwinding():
            self._note_restore_point(context, lambda: self.get_db_hook().client)
            migrations = self.get_db_hook().client.migrations
            if self.command is not None:
                done = migrations.command(self.command, self.folder, timeout=self.timeout)
                return {**asdict(done), "output": list(done.output)}
            options: Any = self._options_of_files()
            report = migrations.run(self.folder or "", timeout=self.timeout, **options)
        self.log.info("Migrations:\n%s", report.to_text())
        plain = report.to_dict()
        return {**plain, "files": list(plain["files"]), "findings": list(plain["findings"])}

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """What tables the files change is not known."""
        from airflow.providers.openlineage.extractors import OperatorLineage

        return OperatorLineage()


def _require_one(operator: LakebaseMigrateOperator) -> None:
    given = next((name for name, is_ in operator._options_of_files().items() if is_ != _OF_FILES[name]), None)
    if operator.command is None and operator.folder is None:
        message, remedy = "There is neither a folder nor a command.", "Give the folder of the migrations."
    elif operator.command is not None and given is not None:
        message = f"Argument '{given}' concerns files of SQL, which 'command' does not run here."
        remedy = f"Leave out '{given}' or 'command'."
    else:
        return
    from lakebase_provider.core.errors import ConfigError

    raise ConfigError(message, remedy=remedy)
