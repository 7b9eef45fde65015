"""Moments to come back to as tasks, and rows that are put back from one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lakebase_provider._airflow.task.arguments import lease_options, require_seconds
from lakebase_provider._airflow.task.failing_fast import failing_fast
from lakebase_provider.operators.branches.managing import RUN_ID, ManagingOperator

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from lakebase_provider.core.upkeep.branches.lease_options import LeaseOptions

#: Arguments that are options of the core, but for the dry run.
_OPTIONS = (
    *("keys", "where", "overwrite", "examples", "run_id", "lock_timeout", "attempts", "timeout", "lease"),
)


class LakebaseRestorePointOperator(ManagingOperator):
    """Notes the moment that a branch has reached, before risky work; no branch is made, and it costs nothing.

    It returns ``branch``, ``lsn`` and ``time``, which ``LakebaseRestoreRowsOperator`` takes as ``at``. A task
    that is cleared notes a new moment.

    Args:
        branch: Name or id of the branch, instead of the connection's own (templated).
        kwargs: ``conn_id``, ``timeout`` as for
            :class:`~lakebase_provider.operators.branches.managing.ManagingOperator`, and arguments of
            ``BaseOperator``. It needs CAN USE alone.

    Raises:
        AirflowFailException: When the task fails in a way that a retry cannot help.
        LakebaseError: When the task fails and a retry may help.

    Example:
        >>> before = LakebaseRestorePointOperator(task_id="before")
    """

    template_fields: Sequence[str] = (*ManagingOperator.template_fields, "branch")

    def __init__(self, *, branch: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._take_branch(branch)
        self._check_own_arguments(())

    def execute(self, context: Context) -> dict[str, Any]:
        """Note the moment and return it."""
        with failing_fast(), self._unwinding():
            point = self._managed(**self._branch_setting).client.restore_point(self.timeout)
        self.log.info("The restore point is %s.", point)
        return point.to_dict()


class LakebaseRestoreRowsOperator(ManagingOperator):
    """Puts rows of a table back from an earlier moment, in one transaction; by default it says what would be.

    A branch is made of that moment, the rows are compared by key, and the branch is purged. Rows that were
    deleted since are inserted as they were, and sequences are moved on past them. Rows that have changed
    since are listed, and get their former values only with `overwrite`; new rows are left alone. A retry does
    what is left to do. The task returns the report, a :class:`.RestoreReport` as a dict, with ``markdown``
    for people.

    Args:
        table: ``"table"`` or ``"schema.table"``, case-sensitive (templated).
        at: What ``LakebaseRestorePointOperator`` returned; a time with its zone, as a datetime or in ISO
            8601; or a position in the log (templated).
        keys: Columns by which a row is the same one; the primary key by default (templated).
        where: Condition of the rows that are looked at, in SQL; all by default (templated).
        dry_run: Whether to change nothing.
        overwrite: Whether to give rows that have changed since their former values, too.
        branch: Name or id of the branch whose table it is, instead of the connection's own (templated).
        examples: How many rows of each kind are shown, at most 100; 0 shows no values.
        run_id: What the id of the branch follows from (templated): by default DAG, run, task and map index.
        lock_timeout: Seconds that a statement waits for a lock.
        attempts: How many times the transaction is tried that gets no lock, or is undone for another one.
        timeout: Seconds that no attempt begins after.
        lease: Options of the branch's lease, such as ``{"max_cu": 4}``.
        restore_point: Whether to note, before anything is changed, the moment to come back to, which costs
            nothing: XCom's ``restore_point``, the `at` of ``LakebaseRestoreRowsOperator``.
        kwargs: ``conn_id``, ``manage_conn_id`` as for
            :class:`~lakebase_provider.operators.branches.managing.ManagingOperator`, and arguments of
            ``BaseOperator``.

    Raises:
        ConfigError: An argument is malformed; when the DAG is parsed.
        AirflowFailException: A row cannot be put back, and nothing was written; or else a retry cannot help.
        LakebaseError: When the task fails and a retry may help.

    Example:
        >>> LakebaseRestoreRowsOperator(task_id="undo", table="orders", at=before.output, dry_run=False)
    """

    template_fields: Sequence[str] = (
        *ManagingOperator.template_fields,
        *("table", "at", "keys", "where", "branch", "run_id"),
    )

    def __init__(
        self,
        *,
        table: str,
        at: Mapping[str, Any] | datetime | str,
        keys: Sequence[str] = (),
        where: str | None = None,
        dry_run: bool = True,
        overwrite: bool = False,
        branch: str | None = None,
        examples: int = 5,
        run_id: str = RUN_ID,
        lock_timeout: float = 5.0,
        attempts: int = 5,
        timeout: float = 3600.0,
        lease: LeaseOptions | None = None,
        restore_point: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(timeout=timeout, **kwargs)
        self.table = table
        self.at = at
        self.keys = keys
        self.where = where
        # BaseOperator has a method of that name.
        self.is_dry_run = dry_run
        self.overwrite = overwrite
        self._take_branch(branch)
        self.examples = examples
        self.run_id = run_id
        self.lock_timeout = lock_timeout
        self.attempts = attempts
        self.lease = lease
        self.restore_point = restore_point
        self._check_own_arguments(("lock_timeout", "timeout", "lease"))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        super()._check_arguments(given)
        require_seconds(given, "lock_timeout")
        lease_options(given.get("lease") or {})

    def execute(self, context: Context) -> dict[str, Any]:
        """Put the rows back, or see what would be, and return the report."""
        options: Any = {name: getattr(self, name) for name in _OPTIONS}
        with failing_fast(), self._unwinding():
            options["lease"] = lease_options(self.lease or {})
            self._note_restore_point(context, lambda: self.get_db_hook().client)
            client = self._managed(**self._branch_setting).acting
            report = client.restore_rows(self.table, self.at, dry_run=self.is_dry_run, **options)
        markdown = report.to_markdown()
        self.log.info("%s", markdown)
        return {**report.to_dict(), "markdown": markdown}

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """The table, if rows were put back."""
        from airflow.providers.openlineage.extractors import OperatorLineage

        from lakebase_provider._airflow.task.lineage import table_dataset

        if self.is_dry_run:
            return OperatorLineage()
        hook = self.get_db_hook()
        target = hook.client.target()
        return OperatorLineage(
            outputs=[table_dataset(target, hook.get_openlineage_default_schema, self.table)]
        )
