"""The statements of one call of the hook, and their results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow.providers.common.sql.hooks import handlers, lineage

from lakebase_provider.core.connect.harmless import leaves_no_trace
from lakebase_provider.core.errors import ConfigError

if TYPE_CHECKING:
    import psycopg
    from airflow.providers.common.sql.hooks.sql import DbApiHook

Statements = str | Iterable[str]
Parameters = Iterable[Any] | Mapping[str, Any]


class StatementBatch:
    """What :meth:`LakebaseHook.run` and its async shell share: the statements and their results."""

    def __init__(
        self,
        hook: DbApiHook,
        sql: Statements,
        parameters: Parameters | None,
        split_statements: bool,
        return_last: bool,
        read_only: bool,
    ) -> None:
        self._hook = hook
        self._read_only = read_only
        self._single = handlers.return_single_query_results(sql, return_last, split_statements)
        if not isinstance(sql, str):
            self.statements = list(sql)
        elif split_statements:
            self.statements = hook.split_sql_string(sql, strip_semicolon=hook.strip_semicolon)
        else:
            self.statements = [sql] if sql.strip() else []
        if not self.statements:
            raise ValueError("List of SQL statements is empty")
        self.parameters: Any = _as_psycopg_takes(parameters)
        self._results: list[Any] = []
        hook.descriptions = []

    def autocommit(self, asked: bool) -> bool:
        """Whether no transaction is begun: because the caller asked, or because it would have no effect."""
        if asked or self._read_only or len(self.statements) > 1:
            return asked
        return leaves_no_trace(self.statements[0])

    def announce(self, statement: str) -> None:
        """Log what is about to run."""
        if self._hook.log_sql:
            self._hook.log.info("Running statement: %s, parameters: %s", statement, self.parameters)

    def note(self, statement: str, cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> None:
        """Report what has run to Airflow's lineage and the log."""
        if _is_collected(lineage.get_hook_lineage_collector):  # type: ignore[attr-defined] # imported there
            lineage.send_sql_hook_lineage(
                context=self._hook, sql=statement, sql_parameters=self.parameters, cur=cursor
            )
        # A query affects no rows, and logging how many it found costs as much as fetching them.
        if cursor.rowcount >= 0 and not (cursor.statusmessage or "").startswith(("SELECT", "SHOW")):
            self._hook.log.info("Rows affected: %s", cursor.rowcount)

    def keep(self, result: Any, cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> None:
        """Keep a handler's result and its columns."""
        if self._single:
            self._results, self._hook.descriptions = [], []
        self._results.append(result)
        self._hook.descriptions.append(cursor.description)

    def result(self, handler: object) -> Any:
        """The result for the caller."""
        if handler is None:
            return None
        return self._results[-1] if self._single else self._results


@lru_cache(maxsize=1)
def _is_collected(collector: Callable[[], object]) -> bool:
    """Whether anybody reads the lineage of hooks: telling nobody takes 4 % of a short statement's time.

    Args:
        collector: Airflow's, which is made once for a process.
    """
    return type(collector()).__name__ != "NoOpCollector"


def _as_psycopg_takes(parameters: Parameters | None) -> Any:
    if parameters is None or isinstance(parameters, (Mapping, list, tuple)):
        return parameters
    if isinstance(parameters, (str, bytes)):
        raise ConfigError(
            f"The parameters are of type {type(parameters).__name__}.",
            remedy="Give a list, a tuple or a mapping, such as (value,).",
        )
    return list(parameters)
