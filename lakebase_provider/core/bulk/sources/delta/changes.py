"""The change data feed of a Delta table as a source: what has changed since a version."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lakebase_provider.core.bulk.sources.delta.opened import OpenDelta
from lakebase_provider.core.bulk.sources.source import Source, arrow_source, no_such_column

if TYPE_CHECKING:
    import pyarrow as pa

#: What the feed calls a change, and the version that made it; the third is when it did.
_TYPE, _VERSION, _TIME = "_change_type", "_commit_version", "_commit_timestamp"
#: Changes after which the row is no longer there. What was before an update is one: its key may have changed.
_GONE = ("delete", "update_preimage")


class Changes:
    """The changes of a Delta table between two versions.

    Args:
        table: The table, at the version with which they end.
        known: The version after which they begin.
        columns: The columns to take; None for all.
    """

    def __init__(self, table: OpenDelta, known: int, columns: Sequence[str] | None) -> None:
        self._table = table
        self._known = known
        self._columns = columns

    def as_load_source(self) -> Source:
        """The changes, in no order; ``marked`` gives them as a merge of changes needs them.

        Raises:
            ConfigError: The filter is no condition on the table's columns.
            ColumnMismatchError: The table has no such column.
            ChangesUnavailableError: The feed cannot be read.
        """
        import pyarrow as pa

        table = self._table
        names = tuple(self._columns or table.columns)
        if missing := [name for name in names if name not in table.columns]:
            raise no_such_column(table.name, missing[0], table.columns)
        reader = table.changes_reader(self._known, [*names, _TYPE, _VERSION])
        places = [reader.schema.get_field_index(name) for name in names]
        fields = [reader.schema.field(place) for place in places]
        batches = table.read_on(reader, since=self._known)
        description = f"changes of {table.name}"

        def rows() -> Iterator[pa.RecordBatch]:
            for batch in batches:
                columns = [batch.column(place) for place in places]
                yield pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))

        def marked() -> Source:
            marks = [pa.field(_VERSION, pa.int64()), pa.field(_TYPE, pa.bool_())]
            schema = pa.schema([*fields, *marks])
            found = (_marked(batch, places, schema) for batch in batches)
            return _named(arrow_source(schema, found, description))

        source = _named(arrow_source(pa.schema(fields), rows(), description))
        source.marked = marked
        return source


def _named(source: Source) -> Source:
    source.row_name = lambda index: (
        f"change {index + 1:,} as read of the {source.description}" if index >= 0 else source.description
    )
    return source


def _marked(batch: pa.RecordBatch, places: Sequence[int], schema: pa.Schema) -> pa.RecordBatch:
    """The changes with their versions, and whether they end a row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    gone = pc.is_in(batch.column(_TYPE).cast(pa.string()), value_set=pa.array(_GONE))
    columns = [batch.column(place) for place in places]
    return pa.RecordBatch.from_arrays(
        [*columns, batch.column(_VERSION).cast(pa.int64()), gone], schema=schema
    )
