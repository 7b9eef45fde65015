"""JSON lines as a source: every value as the text that the server's input functions read."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from json.decoder import scanstring  # type: ignore[attr-defined] # in the module for whoever takes JSON apart
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.bulk.files.file_faults import HEAD, require_text
from lakebase_provider.core.bulk.sources.csv_rows import LONGEST_ROW
from lakebase_provider.core.bulk.sources.source import ROWS, Batch, Source, arrow_source
from lakebase_provider.core.bulk.types.arrow import array_of
from lakebase_provider.core.bulk.types.target_columns import BadValueError, Target

if TYPE_CHECKING:
    import pyarrow as pa

#: Characters after which a batch ends before it has its rows.
_BATCH = 1 << 20
_BUFFER = 1 << 18
_ONE_OBJECT = "Write one complete JSON object in each line."
# Remedies for a line as a whole, which cannot be set aside as a row with a bad value can.
_SAME_KEYS = "Give each line the keys of the first one, with null for a value that is missing."
_WHOLE_CHARACTERS = "Write the character in UTF-8, or as both halves of its pair."
_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null")


def open_json_lines(
    stream: Any,
    name: str,
    reading: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]],
) -> Source:
    """A file of JSON objects, one in each line, which all have the first one's keys.

    A number, and an object or array within, is the text that stands there, with its digits and its keys.

    Args:
        stream: The file, opened in binary; closed with the source.
        name: Its name, for errors.
        reading: Goes over its batches.

    Raises:
        ConfigError: It is of another kind.
        BadValueError: The first line is no such object.
    """
    import pyarrow as pa

    file = io.BufferedReader(stream, _BUFFER)
    require_text(name, "JSON lines", file.peek(HEAD)[:HEAD])
    lines = _lines(file)
    first = next(lines, None)
    if first is None:
        return Source("JSON lines file without a row", lambda: iter(()), close=stream.close)
    if first.lstrip()[:1] == "[":
        raise BadValueError(
            "it begins with a list", kind="JSON", index=0, remedy="Write one object in each line."
        )
    names = tuple(name for name, _ in _members(first, 0))
    schema = pa.schema([(name, pa.string()) for name in names])
    return arrow_source(
        schema, reading(_batches(first, lines, names, schema)), "JSON lines file", stream.close, json=True
    )


def _lines(file: io.BufferedReader) -> Iterator[str]:
    number = before = 0
    while line := file.readline(LONGEST_ROW + 1):
        if len(line) > LONGEST_ROW:
            reason = f"a line without an end within {LONGEST_ROW >> 20} MiB"
            raise BadValueError(reason, kind="JSON", index=number)
        try:
            yield line.decode("utf-8-sig" if number == 0 else "utf-8")
        except UnicodeDecodeError as error:
            raise BadValueError(
                f"a line that is not UTF-8, from byte {before + error.start + 1:,} of the file",
                kind="JSON",
                index=number,
                remedy="Write the file in UTF-8, as JSON requires.",
            ) from None
        number += 1
        before += len(line)


def _batches(
    first: str, lines: Iterator[str], names: tuple[str, ...], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    rows: list[list[str | None]] = []
    begun = size = 0

    def batch() -> pa.RecordBatch:
        columns = zip(*rows, strict=True) if names else ()
        try:
            return pa.RecordBatch.from_arrays(
                [array_of(column, pa.string()) for column in columns], schema=schema
            )
        except UnicodeEncodeError:
            index = next(place for place, row in enumerate(rows) if not all(map(_has_utf8, row)))
            raise BadValueError(
                "half of a surrogate pair", kind="JSON", index=begun + index, remedy=_WHOLE_CHARACTERS
            ) from None

    line: str | None = first
    while line is not None:
        rows.append(_row(line, begun + len(rows), names))
        size += len(line)
        if len(rows) == ROWS or size > _BATCH:
            yield batch()
            begun, size = begun + len(rows), 0
            rows.clear()
        line = next(lines, None)
    if rows:
        yield batch()


def _row(line: str, index: int, names: tuple[str, ...]) -> list[str | None]:
    members = _members(line, index)
    if tuple(name for name, _ in members) == names:
        return [value for _, value in members]
    found = dict(members)
    missing = [name for name in names if name not in found]
    if missing:
        raise BadValueError(
            f"no value for {missing[0]!r}, which the first line has",
            kind="JSON",
            index=index,
            remedy=_SAME_KEYS,
        )
    if len(found) > len(names):
        raise BadValueError(
            "a key that the first line does not have", kind="JSON", index=index, remedy=_SAME_KEYS
        )
    return [found[name] for name in names]


def _has_utf8(text: str | None) -> bool:
    try:
        return text is None or text.encode() is not None
    except UnicodeEncodeError:
        return False


class _NestedError(Exception):
    """An object or array within, whose text is wanted."""


def _pairs(pairs: list[tuple[str, Any]]) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    for name, value in pairs:
        if value is None or type(value) is str:
            found.append((name, value))
        elif value is True or value is False:
            found.append((name, "true" if value else "false"))
        else:
            raise _NestedError
    return found


def _no_number(name: str) -> Any:
    raise ValueError(name)


#: In C, for lines without objects and arrays within.
_FLAT = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=str, parse_float=str, parse_constant=_no_number
).decode
#: Finds the end of what is within.
_WITHIN = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_no_number).raw_decode


def _members(line: str, index: int) -> list[tuple[str, str | None]]:
    """The keys of a line's object with their values as texts."""
    try:
        try:
            found = _FLAT(line)
        except _NestedError:
            found = _taken_apart(line)
    except (ValueError, RecursionError, IndexError) as error:
        reason = "not a JSON object" if line.strip() else "a blank line instead of an object"
        if isinstance(error, RecursionError):
            reason = "not a JSON object that can be read: it is nested too deep"
        elif line.strip() and not line.endswith("\n"):
            reason = "not a JSON object, and the file ends without a line break: it may be truncated"
        raise BadValueError(reason, kind="JSON", index=index, remedy=_ONE_OBJECT) from None
    if not isinstance(found, list) or line.lstrip()[:1] != "{":
        raise BadValueError("not a JSON object", kind="JSON", index=index, remedy=_ONE_OBJECT)
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        raise BadValueError(
            "an object with a duplicate key", kind="JSON", index=index, remedy="Write each key once."
        )
    return found


