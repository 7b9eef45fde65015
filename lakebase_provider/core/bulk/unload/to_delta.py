"""From a query to a Delta table: one commit of it with all rows, and once for an id."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from lakebase_provider.core.base.threads import in_this_context
from lakebase_provider.core.bulk.sources.delta.delta import Delta
from lakebase_provider.core.bulk.sources.delta.opened import library, opening, quoted, told
from lakebase_provider.core.bulk.unload.as_json import require_distinct
from lakebase_provider.core.bulk.unload.options import WriteMode
from lakebase_provider.core.errors import (
    ColumnMismatchError,
    ConfigError,
    LakebaseError,
    LoadError,
    LoadInterruptedError,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

logger = logging.getLogger(__name__)

#: The transaction of an application by which a table's log knows an unload again.
_APPLICATION = "lakebase/"
#: Seconds that a request to cancel a query may take, and between two requests.
_CANCEL_TIMEOUT = 2.0


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        rows: Rows.
        bytes: Bytes of their record batches.
        version: The table's version that has them.
        skipped: Whether another unload with the same id wrote them meanwhile.
    """

    rows: int
    bytes: int
    version: int
    skipped: bool = False


class DeltaTarget:
    """A Delta table that takes the rows of queries; it is made by the first of them.

    Args:
        to: The table: ``"delta:"`` and its path, or a :class:`.Delta`.
        mode: ``"append"`` adds the rows, ``"overwrite"`` puts them in place of all others, ``"merge"``
            updates rows with the same key and adds the others.
        keys: For merge: names of the columns that identify a row.
        unload_id: Identifies an unload: a second one with the same id is skipped. None to write every time.

    Attributes:
        name: What the table is called in errors.

    Raises:
        ConfigError: The library is missing, the path may not be written, or it names a version or a filter.
    """

    def __init__(
        self, to: str | Delta, mode: WriteMode, keys: Sequence[str] | None, unload_id: str | None
    ) -> None:
        place = Delta.parse(to) if isinstance(to, str) else to
        if (place.version, place.timestamp, place.filter) != (None, None, None):
            raise ConfigError(
                f"to: {place} names a version or a filter, and is written to.", remedy="Name the table alone."
            )
        self._library = library()
        self._place = place
        self._options = None if place.storage_options is None else dict(place.storage_options)
        self._mode = mode
        self._keys = tuple(keys or ())
        self._application = None if unload_id is None else f"{_APPLICATION}{unload_id}"
        self.name = str(place)

    def find(self) -> DeltaTable | None:
        """The table at its newest version, or None.

        Raises:
            ConfigError: It cannot be opened.
        """
        with opening(self.name, None):
            if not self._library.DeltaTable.is_deltatable(self._place.uri, self._options):
                return None
            table: DeltaTable = self._library.DeltaTable(self._place.uri, storage_options=self._options)
            return table

    def is_done(self, table: DeltaTable | None) -> bool:
        """Whether the unload with this id has taken place."""
        return (
            table is not None
            and self._application is not None
            and table.transaction_version(self._application) is not None
        )

    def write(
        self, connection: psycopg.Connection[Any], batches: pa.RecordBatchReader, table: DeltaTable | None
    ) -> Written:
        """Write the rows in one commit.

        Args:
            connection: The connection that they come from; its query is cancelled if this is interrupted.
            batches: The rows.
            table: The table, as :meth:`find` gave it.

        Raises:
            ColumnMismatchError: A column has a type that Delta has not, or not the one of the table's column.
            LoadInterruptedError: Another writer was in the way; nothing was written.
            LoadError: The library could not write; nothing was written.
        """
        import pyarrow as pa

        require_distinct(batches.schema.names, "a Delta table")
        _require_types(batches.schema)
        if missing := [key for key in self._keys if key not in batches.schema.names]:
            raise ColumnMismatchError(
                f"The result has no column {missing[0]!r}, which keys= names.",
                remedy="Name columns of the query's result.",
            )
        rows = _Counted(batches)
        reader = pa.RecordBatchReader.from_batches(batches.schema, iter(rows))
        try:
            # In a thread: the library gives the interpreter back only at the end, and a task that is to end
            # would not hear of it.
            with ThreadPoolExecutor(1, thread_name_prefix="lakebase-unload") as worker:
                writing = worker.submit(in_this_context(lambda: self._commit(reader, table)))
                try:
                    writing.result()
                except BaseException:
                    while not writing.done():
                        with suppress(psycopg.Error):
                            connection.cancel_safe(timeout=_CANCEL_TIMEOUT)
                        wait([writing], timeout=_CANCEL_TIMEOUT)
                    raise
        except Exception as error:
            if rows.error is not None:
                raise rows.error from None  # which the library has only told as text
            newest = self.find() if self._application is not None else None
            if newest is not None and self.is_done(newest):
                # Of two unloads with one id at the same time the library lets one commit.
                return Written(0, 0, newest.version(), skipped=True)
            raise self._failed(error) from None
        newest = table or self.find()
        return Written(rows.count, rows.bytes, 0 if newest is None else newest.version())

    def _commit(self, rows: pa.RecordBatchReader, table: DeltaTable | None) -> None:
        properties = None
        if self._application is not None:
            transaction = self._library.Transaction(self._application, 1)
            properties = self._library.CommitProperties(app_transactions=[transaction])
        if self._mode != "merge" or table is None:
            self._library.write_deltalake(
                self._place.uri if table is None else table,
                rows,
                mode="append" if self._mode == "merge" else self._mode,
                storage_options=self._options,
                commit_properties=properties,
            )
            return
        same = " AND ".join(f"t.{quoted(key)} = s.{quoted(key)}" for key in self._keys)
        merging = table.merge(
            rows, same, source_alias="s", target_alias="t", streamed_exec=True, commit_properties=properties
        )
        merging.when_matched_update_all().when_not_matched_insert_all().execute()

    def _failed(self, error: Exception) -> Exception:
        from deltalake.exceptions import CommitFailedError, DeltaError, SchemaMismatchError

        if isinstance(error, LakebaseError):
            return error
        if isinstance(error, CommitFailedError):
            return LoadInterruptedError(
                f"Another writer of {self.name} was in the way: {told(error)}.",
                remedy="Run it again: nothing was written.",
            )
        if isinstance(error, SchemaMismatchError):
            return ColumnMismatchError(
                f"The result's columns are not those of {self.name}: {told(error)}.",
                remedy="Select the table's columns with its types, or change the table first.",
            )
        if isinstance(error, DeltaError):
            return LoadError(
                f"{self.name} could not be written: {told(error)}.",
                remedy="Correct what the message names; nothing was written.",
            )
        return error


class _Counted:
    """The batches of a reader, counted, and the error that ended them."""

    def __init__(self, batches: pa.RecordBatchReader) -> None:
        self._batches = batches
        self.count = self.bytes = 0
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._batches:
                self.count += batch.num_rows
                self.bytes += batch.nbytes
                yield batch
        except Exception as error:
            self.error = error
            raise


def _require_types(schema: pa.Schema) -> None:
    import pyarrow as pa

    for field in schema:
        kind = field.type.value_type if pa.types.is_list(field.type) else field.type
        if pa.types.is_time(kind) or pa.types.is_decimal256(kind):
            raise ColumnMismatchError(
                f"Column {field.name!r} is of Arrow's type {kind}, which Delta tables do not have.",
                remedy=f"Cast it in the query, such as {field.name}::text.",
            )
