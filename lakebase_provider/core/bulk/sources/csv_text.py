"""CSV files as sources: every value as the text that the server's input functions read.

The file is read here, a piece of whole rows at a time, and Arrow gets each piece in memory. Given the file
itself, Arrow would read ahead in its own thread by calling Python: a call under way when the interpreter
shuts down aborts the process or never returns. And a row longer than one read would fail.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.bulk.files.csv_format import CsvFormat
from lakebase_provider.core.bulk.files.file_faults import HEAD, not_utf8, require_text
from lakebase_provider.core.bulk.sources.csv_rows import LONGEST_ROW, RowEnds
from lakebase_provider.core.bulk.sources.source import Source, arrow_source
from lakebase_provider.core.bulk.types.target_columns import BadValueError
from lakebase_provider.core.database.catalog import require_width
from lakebase_provider.core.errors import ColumnMismatchError, ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

#: Bytes parsed at once, unless a row is longer.
_BLOCK = 1 << 20
#: Bytes of a header, at most: many times those of the longest that Postgres has columns for.
_HEADER = 1 << 22
#: Columns of whose names few may be asked for.
_NAMES = 1 << 18
_MARK = b"\xef\xbb\xbf"
_QUOTES = "Close the quote there, or set quote=None if quotes have no meaning in the file."


def open_csv(
    stream: Any,
    name: str,
    form: CsvFormat,
    suffix: str,
    columns: Sequence[str] | None,
    reading: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]],
) -> Source:
    """A CSV file.

    Args:
        stream: The file, opened in binary and unpacked; closed with the source.
        name: Its name, for errors.
        form: Its format.
        suffix: The name's suffix.
        columns: Names of its columns, for one without a header.
        reading: Goes over its batches.

    Raises:
        ConfigError: It lacks a header that it should have, or is of another kind.
        ColumnMismatchError: It has no header, and a different number of columns from `columns`.
        BadValueError: It is not in its encoding.
    """
    import pyarrow as pa

    text = _Text(stream, form, name)
    rows = _Rows(text, form, form.delimiter_of(suffix))
    if form.header:
        names, known = rows.header(name), True
    else:
        width = rows.width()
        names, known = [str(place) for place in range(width)], columns is not None
        if columns is not None and width:
            if width != len(columns):
                raise ColumnMismatchError(
                    f"The first row of {name!r} has {width} fields for the {len(columns)} columns "
                    f"{', '.join(map(repr, columns))}.",
                    remedy="Name each field's column, or set the delimiter that separates the fields.",
                )
            names = list(columns)
        if not width:
            return Source("CSV file without a row", lambda: iter(()), close=stream.close)
    schema = pa.schema([(column, pa.string()) for column in names])
    source = arrow_source(schema, reading(rows.batches(names)), "CSV file", stream.close)
    if not known:
        source.column_names = None
    return source


class _Text:
    """A file's text in UTF-8, without a byte order mark.

    Attributes:
        bytes: How many of its bytes were passed, to say where something is; the reader advances it.
    """

    def __init__(self, stream: Any, form: CsvFormat, name: str) -> None:
        self._stream = stream
        self._form = form
        self._name = name
        self._decoder = None if form.is_utf8 else codecs.getincrementaldecoder(form.encoding)()
        self._begun = False
        self._read = 0
        self.bytes = 0

    def read(self, size: int) -> bytes:
        """About so many bytes; none only at the end.

        Raises:
            ConfigError: It is no text.
            BadValueError: It is not in its encoding.
        """
        found = self._piece(size)
        while len(found) < size and (more := self._piece(size - len(found))):
            found += more
        if not self._begun:
            self._begun = True
            if found.startswith(_MARK):
                found = found[len(_MARK) :]
                self.bytes += len(_MARK)
        return found

    def _piece(self, size: int) -> bytes:
        while True:
            data: bytes = self._stream.read(size)
            if not self._read:
                require_text(self._name, "CSV", data[:HEAD], self._form.encoding)
            if self._decoder is None:
                self._read += len(data)
                return data
            held = len(self._decoder.getstate()[0])
            try:
                text = self._decoder.decode(data, final=not data)
            except UnicodeError as error:
                place = self._read - held + getattr(error, "start", 0) + 1
                raise BadValueError(
                    f"byte {place:,} of the file is not {self._form.encoding}",
                    kind="CSV",
                    remedy="Set encoding= to the file's; its last character may also be cut off.",
                ) from None
            self._read += len(data)
            if text or not data:
                return text.encode(errors="surrogatepass")


class _Rows:
    """A file's rows, piece by piece."""

    def __init__(self, text: _Text, form: CsvFormat, delimiter: str) -> None:
        self._text = text
        self._form = form
        self._delimiter = delimiter
        self._ends = RowEnds(delimiter, form.quote)
        self._kept = b""
        self._line = 1
        self._row = 0

    def header(self, name: str) -> list[str]:
        """The columns' names, which the first row holds.

        Raises:
            ConfigError: There is no such row.
        """
        row = self._first_row()
        if row is None:
            raise ConfigError(
                f"The file {name!r} does not begin with a line of column names: the line has no end, or a "
                "name is too long.",
                remedy="Give a CSV file with a line of column names.",
            )
        if not row:
            raise ConfigError(
                f"The file {name!r} is empty.",
                remedy="Give a CSV file with a line of column names, or header=False.",
            )
        # Counted before they are made: millions of them take hundreds of megabytes.
        mark = self._delimiter.encode()
        width = 1 + sum(row.count(mark, *piece) for piece in self._ends.outside(row))
        if width > _NAMES:
            require_width(width, f"The file {name!r}")
        try:
            names = self._fields(row)
        except csv.Error:  # its text says that a field is larger than the module takes
            raise ConfigError(
                f"The file {name!r} does not begin with a line of column names: a name is too long.",
                remedy="Give a CSV file with a line of column names.",
            ) from None
        if not names:
            raise ConfigError(
                f"The file {name!r} begins with a blank line.", remedy="Begin it with the columns' names."
            )
        self._kept = self._kept[len(row) :]
        self._passed(row)
        return names

    def width(self) -> int:
        """How many fields the first row has; 0 where there is no row."""
        row = self._first_row()
        if not row:
            return 0
        try:
            return len(self._fields(row)) or 1
        except csv.Error:
            raise BadValueError("a first row that is too long", kind="CSV", index=0) from None

    def _first_row(self) -> bytes | None:
        """The first row with its end; None where it has none."""
        more = self._text.read(_BLOCK)
        while True:
            self._kept += more
            end = self._ends.first(self._kept, whole=not more)
            if end:
                return self._kept[:end]
            if not more:
                return None if self._kept else b""
            if len(self._kept) >= _HEADER:
                return None
            more = self._text.read(max(_BLOCK, len(self._kept)))

    def _fields(self, row: bytes) -> list[str]:
        text = io.StringIO(self._decoded(row), newline="")
        quote = self._form.quote
        dialect: dict[str, Any] = (
            {"quoting": csv.QUOTE_NONE, "quotechar": None} if quote is None else {"quotechar": quote}
        )
        return next(csv.reader(text, delimiter=self._delimiter, **dialect), [])

    def _decoded(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise not_utf8(error, self._text.bytes, self._line) from None

    def _passed(self, data: bytes) -> None:
        self._line += data.count(b"\n")
        self._text.bytes += len(data)

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows behind the header.

        Raises:
            BadValueError: One of them is not a row of such a file, or not in its encoding.
        """
        parse = _parser(names, self._form, self._delimiter)
        for block in self._blocks():
            for batch in parse(block, self._row, self._wrong):
                self._require_no_blank_line(block, batch)
                yield batch
                self._row += batch.num_rows
            self._passed(block)

    def _blocks(self) -> Iterator[bytes]:
        more = b""
        while True:
            data = self._kept + more
            # Before more is read, for what was read with the header may hold many rows.
            end = self._ends.last(data)
            self._kept = data[end:]
            if end:
                yield data[:end]
            if len(self._kept) > LONGEST_ROW:
                raise self._endless()
            # More at once where a row is long: each time the whole of it is looked at.
            more = self._text.read(max(_BLOCK, len(self._kept)))
            if not more:
                break
        if self._kept:
            if self._ends.open_quote(self._kept) >= 0:
                raise self._endless()
            yield self._kept

    def _endless(self) -> BadValueError:
        opened = self._ends.open_quote(self._kept)
        if opened < 0:
            reason = f"a row that does not end within {LONGEST_ROW >> 20} MiB"
            return BadValueError(reason, kind="CSV", index=self._row)
        line = self._line + self._kept[:opened].count(b"\n")
        reason = f"the quote that opens a field in line {line:,} is not closed, or the file is truncated"
        return BadValueError(reason, kind="CSV", index=-1, remedy=_QUOTES)

    def _require_no_blank_line(self, block: bytes, batch: pa.RecordBatch) -> None:
        # In a file of one column a row of NULL, as the server writes it; among several no such row.
        if batch.num_columns == 1 or ("" in self._form.nulls and not _has_null_row(batch)):
            return
        before = self._ends.blank_line(block)
        if before >= 0:
            reason = (
                f"line {self._line + before:,} of the file is blank, but {_first_of(self._form)} has "
                f"{batch.num_columns} columns"
            )
            raise BadValueError(reason, kind="CSV", remedy="Remove the line.")

    def _wrong(self, block: bytes) -> BadValueError:
        """What makes Arrow refuse a block, where it is not the number of fields."""
        self._decoded(block)
        return BadValueError("not valid CSV", kind="CSV")


_Wrong = Callable[[bytes], BadValueError]
_Parser = Callable[[bytes, int, _Wrong], Sequence["pa.RecordBatch"]]


def _parser(names: Sequence[str], form: CsvFormat, delimiter: str) -> _Parser:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    def parsing(note: Callable[[Any], str] | None) -> arrow_csv.ParseOptions:
        return arrow_csv.ParseOptions(
            delimiter=delimiter,
            quote_char=form.quote or False,
            newlines_in_values=True,
            invalid_row_handler=note,
            ignore_empty_lines=False,
        )

    as_they_are = parsing(None)
    converting = arrow_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        null_values=list(form.nulls),
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )

    def parse(block: bytes, before: int, wrong: _Wrong) -> Sequence[pa.RecordBatch]:
        if block.startswith(_MARK):  # Arrow leaves out the first one, which here is a row's
            block = _MARK + block
        reading = arrow_csv.ReadOptions(block_size=len(block) + 1, use_threads=False, column_names=names)
        faults: list[Any] = []

        def note(row: Any) -> str:
            faults.append(row)
            return "error"

        def read(options: arrow_csv.ParseOptions) -> Sequence[pa.RecordBatch]:
            table = arrow_csv.read_csv(pa.BufferReader(block), reading, options, converting)
            batches: Sequence[pa.RecordBatch] = table.to_batches()
            return batches

        try:
            return read(as_they_are)
        except pa.ArrowException:  # its message quotes the row
            invalid = wrong(block)
        # Once more, for the row, which Arrow hands over as text: what is none has been refused by now.
        with suppress(pa.ArrowException):
            read(parsing(note))
        if not faults:
            raise invalid
        row = faults[0]
        raise BadValueError(
            f"{row.actual_columns} fields, but {_first_of(form)} has {row.expected_columns}",
            kind="CSV",
            index=-1 if row.number is None else before + row.number - 1,
            remedy=_fields_remedy(row.expected_columns),
        )

    return parse


def _first_of(form: CsvFormat) -> str:
    return "the header" if form.header else "the first row"


def _fields_remedy(expected: int) -> str:
    if expected == 1:
        return "Set the delimiter that separates the fields, such as delimiter=';', or correct the row."
    return "Correct the row: a field that holds the delimiter or a line break must be in quotes."


def _has_null_row(batch: pa.RecordBatch) -> bool:
    import pyarrow.compute as pc

    columns = sorted(batch.columns, key=lambda column: column.null_count)
    if not columns[0].null_count:
        return False
    nulls = columns[0].is_null()
    for column in columns[1:]:
        nulls = pc.and_(nulls, column.is_null())
        if not pc.any(nulls).as_py():
            return False
    return True
