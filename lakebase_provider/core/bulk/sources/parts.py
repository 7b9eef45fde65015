"""Many files as one source: one after the other, each opened when the one before has been read."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.bulk.files.found_files import FoundFiles, Part
from lakebase_provider.core.bulk.sources.source import Batch, Source
from lakebase_provider.core.bulk.types.arrow import scalar_of
from lakebase_provider.core.bulk.types.target_columns import BadValueError
from lakebase_provider.core.errors import ColumnMismatchError, ConfigError

if TYPE_CHECKING:
    from lakebase_provider.core.bulk.files.locations import Location

#: Opens one of the files; the names are those of its columns, where it has none itself.
OpenOne = Callable[["Location", Sequence[str] | None], Source]
_ONE_SHAPE = "Write all files with the same columns, or load each kind with its own pattern."


def open_parts(found: FoundFiles, columns: Sequence[str] | None, open_one: OpenOne) -> Source:
    """Files of one kind, and of the same columns in whatever order; keys of their folders are columns, too.

    Args:
        found: The files.
        columns: The columns to take; of files without names, the names that they get.
        open_one: Opens a file.

    Raises:
        ConfigError: The first file cannot be read; or it has no names for its columns, and its folder has.
        ColumnMismatchError: A key of the folders is a column of the files, too.
    """
    names = None if columns is None else [name for name in columns if name not in found.keys]
    parts = _Parts(found, names, open_one)
    first = parts.next()
    if first is None or first.schema is None:
        return first or Source("files without a row", lambda: iter(()))
    try:
        return _source(parts, first, found)
    except BaseException:
        parts.close()
        raise


def _source(parts: _Parts, first: Source, found: FoundFiles) -> Source:
    import pyarrow as pa

    assert first.schema is not None
    column_names = first.column_names
    if found.keys:
        if column_names is None:
            raise ConfigError(
                f"The files of {found.name!r} have no column names, but their folders have keys.",
                remedy="Name all columns: columns=[...].",
            )
        column_names = (*column_names, *found.keys)
    keys = [pa.field(key, pa.string()) for key in found.keys]
    return Source(
        f"{first.description}s ({len(found.parts):,})",
        parts.batches,
        column_names=column_names,
        schema=pa.schema([*first.schema, *keys]),
        width=first.width,
        close=parts.close,
        json=first.json,
        row_name=parts.row_name,
    )


class _Parts:
    """The files on their way."""

    def __init__(self, found: FoundFiles, names: Sequence[str] | None, open_one: OpenOne) -> None:
        self._waiting = deque(found.parts)
        self._names = names
        self._open_one = open_one
        self._first: Source | None = None
        self._current: tuple[Part, Source] | None = None
        self._rows = 0
        #: Index of the first row of each file, and how it names its rows.
        self._starts: list[int] = []
        self._row_names: list[Callable[[int], str]] = []

    def next(self) -> Source | None:
        """Open the next file that has rows or columns; the last one, if none has; None behind it."""
        found = None
        while self._waiting:
            part = self._waiting.popleft()
            # As Spark writes a part without rows.
            if part.size == 0 and part.place.name.lower().endswith((".csv", ".tsv")) and self._others():
                continue
            self.close()
            found = self._open_one(part.place, self._names)
            self._current = part, found
            if found.schema is not None:
                break
        if found is not None and self._first is None:
            self._first = found
        return found

    def _others(self) -> bool:
        return self._first is not None or any(part.size for part in self._waiting)

    def batches(self) -> Iterator[Batch]:
        """The rows of all files.

        Raises:
            BadValueError: A row is no row; its index is that in all of them.
            ColumnMismatchError: A file has other columns than the first one.
            LakebaseError: A file cannot be read.
        """
        first = source = self._first
        while source is not None and first is not None:
            assert self._current is not None
            part = self._current[0]
            if source.schema is not None:
                self._starts.append(self._rows)
                self._row_names.append(source.row_name or (lambda _, name=part.place.name: repr(name)))  # type: ignore[misc]
                yield from self._of_one(part, _aligned(source, first, part), first)
            source = self.next()

    def _of_one(self, part: Part, source: Source, first: Source) -> Iterator[Batch]:
        import pyarrow as pa

        assert first.schema is not None
        begun = self._rows
        values = [scalar_of(value, pa.string()) for _, value in part.keys]
        try:
            for batch in source.batches():
                columns = (
                    pa.nulls(batch.rows, field.type) if _is_null(column) else column
                    for column, field in zip(batch.columns, first.schema, strict=True)
                )
                yield Batch((*columns, *(pa.repeat(value, batch.rows) for value in values)), batch.rows)
                self._rows += batch.rows
        except BadValueError as error:
            if error.index >= 0:
                error.index += begun
            raise

    def row_name(self, index: int) -> str:
        """What a row is called: by its number in its file, and in all of them."""
        if index < 0 or not self._starts:
            return repr(self._current[0].place.name) if self._current else "the source"
        place = bisect_right(self._starts, index) - 1
        own = self._row_names[place](index - self._starts[place])
        return own if place == 0 else f"{own} (row {index + 1:,} of all files)"

    def close(self) -> None:
        """Close the file that is open."""
        if self._current is not None:
            self._current[1].close()
            self._current = None


def _is_null(column: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_null(column.type))


def _aligned(source: Source, first: Source, part: Part) -> Source:
    """A file's source, with the columns of the first one's in their order."""
    import pyarrow as pa

    assert source.schema is not None
    assert first.schema is not None
    name = part.place.name
    if source is first:
        return source
    if first.column_names is not None and source.column_names is not None:
        mine, others = set(source.column_names), set(first.column_names)
        if mine != others:
            column = min(mine ^ others)
            has, verb = ("lacks", "have") if column in others else ("has", "lack")
            raise ColumnMismatchError(
                f"The file {name!r} {has} the column {column!r}, which the files before it {verb}.",
                remedy=_ONE_SHAPE,
            )
        source = source.select(first.column_names)
    elif source.width != first.width:
        raise ColumnMismatchError(
            f"The file {name!r} has {source.width} columns, but those before it have {first.width}.",
            remedy=_ONE_SHAPE,
        )
    assert source.schema is not None
    for own, wanted in zip(source.schema, first.schema, strict=True):
        if own.type != wanted.type and not pa.types.is_null(own.type):
            raise ColumnMismatchError(
                f"The column {wanted.name!r} of the file {name!r} is of type {own.type}, but {wanted.type} "
                "in the files before it.",
                remedy=_ONE_SHAPE,
            )
    return source
