"""Changes as tasks that are tried on a branch first, and run only if they went well there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from lakebase_provider._airflow.task.arguments import lease_options, require_seconds, without_strangers
from lakebase_provider._airflow.task.failing_fast import failing_fast
from lakebase_provider.operators.branches.managing import RUN_ID, ManagingOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from lakebase_provider.core import RehearsalReport
    from lakebase_provider.core.connect.connection import LakebaseConnection
    from lakebase_provider.core.upkeep.branches.lease_options import LeaseOptions
    from lakebase_provider.core.upkeep.rehearsal.rehearsal_options import Tables

#: Arguments that are options of the core.
_OPTIONS = (
    *("checks", "tables", "then", "examples", "run_id", "lock_timeout", "statement_timeout", "attempts"),
    *("timeout", "lease"),
)


class LakebaseRehearseOperator(ManagingOperator):
    """Tries a change on a branch that is made for it and purged afterwards, and fails if it or a check does.

    The task returns the report, a :class:`.RehearsalReport` as a dict, with ``markdown`` for people; also
    when it fails, and then nothing has run on the connection's own branch. The branch's id follows from DAG,
    run and task, so that a retry replaces the one that a killed try left.

    To have a person decide, let a rehearsal stop, an ``ApprovalOperator`` show
    ``rehearse.output["markdown"]``, and another rehearsal with ``then="run"`` follow: what is approved is
    tried again on the data of that moment.

    Args:
        sql: The change: SQL, the name of a ``.sql`` file, or a list of statements (templated); they are one
            transaction unless one of them cannot run in any.
        python_callable: Instead, a function that does everything on the connection that it is given and may
            be run again; the commit follows.
        folder: Instead, a folder of migrations, of which those run that have not run yet (templated).
        checks: What must be true afterwards: queries whose values must all be true; or dicts with ``sql`` or
            ``table``, and ``min_rows``, ``max_rows`` or both, and perhaps a ``name`` (templated).
        tables: Tables whose rows are compared before and after; a dict gives the columns that tell rows
            apart, where it is not the primary key (None) (templated).
        then: ``"stop"``; or ``"run"``, to run the same on the connection's own branch if it succeeded and all
            checks passed. A retry of a task that was killed after that runs it again, unless it is a folder:
            its ledger knows.
        branch: Name or id of the branch that it is about, instead of the connection's own (templated).
        examples: How many rows of each kind are shown in a table's differences, at most 100; 0 shows no
            values.
        run_id: What the id of the branch follows from (templated): by default DAG, run, task and map index.
        lock_timeout: Seconds that a statement waits for a lock before its transaction is undone and tried
            again.
        statement_timeout: Seconds that a statement may take; the connection's by default.
        attempts: How many times a transaction is tried that gets no lock, or is undone for another one.
        timeout: Seconds that the work may take on the branch, and again on the parent.
        lease: Options of the branch's lease, such as ``{"max_cu": 4}``.
        kwargs: ``conn_id``, ``manage_conn_id`` as for
            :class:`~lakebase_provider.operators.branches.managing.ManagingOperator`, and arguments of
            ``BaseOperator``.

    Raises:
        ConfigError: An argument is malformed, or there is not one change; when the DAG is parsed.
        AirflowFailException: The change or a check failed, or else a retry cannot help.
        LakebaseError: When the task fails and a retry may help.

    Example:
        >>> LakebaseRehearseOperator(
        ...     task_id="change", sql="ALTER TABLE orders ADD note text", tables=["orders"], then="run"
        ... )
    """

    template_fields: Sequence[str] = (
        *ManagingOperator.template_fields,
        *("sql", "folder", "checks", "tables", "branch", "run_id"),
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"sql": "postgresql"}  # noqa: RUF012 # as Airflow declares it

    def __init__(
        self,
        *,
        sql: str | Sequence[str] | None = None,
        python_callable: Callable[[LakebaseConnection], object] | None = None,
        folder: str | None = None,
        checks: Sequence[str | Mapping[str, Any]] = (),
        tables: Tables = (),
        then: Literal["stop", "run"] = "stop",
        branch: str | None = None,
        examples: int = 5,
        run_id: str = RUN_ID,
        lock_timeout: float = 5.0,
        statement_timeout: float | None = None,
        attempts: int = 5,
        timeout: float = 3600.0,
        lease: LeaseOptions | None = None,
        **kwargs: Any,
    ) -> None:
        lease = without_strangers(lease)
        super().__init__(timeout=timeout, **kwargs)
        self.sql = sql
        self.python_callable = python_callable
        self.folder = folder
        self.checks = checks
        self.tables = tables
        self.then = then
        self._take_branch(branch)
        self.examples = examples
        self.run_id = run_id
        self.lock_timeout = lock_timeout
        self.statement_timeout = statement_timeout
        self.attempts = attempts
        self.lease = lease
        self._require_one()
        self._check_own_arguments(("then", "lock_timeout", "statement_timeout", "timeout", "lease"))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        super()._check_arguments(given)
        require_seconds(given, "lock_timeout", "statement_timeout")
        if "then" in given:
            from lakebase_provider.core.base.choices import require_choice

            require_choice("then", given["then"], ("stop", "run"))
        lease_options(given.get("lease") or {})

    def _require_one(self) -> None:
        given = [name for name in ("sql", "python_callable", "folder") if getattr(self, name) is not None]
        if len(given) != 1:
            from lakebase_provider.core.errors import ConfigError

            told = f"Both '{given[0]}' and '{given[1]}' are given." if given else "There is no change."
            raise ConfigError(told, remedy="Give one of sql, python_callable and folder.")

    def execute(self, context: Context) -> dict[str, Any]:
        """Rehearse, run it if that was asked for, and return the report."""
        from pathlib import Path

        from lakebase_provider.core.errors import RehearsalError

        options: Any = {name: getattr(self, name) for name in _OPTIONS}
        work = Path(self.folder) if self.folder is not None else self.python_callable or self.sql
        with failing_fast(), self._unwinding():
            options["lease"] = lease_options(self.lease or {})
            try:
                report = self._managed(**self._branch_setting).acting.rehearse(work or "", **options)
                report.require_ok()
            except RehearsalError as error:
                # A failed task returns nothing, but its report is needed most.
                context["ti"].xcom_push(key="return_value", value=_told(error.report))
                raise
        return _told(report)


def _told(report: RehearsalReport) -> dict[str, Any]:
    return {**report.to_dict(), "markdown": report.to_markdown()}
