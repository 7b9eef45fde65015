"""Rows of a query into a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lakebase_provider._airflow.task.failing_fast import failing_fast
from lakebase_provider.core.bulk.unload.options import check_unload_options
from lakebase_provider.operators.bulk import BulkOperator
from lakebase_provider.operators.load import located, templatable

if TYPE_CHECKING:
    from os import PathLike

    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context, ObjectStoragePath

    from lakebase_provider.core.bulk.types.decimals import Numeric
    from lakebase_provider.core.bulk.unload.destination import Format


class LakebaseUnloadOperator(BulkOperator):
    """Writes a query's result to a file, in constant memory; a failed task leaves no file behind.

    It returns ``{"path": ..., "rows": ..., "bytes": ..., "seconds": ..., "files": ...}``; a task that loads
    the file takes ``unload.output["path"]``.

    Args:
        sql: The query (templated), or the name of a file that ends in ``.sql``.
        to: Path of the file (templated): a local one, or one of Airflow's object storage such as
            ``s3://connection@bucket/orders.parquet``; with `parallel`, of a folder.
        format: ``"parquet"``, ``"arrow"`` (an IPC file), ``"csv"`` (as Postgres writes it, with a header) or
            ``"jsonl"`` (JSON lines); None for what a single file's suffix says, else Parquet.
        parameters: Values for the query's placeholders (templated).
        batch_rows: Maximum number of rows in a Parquet row group or an Arrow record batch.
        parallel: Number of files written at once, over as many connections, all from one snapshot.
        by: Column of the result whose value divides the rows among the files; required for more than one.
        numeric: For Parquet and Arrow: ``"text"`` writes numerics as text, with any number of digits, NaN
            included.
        kwargs: ``conn_id``, ``branch``, ``hook_params`` as for
            :class:`~lakebase_provider.operators.bulk.BulkOperator`, and arguments of ``BaseOperator``.

    Raises:
        AirflowFailException: When the task fails in a way that a retry cannot help.
        LakebaseError: When the task fails and a retry may help.

    Example:
        >>> LakebaseUnloadOperator(task_id="unload", sql="SELECT * FROM orders", to="/data/{{ ds }}.parquet")
    """

    template_fields: Sequence[str] = ("sql", "to", "parameters", *BulkOperator.template_fields)
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"sql": "sql", "parameters": "json"}  # noqa: RUF012 # as Airflow has it

    def __init__(
        self,
        *,
        sql: str,
        to: str | PathLike[str] | ObjectStoragePath,
        format: Format | None = None,
        parameters: Iterable[Any] | Mapping[str, Any] | None = None,
        batch_rows: int | None = None,
        parallel: int = 1,
        by: str | None = None,
        numeric: Numeric = "decimal",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sql = sql
        self.to = templatable(to)
        self.format = format
        self.parameters = parameters
        self.batch_rows = batch_rows
        self.parallel = parallel
        self.by = by
        self.numeric = numeric
        self._check_own_arguments(("format", "batch_rows", "parallel", "by", "numeric"))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        super()._check_arguments(given)
        check_unload_options(given)

    def execute(self, context: Context) -> dict[str, Any]:
        """Write the file and return the result."""
        from dataclasses import asdict

        from lakebase_provider.core.bulk.unload.unload import unload

        with failing_fast():
            # Made here, in the task's main thread, as only that may set signal handlers.
            client = self.get_db_hook().client
            self.log.info("Unloading to %s: %s", self.to, self.sql)
            result = unload(
                self._connection,
                self.sql,
                located(self.to, "to"),
                format=self.format,
                params=self.parameters or None,  # type: ignore[arg-type] # psycopg says what it is not
                batch_rows=self.batch_rows,
                parallel=self.parallel,
                by=self.by,
                numeric=self.numeric,
                max_connections=client.config.max_size,
            )
        self.log.info("Wrote %d rows, %d bytes to %s", result.rows, result.bytes, self.to)
        return {"path": str(self.to), **asdict(result)}

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """What the query reads is read, the file written."""
        from lakebase_provider._airflow.task.lineage import file_dataset, query_lineage

        lineage = query_lineage(self.get_db_hook(), self.conn_id, self.sql)
        lineage.outputs = [file_dataset(str(self.to))]
        return lineage
