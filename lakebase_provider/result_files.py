"""Rows of a query as a file, where they are too many for XCom: CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lakebase_provider.core.errors import ConfigError

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath
    from pyarrow import DataType

#: Rows that are fetched, encoded and written at a time.
CHUNK_ROWS = 1000


class RowFile(ABC):
    """A file that rows are appended to. Its calls block: asyncio makes them in a thread.

    Args:
        path: Where it is to be.
        columns: The query's columns, as psycopg describes them.
    """

    def __init__(self, path: ObjectStoragePath, columns: Sequence[Any]) -> None:
        self._path = path
        self._columns = columns
        self._file = path.open("wb")  # type: ignore[no-untyped-call] # Airflow annotates it not
        self.rows = 0

    def write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Append rows."""
        self._write(rows)
        self.rows += len(rows)

    @abstractmethod
    def _write(self, rows: Sequence[tuple[Any, ...]]) -> None: ...

    def close(self) -> None:
        """End the file; it is there for readers."""
        self._file.close()

    def discard(self) -> None:
        """Remove the file: half a result must not pass for a whole one."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class _CsvFile(RowFile):
    def __init__(self, path: ObjectStoragePath, columns: Sequence[Any]) -> None:
        super().__init__(path, columns)
        self._write_texts([[column.name for column in columns]])

    def _write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        self._write_texts([["" if value is None else _text(value) for value in row] for row in rows])

    def _write_texts(self, rows: Iterable[list[str]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode())


class _JsonLinesFile(RowFile):
    def _write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        names = [column.name for column in self._columns]
        lines = (json.dumps(dict(zip(names, row, strict=True)), default=_text) for row in rows)
        self._file.write("".join(f"{line}\n" for line in lines).encode())


class _ParquetFile(RowFile):
    def __init__(self, path: ObjectStoragePath, columns: Sequence[Any]) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise ConfigError(
                "A Parquet file needs pyarrow, which is not installed.",
                remedy="Install lakebase-provider[arrow], or end output_path in .csv or .jsonl.",
            ) from None
        super().__init__(path, columns)
        self._schema = pa.schema([(column.name, _arrow_type(column)) for column in columns])
        self._is_text = [pa.types.is_string(kind) for kind in self._schema.types]
        self._writer = pq.ParquetWriter(self._file, self._schema)

    def _write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        import pyarrow as pa

        columns = [
            [None if value is None else _text(value) for value in values] if is_text else list(values)
            for values, is_text in zip(zip(*rows, strict=True), self._is_text, strict=True)
        ]
        self._writer.write_table(pa.table(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()
        super().close()


_FORMATS: dict[str, type[RowFile]] = {
    ".csv": _CsvFile,
    ".jsonl": _JsonLinesFile,
    ".ndjson": _JsonLinesFile,
    ".parquet": _ParquetFile,
}


def check_path(path: str) -> None:
    """Refuse a path whose format is unknown.

    Args:
        path: A path or URL, or a template of one; it is the end that counts.

    Raises:
        ConfigError: The path ends in none of the known formats.
    """
    _format_of(path)


def open_rows(path: str, columns: Sequence[Any]) -> RowFile:
    """A new file at a path that Airflow's object storage knows, over one that is there.

    Args:
        path: A local path, or a URL as ``s3://connection@bucket/key.csv``; its end says which format.
        columns: The query's columns, as psycopg describes them.

    Raises:
        ConfigError: The format is unknown, or needs what is not installed.
    """
    from airflow.sdk import ObjectStoragePath

    kind = _format_of(path)
    place = ObjectStoragePath(path)
    if place.protocol in ("", "file"):
        place.parent.mkdir(parents=True, exist_ok=True)
    return kind(place, columns)


def _format_of(path: str) -> type[RowFile]:
    name = urlsplit(path).path if "://" in path else path
    for suffix, kind in _FORMATS.items():
        if name.endswith(suffix):
            return kind
    raise ConfigError(
        f"output_path {path!r} ends in no known format.", remedy=f"End it in one of: {', '.join(_FORMATS)}."
    )


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"  # as Postgres writes it
    if isinstance(value, dict | list):
        return json.dumps(value, default=_text)
    isoformat = getattr(value, "isoformat", None)
    return str(value if isoformat is None else isoformat())


def _arrow_type(column: Any) -> DataType:
    import pyarrow as pa

    # By Postgres' fixed type numbers. What is not here is written as text, arrays and JSON among it.
    kinds = {
        16: pa.bool_(),
        17: pa.binary(),
        20: pa.int64(),
        21: pa.int16(),
        23: pa.int32(),
        700: pa.float32(),
        701: pa.float64(),
        1082: pa.date32(),
        1114: pa.timestamp("us"),
        1184: pa.timestamp("us", tz="UTC"),
    }
    if column.type_code == 1700 and column.precision is not None and column.scale is not None:
        return pa.decimal128(column.precision, column.scale)
    return kinds.get(column.type_code, pa.string())
