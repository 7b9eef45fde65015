"""COPY between a file and the server."""

from __future__ import annotations

import os
import re
from pathlib import Path
from tempfile import NamedTemporaryFile

import psycopg

from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.sql_text import without_quotes

#: Bytes of one message to the server.
_BLOCK = 128 * 1024

_STREAM = re.compile(r"\b(?P<direction>from\s+stdin|to\s+stdout)\b", re.IGNORECASE)


def copy_between(cursor: psycopg.Cursor[tuple[object, ...]], sql: str, path: Path) -> int:
    """Run a COPY with a file at this end.

    Args:
        cursor: Of the connection to run it on.
        sql: A COPY with FROM STDIN, which reads the file, or with TO STDOUT, which writes it: all of it, or
            nothing if the COPY fails.
        path: The file.

    Returns:
        The number of rows.

    Raises:
        ConfigError: The statement has neither, or both.
        FileNotFoundError: There is no file to read. The server was not asked.
    """
    found = {match["direction"].split()[0].lower() for match in _STREAM.finditer(without_quotes(sql))}
    if len(found) != 1:
        raise ConfigError(
            "The statement is no COPY with either FROM STDIN or TO STDOUT.",
            remedy="Write COPY … FROM STDIN to load the file, COPY … TO STDOUT to write it.",
        )
    if found == {"from"}:
        _load(cursor, sql, path)
    else:
        _dump(cursor, sql, path)
    return cursor.rowcount


def _load(cursor: psycopg.Cursor[tuple[object, ...]], sql: str, path: Path) -> None:
    with path.open("rb") as file, cursor.copy(sql) as copy:
        while block := file.read(_BLOCK):
            copy.write(block)


def _dump(cursor: psycopg.Cursor[tuple[object, ...]], sql: str, path: Path) -> None:
    # Beside the target, so that it takes the target's place in one step: nobody sees half of it.
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        part = Path(file.name)
        try:
            with cursor.copy(sql) as copy:
                for block in copy:
                    file.write(block)
            file.flush()
            part.chmod(0o666 & ~_umask() if not path.exists() else path.stat().st_mode & 0o777)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
