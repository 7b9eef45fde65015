"""Synced tables as tasks: made, made anew as they are declared, and deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, get_args

from lakebase_provider._airflow.task.arguments import require_synced_table
from lakebase_provider._airflow.task.failing_fast import failing_fast
from lakebase_provider.operators.branches.managing import ManagingOperator, deferred_by_default
from lakebase_provider.operators.sync.waiting import SyncingOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from lakebase_provider.core.workspace.objects.sync.synced_tables import SyncedTableOptions
    from lakebase_provider.hooks._branches import Managed

Action = Literal["ensure", "reconcile", "delete"]
#: What each argument is for.
_OF = {"view": ("reconcile",), "drop_orphans": ("reconcile",), "drop_table": ("delete",)}


class LakebaseSyncedTableOperator(SyncingOperator):
    """Makes a synced table, has it as it is declared, or deletes it; each may be repeated.

    It returns what :class:`~lakebase_provider.operators.sync.LakebaseSyncOperator` returns, of the table that
    is in use then. ``"reconcile"`` adds ``action`` (``"created"``, ``"unchanged"``, ``"noted"`` or
    ``"replaced"``), ``changed``, ``former``, ``indexes`` and ``lost_grants`` of a :class:`.ReconcileReport`.
    After ``"delete"`` it returns ``name`` and ``state`` None.

    Args:
        action: ``"ensure"``, which makes it unless it is there; ``"reconcile"``, which also makes another one
            beside it if its mode, key or source is another; ``"delete"``. The first two wait for its first
            rows.
        table: Name of the synced table in the Unity Catalog, ``<catalog>.<schema>.<table>`` (templated).
        options: For ensure and reconcile: ``source_table``, ``primary_key``, ``scheduling_policy`` or another
            of :class:`.SyncedTableOptions` (templated); the database is the connection's by default.
        view: For reconcile: a view, ``schema.view``, which readers use and which shows the one in use
            (templated).
        drop_orphans: For reconcile: whether to drop what is no longer filled.
        drop_table: For delete: False to leave its table in Postgres.
        deferrable: Whether the triggerer waits for the first rows after ensure; the deployment's default if
            left out.
        timeout: Seconds that it may take, its first rows included.
        kwargs: ``conn_id`` and ``manage_conn_id`` as for
            :class:`~lakebase_provider.operators.branches.managing.ManagingOperator`, and arguments of
            ``BaseOperator``. Reconcile and delete log in, as `conn_id` says.

    Raises:
        ConfigError: An argument is malformed, or has no meaning for the action; when the DAG is parsed.
        AirflowFailException: When the task fails in a way that a retry cannot help.
        LakebaseError: When the task fails and a retry may help.

    Example:
        >>> LakebaseSyncedTableOperator(
        ...     task_id="declare",
        ...     action="reconcile",
        ...     table="main.pub.trips",
        ...     options={
        ...         "source_table": "main.src.trips",
        ...         "primary_key": ["id"],
        ...         "scheduling_policy": "TRIGGERED",
        ...     },
        ... )
    """

    template_fields: Sequence[str] = (*ManagingOperator.template_fields, "table", "options", "view")

    def __init__(
        self,
        *,
        action: Action,
        table: str,
        options: SyncedTableOptions | None = None,
        view: str | None = None,
        drop_orphans: bool = False,
        drop_table: bool = True,
        deferrable: bool | None = None,
        timeout: float = 1800.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(table=table, timeout=timeout, **kwargs)
        self.action = action
        self.options = options
        self.view = view
        self.drop_orphans = drop_orphans
        self.drop_table = drop_table
        self.deferrable = deferred_by_default(deferrable)
        self._check_own_arguments(("action", "table", "options", "view", "drop_orphans", "drop_table"))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        super()._check_arguments(given)
        require_synced_table(given.get("table"))
        if "action" not in given:
            return
        from lakebase_provider.core.base.choices import require_choice
        from lakebase_provider.core.errors import ConfigError

        action = given["action"]
        require_choice("action", action, get_args(Action))
        unused = {"view": None, "drop_orphans": False, "drop_table": True}
        for name, actions in _OF.items():
            if action not in actions and given.get(name, unused[name]) != unused[name]:
                raise ConfigError(f"{name!r} has no meaning for {action!r}.", remedy="Leave it out.")
        if "options" in given and bool(given["options"]) == (action == "delete"):
            needs = "have no meaning" if action == "delete" else "are needed"
            raise ConfigError(
                f"'options' {needs} for {action!r}.",
                remedy="Leave them out, or give source_table, primary_key and scheduling_policy.",
            )

    def execute(self, context: Context) -> dict[str, Any]:
        """Do it, and say what the table is then."""
        with failing_fast(), self._unwinding():
            managed = self._managed()
            if self.action == "delete":
                upkeep = managed.acting.synced_tables
                upkeep.delete(self.table, missing_ok=True, drop_table=self.drop_table, timeout=self.timeout)
                self.log.info("The synced table %s is deleted.", self.table)
                return {"name": self.table, "state": None}
            if self.action == "reconcile":
                return self._reconciled(context, managed)
            return self._ensured(context, managed)

    def _reconciled(self, context: Context, managed: Managed) -> dict[str, Any]:
        from lakebase_provider.hooks._sync import sync_of

        options: Any = self.options
        report = managed.acting.synced_tables.reconcile(
            self.table, view=self.view, drop_orphans=self.drop_orphans, timeout=self.timeout, **options
        )
        self.log.info("The synced table is %s; %s differed.", report.action, report.changed or "nothing")
        return {
            **self._synced(context, sync_of(report.table)),
            "action": report.action,
            "changed": [*report.changed],
            "former": report.former,
            "indexes": report.indexes,
            "lost_grants": [asdict(one) for one in report.lost_grants],
        }

    def _ensured(self, context: Context, managed: Managed) -> dict[str, Any]:
        from lakebase_provider.core.workspace.objects.sync.synced_tables import first_of
        from lakebase_provider.hooks._sync import sync_of

        options: Any = {"postgres_database": managed.client.config.database, **(self.options or {})}
        tables = managed.workspace.synced_tables
        made = tables.ensure(self.table, timeout=self.timeout, **options)
        first = first_of(made)
        if self.deferrable and tables.reached(self.table, **first) is None:
            self._defer_sync(**first)
        done = tables.wait(self.table, timeout=self.timeout, **first)
        return self._synced(context, sync_of(done.table))

    def _source(self) -> str | None:
        return (self.options or {}).get("source_table")
