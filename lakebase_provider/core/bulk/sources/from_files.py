"""CSV, JSON lines, Parquet and Arrow files as sources, local or behind a URI, one or many as one source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from lakebase_provider.core.bulk.files.csv_format import PLAIN_CSV, CsvFormat
from lakebase_provider.core.bulk.files.file_faults import naming, read_on
from lakebase_provider.core.bulk.files.file_kinds import KINDS, PACKED, suffix_of
from lakebase_provider.core.bulk.files.found_files import found_files
from lakebase_provider.core.bulk.files.locations import Location, locate
from lakebase_provider.core.bulk.sources.source import Source, arrow_source
from lakebase_provider.core.errors import ConfigError

#: Bytes that are read ahead of a Parquet column.
_PARQUET_BUFFER = 1 << 18
#: More rows at once cost memory and gain nothing.
_PARQUET_ROWS = 8192


def open_file(path: Any, columns: Sequence[str] | None = None, csv: CsvFormat = PLAIN_CSV) -> Source:
    """A CSV file, a file of JSON lines, a Parquet file, or one of Arrow's IPC format; or many of one kind.

    All columns of a CSV file are text, which the server's input functions read. An empty field is NULL, and
    an empty string if quoted, as in Postgres' own CSV; with a single column, a blank line is NULL too. The
    values of JSON lines are such text too: numbers, objects and arrays as written.

    Args:
        path: Local path, fsspec URI, or a path object with ``open``; its suffix gives its format. The files
            of a folder or a pattern (``*.csv``) are one source, sorted by name.
        columns: The columns to take; for CSV without a header, the names of its columns.
        csv: The format of CSV.

    Raises:
        ConfigError: The suffix is unknown, a library is missing, the file may not be read or is not of that
            kind; or a folder or pattern has no files, or files of several kinds.
        ColumnMismatchError: CSV without a header does not have as many columns as `columns`.
    """
    place = locate(path, "source")
    found = found_files(place)
    if found is None:
        return _open_one(place, columns, csv)
    from lakebase_provider.core.bulk.sources.parts import open_parts

    kinds: dict[str, str] = {}
    for part in found.parts:
        kinds.setdefault(KINDS[suffix_of(part.place.name)], part.place.name)
    if len(kinds) > 1:
        (one, first), (other, second), *_ = kinds.items()
        raise ConfigError(
            f"{place.name!r} holds files of several kinds: {first!r} ({one}) and {second!r} ({other}).",
            remedy="Select those of one kind with a pattern, such as 'folder/*.parquet'.",
        )
    return open_parts(found, columns, partial(_open_one, csv=csv))


def _open_one(place: Location, columns: Sequence[str] | None, csv: CsvFormat) -> Source:
    suffix = suffix_of(place.name)
    kind, packed = KINDS[suffix], PACKED.get(suffix)
    try:
        import pyarrow  # noqa: F401 - asked for early, to say what to install
    except ImportError:
        raise ConfigError(
            "Reading files needs pyarrow.", remedy="Install lakebase-provider[arrow]."
        ) from None
    if kind != "CSV":
        csv.require_unused(f"{kind} file {place.name!r}")
    reading = partial(read_on, name=place.name, kind=kind, packed=packed)
    with naming(place, kind, packed), _closed_on_error(_stream(place, packed)) as stream:
        if kind == "CSV":
            from lakebase_provider.core.bulk.sources.csv_text import open_csv

            source = open_csv(stream, place.name, csv, suffix, columns, reading)
        elif kind == "JSON lines":
            from lakebase_provider.core.bulk.sources.json_lines import open_json_lines

            source = open_json_lines(stream, place.name, reading)
        else:
            source = _arrow(stream, reading) if kind == "Arrow" else _parquet(stream, reading)
    source.row_name = lambda index: f"row {index + 1:,} of {place.name!r}" if index >= 0 else repr(place.name)
    return source


@contextmanager
def _closed_on_error(stream: Any) -> Iterator[Any]:
    try:
        yield stream
    except BaseException:
        stream.close()
        raise


def _stream(place: Location, packed: str | None) -> Any:
    import pyarrow as pa

    handle = place.open()
    stream = handle if isinstance(handle, pa.NativeFile) else pa.PythonFile(handle, mode="r")
    return pa.CompressedInputStream(stream, packed) if packed else stream


def _arrow(stream: Any, reading: Any) -> Source:
    import pyarrow as pa

    file = pa.ipc.open_file(stream)
    batches = (file.get_batch(number) for number in range(file.num_record_batches))
    return arrow_source(file.schema, reading(batches), "Arrow file", stream.close)


def _parquet(stream: Any, reading: Any) -> Source:
    from pyarrow import parquet

    # Pages are read as needed, not whole row groups ahead.
    file = parquet.ParquetFile(stream, pre_buffer=False, buffer_size=_PARQUET_BUFFER)
    batches = file.iter_batches(batch_size=_PARQUET_ROWS, use_threads=False)
    return arrow_source(file.schema_arrow, reading(batches), "Parquet file", stream.close)
