"""Changes as tasks that are tried on a branch first, and run only if they went well there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import AirflowSkipException

from lakebase_provider._airflow.task.arguments import lease_options, require_seconds, without_strangers
from lakebase_provider._airflow.task.failing_fast import failing_fast
from lakebase_provider.operators.branches.managing import RUN_ID, ManagingOperator

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from lakebase_provider.core import RehearsalReport
    from lakebase_provider.core.connect.connection import LakebaseConnection
    from lakebase_provider.core.upkeep.branches.lease_options import LeaseOptions
    from lakebase_provider.core.upkeep.rehearsal.rehearsal_options import Tables

#: Arguments that are options of the core.
_OPTIONS = (
    *("checks", "tables", "examples", "run_id", "lock_timeout", "statement_timeout", "attempts"),
    *("timeout", "lease"),
)
#: Arguments of Airflow's ApprovalOperator, of which older ones do not have all: who is asked, and how long.
_APPROVAL = {"subject", "assigned_users", "notifiers", "response_timeout", "defaults"}
#: Characters of the report that a person is asked about.
_LONGEST_BODY = 20_000


class LakebaseRehearseOperator(ManagingOperator):
    """Tries a change on a branch that is made for it and purged afterwards, and fails if it or a check does.

    The task returns the report, a :class:`.RehearsalReport` as a dict, with ``markdown`` for people; also
    when it fails, and then nothing has run on the connection's own branch. The branch's id follows from DAG,
    run and task, so that a retry replaces the one that a killed try left.

    With ``then="approve"`` it waits for a person after the rehearsal, in Airflow's required actions, without
    a worker's slot. Once that person approves, the same is tried again, on the data of that moment, and then
    run; if it is not the same by then, as the SQL file was edited, the task fails. If the person rejects, the
    task is skipped. A retry rehearses and asks again.

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
            checks passed; or ``"approve"``, to do so once a person has approved the report. A retry of a task
            that was killed after that runs it again, unless it is a folder: its ledger knows.
        approval: For ``then="approve"``, arguments of Airflow's ``ApprovalOperator``: ``subject``,
            ``assigned_users``, ``notifiers``, ``response_timeout`` and ``defaults`` (templated).
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
        ConfigError: An argument is malformed, there is not one change, or this Airflow cannot ask a person;
            when the DAG is parsed.
        AirflowFailException: The change or a check failed, what was approved is another change, or else a
            retry cannot help.
        AirflowSkipException: A person has rejected it.
        LakebaseError: When the task fails and a retry may help.

    Example:
        >>> LakebaseRehearseOperator(
        ...     task_id="change", sql="ALTER TABLE orders ADD note text", tables=["orders"], then="run"
        ... )
    """

    template_fields: Sequence[str] = (
        *ManagingOperator.template_fields,
        *("sql", "folder", "checks", "tables", "branch", "run_id", "approval"),
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
        then: Literal["stop", "run", "approve"] = "stop",
        approval: Mapping[str, Any] | None = None,
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
        self.approval = approval
        self._take_branch(branch)
        self.examples = examples
        self.run_id = run_id
        self.lock_timeout = lock_timeout
        self.statement_timeout = statement_timeout
        self.attempts = attempts
        self.lease = lease
        self._has_run = False
        self._require_one()
        self._check_own_arguments(
            ("then", "approval", "lock_timeout", "statement_timeout", "timeout", "lease")
        )

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        super()._check_arguments(given)
        require_seconds(given, "lock_timeout", "statement_timeout")
        if "then" in given:
            from lakebase_provider.core.base.choices import require_choice

            require_choice("then", given["then"], ("stop", "run", "approve"))
            _require_approval(given["then"], given.get("approval"))
        lease_options(given.get("lease") or {})

    def _require_one(self) -> None:
        given = [name for name in ("sql", "python_callable", "folder") if getattr(self, name) is not None]
        if len(given) != 1:
            from lakebase_provider.core.errors import ConfigError

            told = f"Both '{given[0]}' and '{given[1]}' are given." if given else "There is no change."
            raise ConfigError(told, remedy="Give one of sql, python_callable and folder.")

    def execute(self, context: Context) -> dict[str, Any]:
        """Rehearse, run it or ask for approval if that was asked for, and return the report."""
        if self.then != "approve":
            return self._rehearsed(context, then=self.then)
        told = self._rehearsed(context)
        # It is read while the task waits; and afterwards its checksum says what was approved.
        context["ti"].xcom_push(key="return_value", value=told)
        subject = f"Run the change on {told['parent']}?"
        asking = _approval_operator()(
            task_id=self.task_id,
            body=_shortened(told["markdown"]),
            **{"subject": subject, **(self.approval or {})},
        )
        # Without Airflow's warning about an operator in an operator: this one does nothing else.
        inspect.unwrap(type(asking).execute)(asking, context)
        raise AssertionError("the task waits")

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Run what a person has approved, and return the report; or skip what that person has rejected."""
        kind = _approval_operator()
        asked = kind(task_id=self.task_id, **{"subject": "", **(self.approval or {})})
        answer = asked.execute_complete(context, event)
        user = (answer.get("responded_by_user") or {}).get("name") or "nobody in time"
        if answer["chosen_options"] != [kind.APPROVE]:
            raise AirflowSkipException(f"The change was rejected by {user}, and has not run.")
        ti = context["ti"]
        told = ti.xcom_pull(key="return_value", map_indexes=ti.map_index) or {}
        self.log.info("Approved by %s: %s.", user, told.get("checksum"))
        with failing_fast():
            self._require_parent(told.get("parent"))
        return self._rehearsed(context, then="run", approved=told.get("checksum"))

    def _require_parent(self, approved: str | None) -> None:
        """Raise an error unless the branch is still the one that the approved report was about."""
        from lakebase_provider.core.errors import RehearsalError

        parent = self._managed(**self._branch_setting).client.branches.own_branch()
        if parent != approved:
            raise RehearsalError(
                f"A change of {approved or 'nothing that is known any more'} was approved, and this is "
                f"{parent}, so nothing of it runs.",
                remedy="Clear the task: it rehearses, and asks again.",
            )

    def _rehearsed(self, context: Context, **more: Any) -> dict[str, Any]:
        from pathlib import Path

        from lakebase_provider.core.errors import RehearsalError

        options: Any = {name: getattr(self, name) for name in _OPTIONS} | more
        work = Path(self.folder) if self.folder is not None else self.python_callable or self.sql
        with failing_fast(), self._unwinding():
            options["lease"] = lease_options(self.lease or {})
            try:
                report = self._managed(**self._branch_setting).acting.rehearse(work or "", **options)
                report.require_ok()
            except RehearsalError as error:
                # A failed task returns nothing, but its report is needed most.
                if error.report is not None:
                    context["ti"].xcom_push(key="return_value", value=_told(error.report))
                raise
        self._has_run = report.ran is not None
        return _told(report)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """What the statements read and wrote, if they have run where they belong; of the branch nothing."""
        from airflow.providers.openlineage.extractors import OperatorLineage

        from lakebase_provider._airflow.task.lineage import query_lineage

        if not self._has_run or self.sql is None:
            return OperatorLineage()
        texts = [self.sql] if isinstance(self.sql, str) else self.sql
        return query_lineage(self.get_db_hook(), self.conn_id, ";\n".join(texts))


