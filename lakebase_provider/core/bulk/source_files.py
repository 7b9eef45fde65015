"""CSV, JSON lines, Parquet and Arrow files as sources, local or behind a URI."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.bulk.blank_lines import BlankLines
from lakebase_provider.core.bulk.locations import Location, locate
from lakebase_provider.core.bulk.source import Source, arrow_source
from lakebase_provider.core.bulk.target import BadValueError
from lakebase_provider.core.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

#: Bytes of a CSV file that are parsed at once.
_CSV_BLOCK = 1 << 20
#: Characters of a header, at most: many times those of the longest that Postgres has columns for.
_HEADER = 1 << 22
#: Bytes that are read ahead of a Parquet column.
_PARQUET_BUFFER = 1 << 18
#: More rows at once cost memory and gain nothing.
_PARQUET_ROWS = 8192
_PACKINGS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_JSON = (".jsonl", ".ndjson")
_TEXTS = (".csv", *_JSON)
_PACKED = {kind + end: packing for kind in _TEXTS for end, packing in _PACKINGS.items()}
_SUFFIXES = (*_TEXTS, *_PACKED, ".parquet", ".pq", ".arrow")


def open_file(path: Any) -> Source:
    """A CSV file with a header, a file of JSON lines, a Parquet file, or one of Arrow's IPC format.

    All columns of a CSV file are text, which the server's input functions read. An empty field is NULL, and
    an empty text where it is in quotes, as in Postgres' own CSV; where there is one column, so is a blank
    line. The values of JSON lines are such text, too: numbers, objects and arrays as they stand there.

    Args:
        path: Local path, fsspec URI, or a path object with ``open``; its suffix says what it is.

    Raises:
        ConfigError: The suffix says neither, a library is missing, it is no file that may be read, or none of
            that kind.
    """
    place = locate(path, "source")
    name = place.name
    plain = name.partition("?")[0].lower()
    suffix = next((suffix for suffix in _SUFFIXES if plain.endswith(suffix)), None)
    if suffix is None:
        raise ConfigError(
            f"The file {name!r} has no known suffix.",
            remedy=f"Give a path that ends in {', '.join(_SUFFIXES)}.",
        )
    try:
        import pyarrow  # noqa: F401 - asked for early, to say what to install
    except ImportError:
        raise ConfigError(
            "Reading files needs pyarrow.", remedy="Install lakebase-provider[arrow]."
        ) from None
    if suffix.startswith(".csv"):
        packed = _PACKED.get(suffix)
        with _opening(name, "CSV"), _stream(place, packed) as first:
            header = _header(first, name)
        with _closed_on_error(_stream(place, packed)) as stream:
            return _csv(stream, header)
    if suffix.startswith(_JSON):
        from lakebase_provider.core.bulk.source_json import open_json_lines

        with _opening(name, "JSON lines"), _closed_on_error(_stream(place, _PACKED.get(suffix))) as stream:
            return open_json_lines(stream)
    if suffix == ".arrow":
        with _opening(name, "Arrow"), _closed_on_error(_stream(place, None)) as stream:
            return _arrow(stream)
    with _opening(name, "Parquet"), _closed_on_error(_stream(place, None)) as stream:
        return _parquet(stream)


@contextmanager
def _opening(name: str, kind: str) -> Iterator[None]:
    """Raise what is found to be wrong with the file's bytes, by whatever reads them, as a ConfigError."""
    try:
        yield
    except Exception as error:
        if not _is_content(error):
            raise
        # Its text may quote what the file holds.
        raise ConfigError(
            f"The file {name!r} cannot be read as {kind} ({type(error).__name__}).",
            remedy="Give a whole file of the kind that its suffix says, in UTF-8 if it is text.",
        ) from None


def _is_content(error: Exception) -> bool:
    """Whether an error is of the bytes that were read, and not of reading them."""
    import pyarrow as pa

    if isinstance(error, OSError):  # Arrow's own of what it unpacks has no number
        return error.errno is None and type(error) is OSError
    return isinstance(error, (UnicodeDecodeError, csv.Error, pa.ArrowException, BadValueError))


