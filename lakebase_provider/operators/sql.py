"""SQL on Lakebase: common-sql's operator with timeouts, where killing a task cancels it on the server.

Airflow parses DAG files again and again, and imports this module each time: what only a running task needs is
imported where it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.sql.hooks.handlers import fetch_all_handler
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator

from lakebase_provider._airflow.task.arguments import (
    DEFAULT_CONN_ID,
    LakebaseArguments,
    conn_id_of,
    require_hook_params,
    require_seconds,
)
from lakebase_provider._airflow.task.failing_fast import failing_fast
from lakebase_provider.links import LakebaseConsoleLink

if TYPE_CHECKING:
    from airflow.sdk import Context

    from lakebase_provider.core.errors import LakebaseError
    from lakebase_provider.hooks.lakebase import LakebaseHook

#: Arguments of SQLExecuteQueryOperator that apply to rows in memory, which exist only when a worker fetches
#: them, and their defaults.
_ON_ROWS = {
    "handler": fetch_all_handler,
    "output_processor": None,
    "return_last": True,
    "show_return_value_in_logs": False,
    "requires_result_fetch": False,
}


class LakebaseSqlOperator(LakebaseArguments, SQLExecuteQueryOperator):
    """Runs SQL on a Lakebase database.

    All arguments of ``SQLExecuteQueryOperator`` work as usual: `sql`, `parameters`, `autocommit`,
    `split_statements`, `handler`, `return_last`, `database` and more.

    With `deferrable`, the triggerer runs the statements and the task's slot is free meanwhile. The task then
    returns ``{"rows": [...]}``, how many rows each statement returned or changed, since rows are not sent
    through Airflow's database. `sql` is split into its statements, which share one transaction. If the
    triggerer restarts meanwhile, the statements are cancelled, rolled back and run again; as with any retry,
    it is up to the author to write statements that may run twice.

    Args:
        conn_id: Id of the Airflow connection (templated); ``lakebase_default`` by default.
        lakebase_conn_id: An alias of `conn_id`.
        branch: Name or id of a branch on which to work, instead of the connection's own (templated).
        statement_timeout: Seconds after which the server cancels a statement; the connection's by default.
        lock_timeout: Seconds that a statement waits for a lock; the connection's by default.
        read_only: Whether the transaction may only read; the server refuses a write.
        deferrable: Whether the triggerer runs the statements. The deployment's default does not apply, since
            the task returns something else.
        max_xcom_rows: Maximum number of rows of one statement; with more, the task fails and rolls back
            instead of pushing them to XCom. None for no limit.
        output_path: A local path or a URL of Airflow's object storage (templated), to which the rows of the
            last statement, a query, are written, as by an unload. It ends in ``.csv``, ``.jsonl``,
            ``.parquet`` or ``.arrow``. The task then returns ``{"path": ..., "rows": ...}``, the number of
            rows.
        fence: Whether a retry ends the session of an earlier try that is still running because only its
            heartbeat was lost. What must happen only once needs more: a load's ledger.
        idempotent: Whether the statements may run again, as one transaction, after a deadlock or a
            serialization failure; they do so at once, at most five times.
        restore_point: Whether to note, before anything is changed, the moment to come back to, which costs
            nothing: XCom's ``restore_point``, the `at` of ``LakebaseRestoreRowsOperator``.
        kwargs: Arguments of ``SQLExecuteQueryOperator``.

    Raises:
        ConfigError: Arguments contradict each other; when the DAG is parsed.
        AirflowFailException: When the task fails in a way that a retry cannot help.
        LakebaseError: When the task fails and a retry may help.

    Example:
        >>> LakebaseSqlOperator(task_id="count", sql="select count(*) from orders")
    """

    template_fields: Sequence[str] = (*SQLExecuteQueryOperator.template_fields, "branch", "output_path")
    operator_extra_links = (LakebaseConsoleLink(),)

    def __init__(
        self,
        *,
        conn_id: str | None = None,
        lakebase_conn_id: str | None = None,
        branch: str | None = None,
        statement_timeout: float | None = None,
        lock_timeout: float | None = None,
        read_only: bool = False,
        deferrable: bool = False,
        max_xcom_rows: int | None = 10_000,
        output_path: str | None = None,
        fence: bool = False,
        idempotent: bool = False,
        restore_point: bool = False,
        **kwargs: Any,
    ) -> None:
        chosen = conn_id_of(conn_id, lakebase_conn_id, kwargs.get("default_args"))
        super().__init__(conn_id=chosen, **kwargs)
        self._take_branch(branch)
        self.statement_timeout = statement_timeout
        self.lock_timeout = lock_timeout
        self.read_only = read_only
        self.deferrable = deferrable
        self.max_xcom_rows = max_xcom_rows
        self.output_path = output_path
        self.fence = fence
        self.idempotent = idempotent
        self.restore_point = restore_point
        self._has_output_processor = kwargs.get("output_processor") is not None
        self._check_own_arguments(("statement_timeout", "lock_timeout", "hook_params"))
        _require_transaction_here(kwargs, deferrable, fence=fence, idempotent=idempotent)
        _require_possible(
            kwargs, read_only=read_only, deferrable=deferrable, max_rows=max_xcom_rows, path=output_path
        )

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        require_seconds(given, "statement_timeout", "lock_timeout")
        require_hook_params(given.get("hook_params"))

    @cached_property
    def _lakebase_hook(self) -> LakebaseHook:
        # The hook brings the driver; parsing a DAG must not.
        from lakebase_provider.hooks.lakebase import LakebaseHook

        timeouts = {"statement_timeout": self.statement_timeout, "lock_timeout": self.lock_timeout}
        return LakebaseHook(
            self.conn_id or DEFAULT_CONN_ID,
            schema=self.database,
            **({"read_only": True} if self.read_only else {}),
            **{**timeouts, **self.hook_params, **self._branch_setting},
        )

    def get_db_hook(self) -> LakebaseHook:
        """The hook, made without copying the connection's secrets into `hook_params`, a template field."""
        return self._lakebase_hook

    def execute(self, context: Context) -> Any:
        """Run the statements and return what the handler made of their rows."""
        with failing_fast():
            self._note_restore_point(context, lambda: self.get_db_hook().client)
            if self.deferrable:
                self._defer_statements()
            return self._execute_here(context)

    def _execute_here(self, context: Context) -> Any:
        # These bring the driver; parsing a DAG must not.
        from lakebase_provider.core.database.blockers import naming_blockers
        from lakebase_provider.core.database.conflicts import again_on_conflict

        hook = self.get_db_hook()
        if self.fence:
            ti = context["ti"]
            hook.fence_key = f"{ti.dag_id}/{ti.task_id}/{ti.run_id}/{ti.map_index}"
        with naming_blockers(hook.client.connect, hook.client.config.lock_timeout, hook.backend_pids):
            if self.idempotent:
                return again_on_conflict(lambda: self._execute_once(context))
            return self._execute_once(context)

    def _execute_once(self, context: Context) -> Any:
        if self.output_path is not None:
            return self._write_result(self.output_path)
        handler, self.handler = self.handler, self._bounded(self.handler)
        hook = self.get_db_hook()
        if self.do_xcom_push and not self._has_output_processor:
            from lakebase_provider._airflow.statements.xcom_values import keep_texts

            hook.adapt = keep_texts
        try:
            return super().execute(context)  # type: ignore[no-untyped-call] # common-sql annotates it not
        finally:
            self.handler, hook.adapt = handler, None

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return what the trigger counted or wrote, or raise its error."""
        from lakebase_provider._airflow.task.events import error_of

        with failing_fast():
            error = error_of(event)
            if error is not None:
                raise error
        result = {name: value for name, value in event.items() if name != "status"}
        self.log.info("Result: %s", result)
        return result

    def on_kill(self) -> None:
        """Cancel what is still running on the server when the task is killed or times out."""
        # Without a hook nothing is running, and making one now would use up the remaining time.
        hook: LakebaseHook | None = self.__dict__.get("_lakebase_hook")
        if hook is not None:
            hook.cancel()

    def _bounded(self, handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The handler, failing before the commit if it would return too many or odd rows to XCom."""
        if not self.do_xcom_push:
            return handler
        from lakebase_provider._airflow.statements.xcom_values import as_xcom_takes

        limit = math.inf if self.max_xcom_rows is None else self.max_xcom_rows

        def fetch(cursor: Any) -> Any:
            # All rows are here already; unwanted ones need not become Python objects too.
            if handler is fetch_all_handler and cursor.description is not None:
                _require_at_most(limit, cursor.rowcount)
            result = handler(cursor)
            if isinstance(result, list):
                _require_at_most(limit, len(result))
            # The author's own function may return anything.
            return result if self._has_output_processor else as_xcom_takes(result)

        return fetch

    def _defer_statements(self) -> None:
        from lakebase_provider._airflow.task.triggerer import require_json
        from lakebase_provider.triggers.sql import LakebaseSqlTrigger

        parameters = require_json(self.parameters)
        session = {
            name: f"{max(1, round(seconds * 1000))}ms"
            for name in ("statement_timeout", "lock_timeout")
            if (seconds := getattr(self, name)) is not None
        }
        seconds = None if self.execution_timeout is None else self.execution_timeout.total_seconds()
        # The triggerer serves many tasks; in pg_stat_activity the session still has this task's name.
        session["application_name"] = self.get_db_hook().config.application_name
        settings = {"schema": self.database} if self.database else {}
        trigger = LakebaseSqlTrigger(
            conn_id=self.conn_id or DEFAULT_CONN_ID,
            sql=self._statements(),
            parameters=parameters,
            settings={**settings, **self.hook_params, **self._branch_setting},
            session=session,
            autocommit=self.autocommit,
            read_only=self.read_only,
            output_path=self.output_path,
            timeout=seconds,
        )
        self.log.info("Deferring: %s", self.sql)
        self.defer(trigger=trigger, method_name="execute_complete", timeout=self.execution_timeout)

    def _write_result(self, path: str) -> dict[str, Any]:
        from lakebase_provider._airflow.rows.result_files import check_path, write_rows
        from lakebase_provider._airflow.statements.cursors import require_query, single_statements

        check_path(path)
        texts = self._statements()
        with closing(self.get_db_hook().get_conn()) as connection:
            parameters: Any = self.parameters or None
            *first, last = [one for text in texts for one in single_statements(connection, text, parameters)]
            require_query(last[0])
            for statement, values in first:
                self.log.info("Executing: %s", statement)
                connection.execute(statement, values)
            self.log.info("Executing: %s", last[0])
            rows = write_rows(connection, *last, path, commit=connection.commit)
        self.log.info("Wrote %d rows to %s", rows, path)
        return {"path": path, "rows": rows}

    def _statements(self) -> list[str]:
        """Texts that each get the parameters; a text with only comments is not one."""
        from lakebase_provider.core.base.sql.sql_text import statements

        texts = [self.sql] if isinstance(self.sql, str) else list(self.sql)
        parts = [statements(text) for text in texts]
        if not any(parts):
            raise _config_error("There is no statement in 'sql'.", "Give at least one statement.")
        if self.split_statements:
            return [statement for part in parts for statement in part]
        if self.split_statements is False and self.autocommit and any(len(part) > 1 for part in parts):
            raise _config_error(
                "With 'autocommit', split_statements=False runs several statements as one transaction, but "
                "the triggerer runs them one by one.",
                "Leave out 'autocommit', 'split_statements' or 'deferrable'.",
            )
        return [text for text, part in zip(texts, parts, strict=True) if part]


