"""COPY between a file and the server."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psycopg

from lakebase_provider.core.base.files.plain_files import NewFile, open_to_read
from lakebase_provider.core.base.sql.sql_text import without_quotes
from lakebase_provider.core.bulk.files.locations import locate
from lakebase_provider.core.errors import ConfigError

#: Bytes of one message to the server.
_BLOCK = 128 * 1024

_STREAM = re.compile(r"\b(?P<direction>from\s+stdin|to\s+stdout)\b", re.IGNORECASE)


def copy_between(
    cursor: psycopg.Cursor[tuple[object, ...]], sql: str, filename: str | os.PathLike[str]
) -> int:
    """Run a COPY with a local file.

    Args:
        cursor: A cursor of the connection to run it on.
        sql: A COPY with FROM STDIN, which reads the file, or with TO STDOUT, which writes it: all of it, or
            nothing if the COPY fails.
        filename: The local file.

    Returns:
        The number of rows.

    Raises:
        ConfigError: The statement has neither or both; or it is not a local file.
        FileNotFoundError: There is no file to read. The server was not asked.
    """
    found = {match["direction"].split()[0].lower() for match in _STREAM.finditer(without_quotes(sql))}
    if len(found) != 1:
        raise ConfigError(
            "The statement is not a COPY with FROM STDIN or TO STDOUT.",
            remedy="Use COPY … FROM STDIN to load the file, or COPY … TO STDOUT to write it.",
        )
    path = locate(filename, "filename").local
    if path is None:
        raise ConfigError("filename is not a local file.", remedy="Give a local path.")
    if found == {"from"}:
        _load(cursor, sql, path)
    else:
        _dump(cursor, sql, path)
    return cursor.rowcount


def _load(cursor: psycopg.Cursor[tuple[object, ...]], sql: str, path: Path) -> None:
    with open_to_read(path, "filename") as file, cursor.copy(sql) as copy:
        while block := file.read(_BLOCK):
            copy.write(block)


def _dump(cursor: psycopg.Cursor[tuple[object, ...]], sql: str, path: Path) -> None:
    # Next to the target, so that it replaces the target atomically: nobody sees half of it.
    target = NewFile(path, "filename")
    try:
        with cursor.copy(sql) as copy:
            for block in copy:
                target.file.write(block)
        target.finish()
    except BaseException:
        target.discard()
        raise