def _told(report: RehearsalReport) -> dict[str, Any]:
    return {**report.to_dict(), "markdown": report.to_markdown()}


def _shortened(markdown: str) -> str:
    """What a person is shown, who can read all of it in XCom."""
    if len(markdown) <= _LONGEST_BODY:
        return markdown
    return f"{markdown[:_LONGEST_BODY]}\n\n(cut off: the task's XCom has all of it)"


def _approval_operator() -> Any:
    """Airflow's operator that asks a person to approve something.

    Raises:
        ConfigError: There is none here.
    """
    try:
        # Most DAG files are parsed without needing it.
        from airflow.providers.standard.operators.hitl import ApprovalOperator
    except ImportError as error:
        from lakebase_provider.core.errors import ConfigError

        raise ConfigError(
            f"then is 'approve', which needs Airflow's ApprovalOperator: {error}",
            remedy="Install apache-airflow-providers-standard 1.9 or newer, or let it stop or run.",
        ) from error
    return ApprovalOperator


def _require_approval(then: str, approval: Any) -> None:
    """Make sure that a person can be asked as the arguments say.

    Raises:
        ConfigError: Not here, or not so.
    """
    if approval is None and then != "approve":
        return
    from lakebase_provider.core.errors import ConfigError

    if then != "approve" or not isinstance(approval, Mapping | None):
        raise ConfigError(
            f"'approval' is given for then={then!r}, or is no dict.",
            remedy="Leave it out, or have it wait for approval, with arguments of ApprovalOperator by name.",
        )
    taken = {name for kind in _approval_operator().__mro__[:2] for name in inspect.signature(kind).parameters}
    names = taken & _APPROVAL
    if unknown := sorted(map(str, (approval or {}).keys() - names)):
        raise ConfigError(
            f"'approval' has {', '.join(map(repr, unknown))}, which this Airflow's ApprovalOperator does not "
            "take here.",
            remedy=f"It takes: {', '.join(sorted(names))}.",
        )