def _require_possible(
    given: dict[str, Any], *, read_only: bool, deferrable: bool, max_rows: int | None, path: str | None
) -> None:
    if max_rows is not None and (isinstance(max_rows, bool) or not isinstance(max_rows, int) or max_rows < 1):
        raise _config_error(
            "Argument 'max_xcom_rows' is not a number of rows.", "Give 1 or more, or None for no limit."
        )
    if given.get("autocommit") and (read_only or path is not None):
        other = "read_only" if read_only else "output_path"
        raise _config_error(
            f"Argument '{other}' needs a transaction, which 'autocommit' rules out.",
            f"Set either '{other}' or 'autocommit'.",
        )
    if path is not None:
        from lakebase_provider._airflow.rows.result_files import check_path

        check_path(path)
    if not deferrable and path is None:
        return
    what = "deferrable" if deferrable else "output_path"
    for name, default in _ON_ROWS.items():
        # Not the value: spelling out the default is no contradiction.
        if given.get(name, default) != default:
            raise _config_error(
                f"Argument '{name}' applies to rows, which the task does not see with '{what}'.",
                f"Leave out '{name}' or '{what}'.",
            )
    if deferrable:
        # Most DAG files are parsed without needing it, again and again.
        from lakebase_provider._airflow.task.triggerer import require_json, require_no_secrets

        require_json(given.get("parameters"))
        require_no_secrets(given.get("hook_params"))


def _require_transaction_here(given: dict[str, Any], deferrable: bool, **wanted: bool) -> None:
    for name in (name for name, value in wanted.items() if value):
        if deferrable:
            raise _config_error(
                f"Argument '{name}' has no effect in the triggerer.",
                f"Leave out '{name}' or 'deferrable'.",
            )
        if name == "idempotent" and given.get("autocommit"):
            raise _config_error(
                "Argument 'idempotent' needs a transaction, which 'autocommit' rules out.",
                "Set either 'idempotent' or 'autocommit'.",
            )


def _config_error(message: str, remedy: str) -> LakebaseError:
    from lakebase_provider.core.errors import ConfigError

    return ConfigError(message, remedy=remedy)


def _require_at_most(limit: float, rows: int) -> None:
    if rows > limit:
        from lakebase_provider.core.errors import ResultTooLargeError

        raise ResultTooLargeError(
            f"A statement returned {rows} rows, more than max_xcom_rows={limit} allows in XCom.",
            remedy="Set output_path to write them to a file, select fewer rows, or raise max_xcom_rows.",
        )