@contextmanager
def _closed_on_error(stream: Any) -> Iterator[Any]:
    try:
        yield stream
    except BaseException:
        stream.close()
        raise


def _stream(place: Location, packed: str | None) -> Any:
    import pyarrow as pa

    try:
        handle = place.open()
    except FileNotFoundError:
        if place.local is None:
            raise
        raise ConfigError(f"There is no file {place.name!r}.", remedy="Check the path.") from None
    stream = handle if isinstance(handle, pa.NativeFile) else pa.PythonFile(handle, mode="r")
    return pa.CompressedInputStream(stream, packed) if packed else stream


def _header(stream: Any, name: str) -> list[str]:
    with io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8-sig", newline="") as text:
        try:
            names = next(csv.reader(_header_lines(text, name)), None)
        except csv.Error:  # its text says that a field is larger than the module takes
            raise _endless_header(name) from None
    if not names:
        raise ConfigError(
            f"The file {name!r} is empty.", remedy="Give a CSV file with a line of column names."
        )
    return names


def _header_lines(text: io.TextIOWrapper, name: str) -> Iterator[str]:
    """The lines of the header, of which quotes may make several; not all of a file that has no line's end."""
    left = _HEADER
    while line := text.readline(left):
        left -= len(line)
        if left <= 0:
            raise _endless_header(name)
        yield line


def _endless_header(name: str) -> ConfigError:
    return ConfigError(
        f"The file {name!r} begins with no line of column names: it has no end, or a name is too long.",
        remedy="Give a CSV file with a line of column names.",
    )


def _csv(stream: Any, names: list[str]) -> Source:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    faults: list[BadValueError] = []
    blank = BlankLines(stream, len(names)) if len(names) > 1 else None

    def note(row: Any) -> str:
        reason = f"{row.actual_columns} fields, where the header has {row.expected_columns}"
        # Counted with the header, from 1; None where Arrow does not count.
        faults.append(BadValueError(reason, kind="CSV", index=-1 if row.number is None else row.number - 2))
        return "error"

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for batch in arrow_csv.open_csv(
                stream if blank is None else pa.PythonFile(blank, mode="r"),
                read_options=arrow_csv.ReadOptions(block_size=_CSV_BLOCK, use_threads=False),
                parse_options=arrow_csv.ParseOptions(
                    newlines_in_values=True,
                    invalid_row_handler=note,
                    # In a file of one column a row of NULL, as the server writes it.
                    ignore_empty_lines=False,
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            ):
                if blank is not None:
                    blank.check(batch)
                yield batch
        except BadValueError:
            raise
        except Exception as error:
            if not _is_content(error):
                raise
            # Arrow's message quotes the row.
            raise (faults or [BadValueError("no valid CSV", kind="CSV")])[0] from None

    schema = pa.schema([(name, pa.string()) for name in names])
    return arrow_source(schema, batches(), "CSV file", stream.close)


def _arrow(stream: Any) -> Source:
    import pyarrow as pa

    file = pa.ipc.open_file(stream)

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for number in range(file.num_record_batches):
                yield file.get_batch(number)
        except Exception as error:
            if not _is_content(error):
                raise
            raise BadValueError("no valid Arrow data", kind="Arrow") from None

    return arrow_source(file.schema, batches(), "Arrow file", stream.close)


def _parquet(stream: Any) -> Source:
    from pyarrow import parquet

    # Pages are read as they are needed, not whole row groups ahead.
    file = parquet.ParquetFile(stream, pre_buffer=False, buffer_size=_PARQUET_BUFFER)

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from file.iter_batches(batch_size=_PARQUET_ROWS, use_threads=False)
        except Exception as error:
            if not _is_content(error):
                raise
            raise BadValueError("no valid Parquet", kind="Parquet") from None

    return arrow_source(file.schema_arrow, batches(), "Parquet file", stream.close)
