"""Rows of a query into a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lakebase_provider._airflow.task.failing_fast import failing_fast
from lakebase_provider.core.bulk.sources.delta.opened import is_delta
from lakebase_provider.core.bulk.unload.options import check_unload_options
from lakebase_provider.operators.bulk import LOAD_ID, BulkOperator
from lakebase_provider.operators.load import located, templatable

if TYPE_CHECKING:
    from os import PathLike

    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context, ObjectStoragePath

    from lakebase_provider.core.bulk.types.decimals import Numeric
    from lakebase_provider.core.bulk.unload.destination import Format
    from lakebase_provider.core.bulk.unload.options import WriteMode


class LakebaseUnloadOperator(BulkOperator):
    """Writes a query's result to a file or a Delta table, in constant memory, or nothing if it fails.

    It returns ``{"path": ..., "rows": ..., "bytes": ..., "seconds": ..., "files": ..., "version": ...,
    "skipped": ...}``; a task that loads the file takes ``unload.output["path"]``.

    Args:
        sql: The query (templated), or the name of a file that ends in ``.sql``.
        to: Path of the file (templated): a local one, or one of Airflow's object storage such as
            ``s3://connection@bucket/orders.parquet``; with `parallel`, of a folder. Or a Delta table:
            ``delta:`` and its path; its store's credentials come from the environment.
        format: ``"parquet"``, ``"arrow"`` (an IPC file), ``"csv"`` (as Postgres writes it, with a header) or
            ``"jsonl"`` (JSON lines); None for what a single file's suffix says, else Parquet.
        parameters: Values for the query's placeholders (templated).
        batch_rows: Maximum number of rows in a Parquet row group or an Arrow record batch.
        parallel: Number of files written at once, over as many connections, all from one snapshot.
        by: Column of the result whose value divides the rows among the files; required for more than one.
        numeric: For Parquet and Arrow: ``"text"`` writes numerics as text, with any number of digits, NaN
            included.
        mode: For a Delta table: ``"append"`` (the default), ``"overwrite"`` or ``"merge"``.
        keys: For merge: names of the columns that identify a row (templated).
        unload_id: For a Delta table: a second unload with the same id is skipped. By default dag, task, run
            and map index, as the `load_id` of a load (templated). None to write at each try.
        kwargs: ``conn_id``, ``branch``, ``hook_params`` as for
            :class:`~lakebase_provider.operators.bulk.BulkOperator`, and arguments of ``BaseOperator``.

    Raises:
        AirflowFailException: When the task fails in a way that a retry cannot help.
        LakebaseError: When the task fails and a retry may help.

    Example:
        >>> LakebaseUnloadOperator(task_id="unload", sql="SELECT * FROM orders", to="/data/{{ ds }}.parquet")
    """

    template_fields: Sequence[str] = (
        "sql",
        "to",
        "parameters",
        "keys",
        *BulkOperator.template_fields,
    )
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
        mode: WriteMode | None = None,
        keys: Sequence[str] | None = None,
        unload_id: str | None = LOAD_ID,
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
        self.mode = mode
        self.keys = keys
        self.unload_id = unload_id
        self._check_own_arguments(("to", "format", "batch_rows", "parallel", "by", "numeric", "mode", "keys"))

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
                mode=self.mode,
                keys=self.keys,
                # Files are replaced at each try, and have no id to render.
                unload_id=self.render_template(self.unload_id, context) if is_delta(self.to) else None,
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
