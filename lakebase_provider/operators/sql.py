"""SQL on Lakebase: common-sql's operator with timeouts, and with a kill that reaches the server."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator

from lakebase_provider.operators.failures import failing_fast

if TYPE_CHECKING:
    from airflow.sdk import Context

    from lakebase_provider.hooks.lakebase import LakebaseHook


class LakebaseSqlOperator(SQLExecuteQueryOperator):
    """Runs SQL on a Lakebase database.

    All arguments of ``SQLExecuteQueryOperator`` work as they do there: `sql`, `parameters`, `autocommit`,
    `split_statements`, `handler`, `return_last`, `database` and more.

    Args:
        conn_id: Id of the Airflow connection (templated).
        statement_timeout: Seconds after which the server cancels a statement; the connection's by default.
        lock_timeout: Seconds that a statement waits for a lock; the connection's by default.
        kwargs: Arguments of ``SQLExecuteQueryOperator``.

    Raises:
        AirflowFailException: When the task runs and its failure is one that no retry helps.
        LakebaseError: When the task runs and a retry may help.

    Example:
        >>> LakebaseSqlOperator(task_id="count", sql="select count(*) from orders")
    """

    def __init__(
        self,
        *,
        conn_id: str = "lakebase_default",
        statement_timeout: float | None = None,
        lock_timeout: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(conn_id=conn_id, **kwargs)
        self.statement_timeout = statement_timeout
        self.lock_timeout = lock_timeout

    @cached_property
    def _lakebase_hook(self) -> LakebaseHook:
        # The hook brings the driver; parsing a DAG must not.
        from lakebase_provider.hooks.lakebase import LakebaseHook

        timeouts = {"statement_timeout": self.statement_timeout, "lock_timeout": self.lock_timeout}
        return LakebaseHook(
            self.conn_id or LakebaseHook.default_conn_name,
            schema=self.database,
            **{**timeouts, **self.hook_params},
        )

    def get_db_hook(self) -> LakebaseHook:
        """The hook, made without copying the connection's secrets into `hook_params`, a template field."""
        return self._lakebase_hook

    def execute(self, context: Context) -> Any:
        """Run the statements and return what the handler made of their rows."""
        with failing_fast():
            return super().execute(context)  # type: ignore[no-untyped-call] # common-sql annotates it not

    def on_kill(self) -> None:
        """Cancel what still runs on the server, when the task is killed."""
        self.get_db_hook().cancel()
