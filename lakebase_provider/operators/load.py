"""Files into a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lakebase_provider._airflow.task.failing_fast import failing_fast
from lakebase_provider.core.bulk.files.csv_format import CSV_OPTIONS, CsvFormat
from lakebase_provider.core.bulk.files.file_kinds import kind_of
from lakebase_provider.core.bulk.files.locations import protocol_of, shown
from lakebase_provider.core.bulk.sources.delta.delta import Delta
from lakebase_provider.core.bulk.sources.delta.opened import is_delta
from lakebase_provider.operators.bulk import LoadingOperator

if TYPE_CHECKING:
    from os import PathLike

    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context, ObjectStoragePath


class LakebaseLoadOperator(LoadingOperator):
    """Loads files (CSV, JSON lines, Parquet, Arrow) or a Delta table: one transaction, in constant memory.

    It returns the counts of the load, a :class:`.LoadResult` as a dict. The files of a folder or pattern are
    one load. To make each file its own task and load, map it:
    ``LakebaseLoadOperator.partial(...).expand(source=[...])``.

    Args:
        source: Path of the file (templated): a local one, or one of Airflow's object storage such as
            ``s3://connection@bucket/orders.parquet``. It ends in ``.csv``, ``.tsv``, ``.jsonl`` or
            ``.ndjson``, optionally followed by ``.gz``, ``.bz2`` or ``.zst``, in ``.parquet``, ``.pq`` or
            ``.arrow``; or it is a folder of such files, with folders ``key=value`` as columns; or a pattern,
            such as ``/data/*.csv``. The output of another task that returns a path works too. Or a Delta
            table: ``delta:`` and its path, such as ``delta:s3://lake/orders?version=12``, whose store's
            credentials come from the environment, or ``delta:uc://`` and its name in the Unity Catalog.
        delimiter: For CSV, the field separator; a comma by default, for ``.tsv`` a tab.
        encoding: For CSV, the encoding, such as ``"cp1252"``, ``"latin-1"`` or ``"utf-16"``.
        null: For CSV, what means NULL when unquoted: a string, or a list of strings.
        header: For CSV, whether the first row holds the columns' names; without it, `columns` gives them.
        quote: For CSV, the quote character; None if quotes have no meaning.
        kwargs: Arguments of :class:`~lakebase_provider.operators.bulk.LoadingOperator`, of which `table`
            is needed, and of ``BaseOperator``.

    Raises:
        ConfigError: A CSV option is invalid.
        AirflowFailException: When the task fails in a way that a retry cannot help, such as a bad row;
            nothing was written.
        LakebaseError: When the task fails and a retry may help.

    Example:
        >>> LakebaseLoadOperator(task_id="load", source="/data/{{ ds }}.csv", table="orders", mode="merge")
    """

    template_fields: Sequence[str] = ("source", *LoadingOperator.template_fields)

    def __init__(
        self,
        *,
        source: str | PathLike[str] | ObjectStoragePath,
        delimiter: str | None = None,
        encoding: str = "utf-8",
        null: str | Sequence[str] = "",
        header: bool = True,
        quote: str | None = '"',
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = templatable(source)
        self.delimiter = delimiter
        self.encoding = encoding
        self.null = null
        self.header = header
        self.quote = quote
        self._check_own_arguments(("source", *CSV_OPTIONS))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        super()._check_arguments(given)
        csv = CsvFormat(**{name: given[name] for name in CSV_OPTIONS if name in given})
        source = given.get("source")
        if isinstance(source, str) and is_delta(source):
            csv.require_unused(f"Delta table {Delta.parse(source)}")
        elif isinstance(source, str):
            protocol_of(source, "source")
            kind = kind_of(source)
            if kind not in (None, "CSV"):
                csv.require_unused(f"{kind} file {shown(source)!r}")

    def _csv_options(self) -> dict[str, Any]:
        return asdict(CsvFormat(**{name: getattr(self, name) for name in CSV_OPTIONS}))

    def execute(self, context: Context) -> dict[str, Any]:
        """Load the file and return the result."""
        with failing_fast():
            return self._load(located(self.source, "source"), context, **self._csv_options())

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """The file is read, the table written."""
        from airflow.providers.openlineage.extractors import OperatorLineage

        from lakebase_provider._airflow.task.lineage import file_dataset

        return OperatorLineage(
            inputs=[file_dataset(str(self.source))],
            outputs=[self._table_dataset()],
        )


def templatable(path: Any) -> Any:
    """A path that Airflow can render: Airflow 3.1 requires a ``Path`` to exist."""
    return str(path) if type(path).__module__.partition(".")[0] == "pathlib" else path


def located(path: Any, argument: str) -> Any:
    """The path in a form that can be opened: a URI through Airflow's object storage, with its connection.

    Args:
        path: The path.
        argument: Name of the argument that it comes from, for errors.

    Raises:
        ConfigError: Its protocol is not allowed, or it is not a plain name.
    """
    if is_delta(path):
        return path
    # Checked before Airflow gets it, whose object looks up a file system at once.
    if isinstance(path, str) and protocol_of(path, argument):
        from airflow.sdk import ObjectStoragePath

        return ObjectStoragePath(path)
    return path