def _taken_apart(line: str) -> list[tuple[str, str | None]]:
    """The members of an object that is known to be well-formed but for what its values hold."""
    found: list[tuple[str, str | None]] = []
    place = _after(line, _after(line, 0), "{")
    while True:
        name, place = scanstring(line, place + 1)
        place = _after(line, _after(line, place), ":")
        mark = line[place]
        if mark == '"':
            value, place = scanstring(line, place + 1)
        elif mark in "[{":
            _, end = _WITHIN(line, place)
            value, place = line[place:end], end
        else:
            plain = _PLAIN.match(line, place)
            if plain is None:
                raise ValueError
            place = plain.end()
            value = None if plain[0] == "null" else plain[0]
        found.append((name, value))
        place = _after(line, place)
        if line[place] == "}":
            if _after(line, place + 1) != len(line):
                raise ValueError
            return found
        place = _after(line, place, ",")


def _after(line: str, place: int, mark: str = "") -> int:
    """The place after white space; where a mark has to stand there, after it and more of that."""
    found = _SPACE.match(line, place)
    assert found is not None  # it matches nothing, too
    if not mark:
        return found.end()
    if line[found.end()] != mark:
        raise ValueError
    return _after(line, found.end() + 1)


def with_array_literals(batch: Batch, targets: Sequence[Target]) -> Batch:
    """The batch with JSON's arrays as Postgres writes arrays, where they go to such columns.

    Args:
        batch: Columns of texts.
        targets: What they go to.

    Raises:
        BadValueError: An array holds an object.
    """
    columns = tuple(
        _converted(column, target.delimiter) if target.delimiter else column
        for column, target in zip(batch.columns, targets, strict=True)
    )
    return Batch(columns, batch.rows)


def _converted(column: Any, delimiter: str) -> Any:
    texts = column.to_pylist()
    for index, text in enumerate(texts):
        # Postgres' own form ends in a brace, also where it begins with the bounds.
        if text is not None and text.startswith("[") and text.endswith("]"):
            try:
                texts[index] = _literal(_WITHIN(text)[0], delimiter)
            except ValueError:
                raise BadValueError("an array that is not a plain list", kind="JSON", index=index) from None
            except RecursionError:
                raise BadValueError("an array that is nested too deep", kind="JSON", index=index) from None
    return array_of(texts, column.type)


def _literal(items: list[Any], delimiter: str) -> str:
    return "{" + delimiter.join(_element(item, delimiter) for item in items) + "}"


def _element(item: Any, delimiter: str) -> str:
    if item is None:
        return "NULL"
    if isinstance(item, list):
        return _literal(item, delimiter)
    if isinstance(item, bool):
        return "true" if item else "false"
    if not isinstance(item, str):
        raise ValueError
    escaped = item.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
