"""The hook: all that Airflow's SQL operators need, on pooled connections with a password that renews."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.sdk.log import mask_secret

from lakebase_provider.core.client import LakebaseClient, close_shared_clients, shared_client
from lakebase_provider.core.config import LakebaseConfig, setting
from lakebase_provider.core.engine import sqlalchemy_url
from lakebase_provider.core.errors import LakebaseError
from lakebase_provider.core.token import Token
from lakebase_provider.hooks.connection import config_of, hide_secrets, secrets_of
from lakebase_provider.hooks.dialect import LakebaseDialect
from lakebase_provider.hooks.sigterm import cancel_statements_on_sigterm

if TYPE_CHECKING:
    from airflow.providers.openlineage.sqlparser import (
        DatabaseInfo,
    )
    from sqlalchemy.engine import URL, Engine

    from lakebase_provider.core.connection import LakebaseConnection

#: Arguments of DbApiHook that are not settings of a connection.
_HOOK_ARGUMENTS = (
    "connection",
    "insert_statement_format",
    "replace_statement_format",
    "escape_word_format",
    "escape_column_names",
)
#: Postgres cuts names off after this many characters of ASCII.
_NAME_BYTES = 63


class LakebaseHook(DbApiHook):
    """Talks to a Lakebase database through this process's pool.

    Every SQL operator of ``common-sql`` works on a connection of type ``lakebase``. All calls in a task
    share one pool and one token; a connection that is closed goes back to the pool, rolled back and reset.

    Args:
        lakebase_conn_id: Id of the Airflow connection.
        schema: Name of the database, in place of the connection's (Airflow calls it `schema`).
        log_sql: Whether statements and their parameters are logged.
        overrides: Settings by name that go before the connection's, such as ``statement_timeout=30``
            (seconds). Airflow's SQL operators also pass the connection's own extras here.

    Raises:
        ConfigError: Not here but at the first use, with the connection and the setting named.

    Example:
        >>> hook = LakebaseHook("lakebase_default")
        >>> hook.get_first("select current_user")
    """

    conn_name_attr = "lakebase_conn_id"
    default_conn_name = "lakebase_default"
    conn_type = "lakebase"
    hook_name = "Databricks Lakebase"
    supports_autocommit = True
    supports_executemany = True

    def __init__(
        self,
        lakebase_conn_id: str = default_conn_name,
        *,
        schema: str | None = None,
        log_sql: bool = True,
        **overrides: Any,
    ) -> None:
        base = {name: overrides.pop(name) for name in _HOOK_ARGUMENTS if name in overrides}
        super().__init__(lakebase_conn_id=lakebase_conn_id, log_sql=log_sql, **base)
        self._overrides = hide_secrets(overrides)
        self._lent: LakebaseConnection | None = None
        if schema:
            self.schema = schema

    @property
    def schema(self) -> str:
        """Name of the database; setting it really changes the database, as Airflow's operators expect."""
        return self.config.database

    @schema.setter
    def schema(self, database: str) -> None:
        self._overrides["database"] = database
        self.__dict__.pop("config", None)

    @cached_property
    def config(self) -> LakebaseConfig:
        """The connection's settings.

        Raises:
            ConfigError: A setting is unknown, missing, malformed or contradicts another.
        """
        config = config_of(self.connection, self._overrides)
        for secret in secrets_of(config):
            mask_secret(secret.reveal())
        task = _task_name()
        if task is not None and config.application_name == setting("application_name").default:
            # It is in pg_stat_activity that somebody looks for the task that holds a lock.
            config = config.replace(application_name=task)
        return config

    @property
    def client(self) -> LakebaseClient:
        """The process's client for this connection; it masks each token in Airflow's logs when minted.

        Raises:
            ConfigError: As for `config`, or there are no workspace credentials.
        """
        _close_pools_of_an_earlier_task()
        cancel_statements_on_sigterm()
        client = shared_client(self.config)
        client.tokens.on_mint(_mask_token)
        return client

    def get_conn(self) -> LakebaseConnection:
        """A connection of the pool; closing it hands it back.

        Raises:
            PoolExhaustedError: All connections stayed in use for `connect_budget` seconds.
            LakebaseError: No connection could be opened; the driver's error is its cause.
        """
        self._lent = self.client.pool.getconn()
        return self._lent

    def cancel(self, timeout: float = 3.0) -> None:
        """Cancel the statement that this hook's latest connection runs, if any; safe in a signal handler.

        Args:
            timeout: Seconds to wait at most for the server to take the request; Airflow kills a task for good
                5 seconds after it asked it to end.
        """
        lent = self._lent
        # No lock is taken here: the statement that the signal interrupted may hold it.
        if lent is not None and not lent.closed:
            lent.cancel_safe(timeout=timeout)

    @property
    def sqlalchemy_url(self) -> URL:
        """Where an engine connects to, as whom, and without a password."""
        return sqlalchemy_url(self.client.target())

    def get_uri(self) -> str:
        """:attr:`sqlalchemy_url` as text."""
        return self.sqlalchemy_url.render_as_string()

    def get_sqlalchemy_engine(self, engine_kwargs: dict[str, Any] | None = None) -> Engine:
        """A new engine that obtains a valid token at each physical connect; the caller disposes of it.

        Args:
            engine_kwargs: Further arguments of ``sqlalchemy.create_engine``.
        """
        return self.client.engine(**(engine_kwargs or {}))

    @property
    def dialect_name(self) -> str:
        """The SQL dialect, known without a connection."""
        return "postgresql"

    @cached_property
    def dialect(self) -> LakebaseDialect:
        """How statements are written; the same whether or not the Postgres provider is installed."""
        return LakebaseDialect(self)

    def _get_pandas_df(self, sql: Any, parameters: Any = None, **kwargs: Any) -> Any:
        with _accepting_psycopg():
            return super()._get_pandas_df(sql, parameters, **kwargs)

    def _get_pandas_df_by_chunks(
        self, sql: Any, parameters: Any = None, *, chunksize: int, **kwargs: Any
    ) -> Any:
        chunks = super()._get_pandas_df_by_chunks(sql, parameters, chunksize=chunksize, **kwargs)
        with _accepting_psycopg():
            first = next(chunks, None)
        if first is not None:
            yield first
            yield from chunks

    # common-sql hands polars the parameters as if they were options of the cursor.
    def _get_polars_df(self, sql: Any, parameters: Any = None, **kwargs: Any) -> Any:
        import polars

        options = None if parameters is None else {"params": parameters}
        with closing(self.get_conn()) as conn:
            return polars.read_database(sql, conn, execute_options=options, **kwargs)

    def _get_polars_df_by_chunks(
        self, sql: Any, parameters: Any = None, *, chunksize: int, **kwargs: Any
    ) -> Any:
        import polars

        options = None if parameters is None else {"params": parameters}
        with closing(self.get_conn()) as conn:
            yield from polars.read_database(
                sql, conn, execute_options=options, iter_batches=True, batch_size=chunksize, **kwargs
            )

    def test_connection(self) -> tuple[bool, str]:  # type: ignore[override] # common-sql annotates it not
        """Check every stage from the name to a write; what the "Test" button of the connection shows.

        Returns:
            Whether all is well, and one line: the web interface would run the lines of a table together.
        """
        try:
            report = self.client.health()
        except LakebaseError as error:
            return False, str(error)
        return report.ok, report.summary()

    @staticmethod
    def _serialize_cell(cell: Any, conn: Any = None) -> Any:
        """The cell as it is: psycopg knows dates, numbers, arrays and bytes. A mapping becomes JSON."""
        if isinstance(cell, dict):
            from psycopg.types.json import Json

            return Json(cell)
        return cell

    def get_openlineage_database_info(self, connection: Any) -> DatabaseInfo:
        """Which database lineage is about, by the resolved host."""
        from airflow.providers.openlineage.sqlparser import DatabaseInfo

        target = self.client.target()
        return DatabaseInfo(
            scheme="postgres", authority=f"{target.host}:{target.port}", database=target.database
        )

    def get_openlineage_database_dialect(self, connection: Any) -> str:
        """The dialect in which OpenLineage parses statements."""
        return "postgres"


@contextmanager
def _accepting_psycopg() -> Iterator[None]:
    # pandas reads from any DBAPI connection and warns that it has tested SQLAlchemy's alone.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pandas only supports SQLAlchemy", UserWarning)
        yield


def _mask_token(token: Token) -> None:
    mask_secret(token.reveal())


def _task_name() -> str | None:
    dag, task = os.environ.get("AIRFLOW_CTX_DAG_ID"), os.environ.get("AIRFLOW_CTX_TASK_ID")
    return f"{dag}.{task}"[:_NAME_BYTES] if dag and task else None


_task_served: str | None = None


def _close_pools_of_an_earlier_task() -> None:
    # A task runs in a process of its own, except under dag.test: there its connections would stay open.
    global _task_served
    task = _task_name()
    if _task_served is not None and _task_served != task:
        close_shared_clients()
    _task_served = task
