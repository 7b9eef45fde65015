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

        def marked(keys: Sequence[str]) -> Source:
            marks = [pa.field(_VERSION, pa.int64()), pa.field(_TYPE, pa.bool_())]
            # Arrow filters no views.
            plain = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
            kept = [field.with_type(plain.get(field.type, field.type)) for field in fields]
            schema = pa.schema([*kept, *marks])

            def needed() -> Iterator[pa.RecordBatch]:
                for batch in batches:
                    found = _marked(batch, places, schema).filter(_needed(batch, keys))
                    source.spared += batch.num_rows - found.num_rows
                    yield found

            source = _named(arrow_source(schema, needed(), description), "to be merged")
            return source

        source = _named(arrow_source(pa.schema(fields), rows(), description), "as read")
        source.marked = marked
        return source


def _named(source: Source, which: str) -> Source:
    source.row_name = lambda index: (
        f"change {index + 1:,} {which} of the {source.description}" if index >= 0 else source.description
    )
    return source


def _needed(batch: pa.RecordBatch, keys: Sequence[str]) -> pa.Array:
    """Which changes tell something: a row before an update, where the next one has its key, does not."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kinds = batch.column(_TYPE).cast(pa.string())
    known = pc.and_(pc.equal(kinds[:-1], "update_preimage"), pc.equal(kinds[1:], "update_postimage"))
    try:
        for column in map(batch.column, (_VERSION, *keys)):
            known = pc.and_(known, pc.equal(column[:-1], column[1:]))
    except (KeyError, pa.ArrowNotImplementedError):
        # A key that is missing is refused later; one of a type that Arrow cannot compare, such as a struct,
        # tells nothing, and to stage a row too many changes nothing but the time it takes.
        return pa.repeat(True, batch.num_rows)
    return pa.concat_arrays([pc.invert(known).fill_null(True), pa.repeat(True, min(batch.num_rows, 1))])


def _marked(batch: pa.RecordBatch, places: Sequence[int], schema: pa.Schema) -> pa.RecordBatch:
    """The changes with their versions, and whether they end a row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    gone = pc.is_in(batch.column(_TYPE).cast(pa.string()), value_set=pa.array(_GONE))
    columns = [batch.column(place).cast(kind) for place, kind in zip(places, schema.types, strict=False)]
    return pa.RecordBatch.from_arrays(
        [*columns, batch.column(_VERSION).cast(pa.int64()), gone], schema=schema
    )
