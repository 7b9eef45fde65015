"""What is wrong with a file's bytes, in words that name the file and help.

Arrow's own messages may quote the file's content, and do not name the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from lakebase_provider.core.bulk.types.target_columns import BadValueError
from lakebase_provider.core.errors import ConfigError, LakebaseError, LoadError

if TYPE_CHECKING:
    import pyarrow as pa

    from lakebase_provider.core.bulk.files.locations import Location

#: How files of other kinds begin.
_BEGINNINGS = (
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\xff\xff\xff\xff", "a stream of Arrow's IPC format"),
    (b"\x1f\x8b", "gzip data"),
    (b"BZh", "bzip2 data"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data"),
    (b"PK\x03\x04", "a ZIP archive, which an Excel workbook is too"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"Obj\x01", "an Avro file"),
    (b"ORC", "an ORC file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\xff\xfe\0\0", "UTF-32 text"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)
#: Bytes with which a whole file of the kind begins and ends.
_MARKS = {"Parquet": b"PAR1", "Arrow": b"ARROW1"}
#: Bytes by which a file's kind is known.
HEAD = 64
#: What no text has, and the beginning of any other file; that alone may be a column's name, such as ORCID.
_BINARY = re.compile(rb"[\0-\x08\x0e-\x1f]")
_GET_AGAIN = "Write or copy the file again: it is incomplete or damaged."


def kind_of(head: bytes) -> str | None:
    """What a file is, judged by its beginning, in words; None for text or an unknown kind."""
    found = next((kind for mark, kind in _BEGINNINGS if head.startswith(mark)), None)
    if found is None and b"\0" in head[:2] and head.strip(b"\0"):
        return "UTF-16 text"
    return found


def require_text(name: str, kind: str, head: bytes, encoding: str = "utf-8") -> None:
    """Refuse a file that is not text, judged by its beginning.

    Args:
        name: The file's name.
        kind: What its suffix says, ``"CSV"`` or ``"JSON lines"``.
        head: How it begins, unpacked.
        encoding: The encoding that it is said to be in.

    Raises:
        ConfigError: It is of another kind.
    """
    found = kind_of(head)
    if found is None or not (found.startswith("UTF") or _BINARY.search(head)):
        return
    if found.startswith("UTF"):
        if not encoding.lower().startswith(("utf-8", "utf8", "utf_8")):
            return
        encoding = "utf-32" if found.startswith("UTF-32") else _utf16(head)
        remedy = f"Load it with encoding={encoding!r}." if kind == "CSV" else "Write the file in UTF-8."
    else:
        remedy = "Give the file the suffix of its format, or give another file."
    raise ConfigError(f"The file {name!r} cannot be read as {kind}: it begins like {found}.", remedy=remedy)


def _utf16(head: bytes) -> str:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    return "utf-16-be" if head[:1] == b"\0" else "utf-16-le"


@contextmanager
def naming(place: Location, kind: str, packed: str | None = None) -> Iterator[None]:
    """Raise as a ConfigError whatever the reader of a file finds wrong when opening it.

    Args:
        place: The file.
        kind: What its suffix says that it is.
        packed: How it is packed, if it is.
    """
    try:
        yield
    except LakebaseError:
        raise
    except Exception as error:
        if not is_content(error):
            raise
        if isinstance(error, BadValueError):
            raise ConfigError(
                f"The file {place.name!r} cannot be read as {kind}: {error.reason}.",
                remedy=error.remedy or f"Give a {kind} file.",
            ) from None
        what, remedy = _wrong(place, kind, packed, error)
        raise ConfigError(
            f"The file {place.name!r} cannot be read as {kind}: {what}.", remedy=remedy
        ) from None


def _wrong(place: Location, kind: str, packed: str | None, error: Exception) -> tuple[str, str]:
    head, tail = _ends(place)
    if not head:
        return "it is empty", _GET_AGAIN
    mark = _MARKS.get(kind)
    found = kind_of(head)
    if packed is not None:
        if found is not None and found.lower().startswith(_LIBRARY[packed]):
            return f"its {packed} data {_cut_or_damaged(error)}", _GET_AGAIN
        return (
            f"it is not compressed with {packed}, but begins like {found or 'something else'}",
            "Leave out the last suffix if the file is not compressed, or give another file.",
        )
    if mark is None:
        return f"its content is not of that kind ({type(error).__name__})", "Give a file of that kind."
    if head.startswith(mark):
        if not tail.endswith(mark):
            return "it begins as such but does not end as one, so it is truncated", _GET_AGAIN
        return "its footer is damaged", _GET_AGAIN
    if found == "a stream of Arrow's IPC format" and kind == "Arrow":
        return (
            f"it is {found}, not a file in that format",
            "Give pyarrow.ipc.open_stream(path) as the source, or write it with pyarrow.ipc.new_file.",
        )
    return (
        f"it begins like {found or 'text, or something else'}",
        "Give the file the suffix of its format, or give another file.",
    )


#: How :func:`kind_of` begins to name them.
_LIBRARY = {"gzip": "gzip", "bz2": "bzip2", "zstd": "zstandard"}


def _ends(place: Location) -> tuple[bytes, bytes]:
    """How a file begins and ends."""
    with suppress(Exception), place.open() as file:
        head = file.read(HEAD)
        file.seek(max(0, file.seek(0, os.SEEK_END) - HEAD))
        return bytes(head), bytes(file.read(HEAD))
    return b"", b""


def read_on(
    batches: Iterator[pa.RecordBatch], name: str, kind: str, packed: str | None = None
) -> Iterator[pa.RecordBatch]:
    """The batches of a file, and an error that names the file if it cannot be read to its end.

    Args:
        batches: The batches.
        name: The file's name.
        kind: What it is.
        packed: How it is packed, if it is.

    Raises:
        LoadError: The file is truncated or damaged.
    """
    rows = 0
    try:
        for batch in batches:
            rows += batch.num_rows
            yield batch
    except BadValueError:
        raise
    except Exception as error:
        if isinstance(error, LakebaseError) or not is_content(error):
            raise
        what = f"its {packed or kind} data {_cut_or_damaged(error)}"
        raise LoadError(
            f"The file {name!r} cannot be read from row {rows + 1:,} onwards: {what}.", remedy=_GET_AGAIN
        ) from None


def _cut_or_damaged(error: Exception) -> str:
    # Arrow's words for gzip and Zstandard, and for bzip2.
    words = str(error).lower()
    cut = "truncated" in words or "unexpected" in words
    return "end too early: it is truncated" if cut else "are damaged"


def is_content(error: Exception) -> bool:
    """Whether an error is about the bytes that were read, not about reading them."""
    import pyarrow as pa

    if isinstance(error, OSError):  # Arrow's own of what it unpacks has no number
        return error.errno is None and type(error) is OSError
    return isinstance(error, (UnicodeError, pa.ArrowException, BadValueError))


def not_utf8(error: UnicodeDecodeError, before: int, line: int) -> BadValueError:
    """The error of a text that is not in UTF-8.

    Args:
        error: Tells the position among the bytes that were checked.
        before: How many bytes of the file came before those.
        line: Number of the line in which those begin, from 1.
    """
    line += error.object[: error.start].count(b"\n")
    return BadValueError(
        f"byte {before + error.start + 1:,}, in line {line:,}, is not UTF-8",
        kind="CSV",
        remedy="Give the file's encoding, such as encoding='cp1252' (Windows, Excel) or 'latin-1', "
        "or write the file in UTF-8.",
    )
