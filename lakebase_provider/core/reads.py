"""How a client reads: queries to Arrow, frames, rows and files, and the catalog for what is not well."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.workspace.operations import in_thread

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from psycopg.abc import Query

    from lakebase_provider.core.bulk.read.statement import Parameters
    from lakebase_provider.core.bulk.types.decimals import Numeric
    from lakebase_provider.core.bulk.unload.destination import Format
    from lakebase_provider.core.bulk.unload.options import WriteMode
    from lakebase_provider.core.bulk.unload.unload import UnloadResult
    from lakebase_provider.core.config import LakebaseConfig
    from lakebase_provider.core.connect.connection import LakebaseConnection
    from lakebase_provider.core.upkeep.inspection.inspection_options import Limits
    from lakebase_provider.core.upkeep.inspection.inspection_report import InspectionReport


class Reads(ABC):
    """The reading half of :class:`~lakebase_provider.core.client.LakebaseClient`."""

    config: LakebaseConfig

    @abstractmethod
    def connection(self, timeout: float | None = None) -> AbstractContextManager[LakebaseConnection]:
        """A pooled connection."""

    @abstractmethod
    def connect(self, timeout: float | None = None, **parameters: Any) -> LakebaseConnection:
        """One connection outside the pool."""

    def inspect(
        self,
        checks: Iterable[str] | None = None,
        *,
        limits: Limits | None = None,
        statistics_days: float = 7.0,
        earlier: InspectionReport | Mapping[str, Any] | None = None,
        timeout: float = 10.0,
    ) -> InspectionReport:
        """Look for what is not well in the database, by its catalog and counters alone.

        Each check is one statement that only reads, and locks nothing but the catalog, with ACCESS SHARE; so
        it disturbs nobody, and waits for nobody. Of sequences the last value is read, and where pgstattuple
        is installed up to ten tables that seem bloated, likewise. ``ainspect`` is the twin for asyncio.

        Args:
            checks: Names of the checks; all by default.
            limits: From which value on something is not well, by the check's name: a number for a warning;
                or a pair, of which the second is for what is bad; None to measure only.
            statistics_days: Days that the server's counters must cover before an index is called unused. A
                compute that was suspended may have lost them.
            earlier: An earlier report of this database, or its ``to_dict()``, to compare its size with.
            timeout: Seconds that a check may take; one that takes longer is skipped.

        Raises:
            ConfigError: There is no check of a name, or an argument cannot work; nothing was sent.
            LakebaseError: No connection could be opened.
            psycopg.Error: The connection was lost.

        Example:
            >>> report = client.inspect(limits={"connections": [0.5, 0.8]})
            >>> print(report.to_markdown())
        """
        from lakebase_provider.core.upkeep.inspection.inspecting import inspect

        return inspect(self.connect, checks, limits, statistics_days, earlier, timeout)

    ainspect = in_thread(inspect)

    def fetch_arrow(
        self, query: Query, params: Parameters = None, *, numeric: Numeric = "decimal"
    ) -> pa.Table:
        """What a query returns, as an Arrow table.

        A numeric is a decimal of its declared precision and scale, never a float. Without them, as for
        averages and quotients, it has 38 digits with 18 after the point, or more if its values need them, up
        to 76. Types without an Arrow equivalent (json, uuid, enums, ranges, …) come as text.

        Args:
            query: The query, with ``%s`` or ``%(name)s`` for parameters.
            params: The parameters.
            numeric: ``"decimal"``, or ``"text"`` for the text that Postgres writes for a numeric: any number
                of digits, NaN and the infinities.

        Raises:
            ConfigError: `numeric` is neither.
            LoadError: A value does not fit its column's Arrow type, such as an infinite date; or the server's
                data is not in the form that it announced.
            LoadInterruptedError: The connection was lost while rows were being read.
            psycopg.Error: The server refuses the query, or cancels it; or `params` do not match its
                placeholders; with placeholders, a percent sign outside comments is written ``%%``.
            LakebaseError: No connection could be opened.
        """
        from lakebase_provider.core.bulk.read.batches import read_whole
        from lakebase_provider.core.bulk.read.to_frames import to_arrow

        with self.connection() as connection, read_whole(connection, query, params, numeric=numeric) as found:
            return to_arrow(found)

    def fetch_polars(
        self, query: Query, params: Parameters = None, *, numeric: Numeric = "decimal"
    ) -> pl.DataFrame:
        """What a query returns, as a Polars data frame; otherwise as :meth:`fetch_arrow`.

        Polars' decimals have at most 38 digits, and the column names of its frames must be unique.
        """
        from lakebase_provider.core.bulk.read.batches import read_whole
        from lakebase_provider.core.bulk.read.to_frames import to_polars

        with self.connection() as connection, read_whole(connection, query, params, numeric=numeric) as found:
            return to_polars(found)

    def fetch_pandas(
        self, query: Query, params: Parameters = None, *, numeric: Numeric = "decimal"
    ) -> pd.DataFrame:
        """What a query returns, as a pandas data frame; otherwise as :meth:`fetch_arrow`.

        A numeric's values are Decimals, and integers stay integers: with NULLs among them, their column has
        pandas' nullable type.
        """
        from lakebase_provider.core.bulk.read.to_frames import to_pandas

        return to_pandas(self.fetch_arrow(query, params, numeric=numeric))

    def iter_batches(
        self,
        query: Query,
        params: Parameters = None,
        *,
        batch_rows: int | None = None,
        numeric: Numeric = "decimal",
    ) -> Iterator[pa.RecordBatch]:
        """What a query returns, as record batches yielded while reading, in constant memory.

        They all have one schema: a numeric without declared digits has as many after the point as the first
        batch's values need, and at least 18 if there is room.

        A connection is held until the last batch, or until the iterator is closed; use ``contextlib.closing``
        if the loop may end early.

        Args:
            query: The query.
            params: Its parameters.
            batch_rows: Maximum number of rows in a batch.
            numeric: As for :meth:`fetch_arrow`.

        Raises:
            ConfigError: `batch_rows` is not positive, or `numeric` unknown.
            LoadError: A value does not fit its column's Arrow type.
            LoadInterruptedError: The connection was lost while rows were being read.
            psycopg.Error: The server refuses the query, or cancels it.
            LakebaseError: No connection could be opened.
        """
        from lakebase_provider.core.bulk.read.batches import BATCH_ROWS, read_batches

        rows = BATCH_ROWS if batch_rows is None else batch_rows
        with (
            self.connection() as connection,
            read_batches(connection, query, params, batch_rows=rows, numeric=numeric) as batches,
        ):
            yield from batches

    def iter_rows(self, query: Query, params: Parameters = None) -> Iterator[tuple[Any, ...]]:
        """What a query returns, as tuples of psycopg's values yielded while reading, in constant memory.

        A connection is held as by :meth:`iter_batches`; if reading ends early, it is rolled back.

        Args:
            query: The query, or another statement that returns rows (SHOW, INSERT … RETURNING); what it
                changes is committed after the last row.
            params: Its parameters.

        Raises:
            LoadError: The statement returns no rows, or a value cannot be read.
            LoadInterruptedError: The connection was lost while rows were being read.
            psycopg.Error: As for :meth:`fetch_arrow`; or psycopg cannot read a value.
            LakebaseError: No connection could be opened.
        """
        from lakebase_provider.core.bulk.read.rows import read_rows

        with self.connection() as connection:
            yield from read_rows(connection, query, params)

    def unload(
        self,
        query: Query,
        to: Any,
        format: Format | None = None,
        *,
        params: Parameters = None,
        batch_rows: int | None = None,
        parallel: int = 1,
        by: str | None = None,
        numeric: Numeric = "decimal",
        mode: WriteMode | None = None,
        keys: Sequence[str] | None = None,
        unload_id: str | None = None,
    ) -> UnloadResult:
        """Write what a query returns to a file, in constant memory; a failure leaves no file behind.

        Or to a Delta table, in one commit of it.

        Args:
            query: The query.
            to: Local path, fsspec URI or ObjectStoragePath of the file; with `parallel`, of a folder, whose
                files ``part-00000.parquet`` and so on are replaced. Or ``"delta:"`` and the path of a Delta
                table, or a :class:`.Delta`; a missing table is made.
            format: ``"parquet"``, ``"arrow"`` (an IPC file), ``"csv"`` (as Postgres writes it, with a header)
                or ``"jsonl"`` (JSON lines); None for what a single file's suffix says, else Parquet.
            params: The query's parameters.
            batch_rows: Maximum number of rows in a Parquet row group or an Arrow record batch.
            parallel: Number of files written at once, over as many connections, all from one snapshot.
            by: Column of the result whose value divides the rows among the files; required for more than one.
            numeric: For Parquet and Arrow, as for :meth:`fetch_arrow`.
            mode: For a Delta table: ``"append"`` (the default) adds the rows; ``"overwrite"`` puts them in
                place of all others; ``"merge"`` updates rows with the same key and adds the others.
            keys: For merge: names of the columns that identify a row.
            unload_id: For a Delta table: identifies an unload. A second one with the same id is skipped, by
                the application transaction that the table's log holds. None to write every time.

        Raises:
            ColumnMismatchError: In Parquet or JSON lines, two columns share a name; or the columns are not
                those of the Delta table.
            ConfigError: Arguments contradict each other, or `parallel` needs more connections than the pool
                has; nothing was read.
            LoadError: A value does not fit its column's Arrow type.
            LoadInterruptedError: The connection was lost, or another unload to the same place has started.
            psycopg.Error: The server refuses the query, or cancels it.
            LakebaseError: No connection could be opened.
            OSError: A file could not be written.
        """
        from lakebase_provider.core.bulk.unload.unload import unload

        return unload(
            self.connection,
            query,
            to,
            format=format,
            params=params,
            batch_rows=batch_rows,
            parallel=parallel,
            by=by,
            numeric=numeric,
            mode=mode,
            keys=keys,
            unload_id=unload_id,
            max_connections=self.config.max_size,
        )
