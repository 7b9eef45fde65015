"""The SQL files of a folder, in the order of their versions, each split into its statements.

A file is called ``<version>_<name>.sql``, such as ``0001_orders.sql``, or ``V1__orders.sql``: a letter V or
none, a whole number, one or two underscores, and a name of letters, digits, ``_``, ``-`` and dots. Numbers of
up to seven digits count the files, one by one, from whichever is the first; longer ones are dates or times,
between which anything may be missing.
"""

from __future__ import annotations

import hashlib
import os
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from lakebase_provider.core.base.files.plain_files import open_to_read
from lakebase_provider.core.base.plain_text import escaped
from lakebase_provider.core.base.sql.sql_text import placed_statements, tokens
from lakebase_provider.core.errors import ConfigError, MigrationError
from lakebase_provider.core.upkeep.migrations.statement_kinds import (
    Statement,
    mentions,
    new_label,
    only_in_transaction,
)

_NAME = re.compile(r"V?(?P<version>[0-9]{1,18})_{1,2}(?P<name>[A-Za-z0-9][\w.-]*)\.sql", re.ASCII)
#: Versions below this count the files; from it on they are dates or times.
_COUNTED = 10_000_000
#: What files of dbmate, goose, sql-migrate and node-pg-migrate have between what goes up and what goes down.
_BOTH_WAYS = re.compile(
    r"--\s*(migrate:(up|down)\b|\+(goose|migrate)\s|(up|down) migration\s*$)", re.IGNORECASE
)
_GRAMMAR = "Call it <number>_<name>.sql, such as 0001_orders.sql or V1__orders.sql."


@dataclass(frozen=True)
class SqlFile:
    """A file of SQL.

    Attributes:
        version: The number in its name.
        name: Its name in the folder.
        path: Where it is.
        text: Its text, with line ends as on Unix and without a byte-order mark.
        statements: Its statements in order.
    """

    version: int
    name: str
    path: Path
    text: str
    statements: tuple[Statement, ...]

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of the text, as hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def checksum_of_first(self, count: int) -> str:
        """SHA-256 of its first statements, as hexadecimal digits."""
        first = "\0".join(statement.text for statement in self.statements[:count])
        return hashlib.sha256(first.encode()).hexdigest()

    @property
    def outside(self) -> tuple[str, ...]:
        """The statements that cannot run in a transaction, each its line and first words."""
        return tuple(f"line {one.line} {one.title}" for one in self.statements if one.outside)

    @property
    def in_transaction(self) -> bool:
        """Whether all of it can run in one transaction."""
        return not any(statement.outside or statement.committed for statement in self.statements)


def read_folder(folder: str | os.PathLike[str]) -> tuple[SqlFile, ...]:
    """The files of a folder, in the order of their versions.

    Beside them only names that begin with a dot, and Markdown, may stand in it.

    Args:
        folder: Its path.

    Raises:
        ConfigError: There is no such folder, or it cannot be read.
        MigrationError: Something in it is no file of migrations, such as a pipe or a link out of it, is
            empty, is not UTF-8, has a version twice or leaves one out, or holds what cannot be run; the
            message names each file.
    """
    place = Path(folder)
    try:
        found = sorted(entry for entry in place.iterdir() if not _may_stand_beside(entry))
    except OSError as error:
        raise ConfigError(
            f"The folder of migrations {str(place)!r} cannot be read: {error.strerror}.",
            remedy="Give the path of a folder of SQL files.",
        ) from error
    files: list[SqlFile] = []
    problems: list[MigrationError] = []
    for path in found:
        try:
            files.append(_read(path))
        except MigrationError as error:
            problems.append(error)
    files.sort(key=lambda file: (file.version, file.name))
    problems += _out_of_count(files)
    if problems:
        raise _together(problems)
    return tuple(files)


def _may_stand_beside(entry: Path) -> bool:
    return entry.name.startswith(".") or entry.suffix.lower() == ".md"


def _together(problems: list[MigrationError]) -> MigrationError:
    if len(problems) == 1:
        return problems[0]
    error = MigrationError(
        " ".join(problem.message for problem in problems),
        remedy=" ".join(dict.fromkeys(problem.remedy for problem in problems)),
    )
    error.file, error.line = problems[0].file, problems[0].line
    return error


def _read(path: Path) -> SqlFile:
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise about_file(path.name, None, "this is not a name of a file of migrations", _GRAMMAR)
    raw = _bytes(path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise about_file(
            path.name, line, f"byte {error.start + 1} is not UTF-8", "Save the file as UTF-8."
        ) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return SqlFile(int(match["version"]), path.name, path, text, parsed(path.name, text))


def _bytes(path: Path) -> bytes:
    try:
        # Folders that Kubernetes mounts hold links to files below them; elsewhere lies nobody's migration.
        target = os.path.realpath(path, strict=True)
        if not Path(target).is_relative_to(path.parent.resolve()):
            raise about_file(
                path.name, None, "it is a link out of the folder", "Put the file itself into the folder."
            )
        with open_to_read(Path(target), "the file", follow=False) as file:
            return file.read()
    except ConfigError as error:  # a pipe, a device, …
        raise about_file(path.name, None, error.message.removesuffix("."), error.remedy) from None
    except OSError as error:
        raise about_file(
            path.name, None, f"it cannot be read: {error.strerror}", "Make it a file that can be read."
        ) from error


def about_file(name: str, line: int | None, message: str, remedy: str | None = None) -> MigrationError:
    """The error about a file, and a line of it."""
    # Whoever can put a file there must not write lines of their own on a terminal.
    where = escaped(name) if line is None else f"{escaped(name)}:{line}"
    error = MigrationError(f"{where}: {message}.", remedy=remedy)
    error.file, error.line = name, line
    return error


def parsed(name: str, text: str) -> tuple[Statement, ...]:
    """The statements of a text.

    Args:
        name: What it is called in errors.
        text: The text.

    Raises:
        MigrationError: It is not well formed, holds no statement, or what cannot be run.
    """
    ends = [at for at, character in enumerate(text) if character == "\n"]

    def line_of(at: int) -> int:
        return bisect_left(ends, at) + 1

    found = [
        Statement.of(number, piece, line_of(at))
        for number, (at, piece) in enumerate(placed_statements(text), 1)
    ]
    # What follows the first of them may follow from it, as the rows after COPY do.
    refusals = sorted([*_unreadable(text, line_of), *_refused(found)], key=lambda refusal: refusal[0])
    for line, message, remedy in refusals:
        raise about_file(name, line, message, remedy)
    if not found:
        raise about_file(
            name, None, "there is no statement in it", "Delete it, or write what it is to change."
        )
    marked = _with_labels_used(found)
    if any(statement.outside or statement.committed for statement in marked):
        _require_lasting(name, marked)
    return marked


def _require_lasting(name: str, found: Iterable[Statement]) -> None:
    for statement in found:
        what = only_in_transaction(statement)
        if what is not None:
            raise about_file(
                name,
                statement.line,
                f"{what} has no effect here: the file runs statement by statement, each by itself",
                "Use SET, or put what cannot run in a transaction into a file of its own.",
            )


def _unreadable(text: str, line_of: Callable[[int], int]) -> Iterator[tuple[int, str, str]]:
    for kind, at, end in tokens(text):
        piece = text[at:end]
        if kind == "open":
            yield line_of(at), "the quote or comment that begins here has no end", "Close it."
        elif kind == "symbol" and piece == "\\":
            yield (
                line_of(at),
                "a backslash is a command of psql, which does not run here",
                "Write it in SQL.",
            )
        elif kind == "comment" and _BOTH_WAYS.match(piece):
            yield (
                line_of(at),
                "this is a mark of another tool; here what goes up and what goes down would run alike",
                "Keep what goes up, without the mark, or run that tool by client.migrations.command.",
            )
        elif "\0" in piece:
            yield line_of(at), "there is a NUL character", "Remove it."


def _refused(found: list[Statement]) -> Iterator[tuple[int, str, str]]:
    for statement in found:
        refusal = statement.refusal()
        if refusal is not None:
            yield statement.line, *refusal


def _with_labels_used(found: list[Statement]) -> tuple[Statement, ...]:
    """With those marked that add a label which a later one uses: it has to be committed before."""
    marked = []
    for at, statement in enumerate(found):
        label = new_label(statement)
        if label is not None and any(mentions(later, label) for later in found[at + 1 :]):
            statement = replace(statement, committed=True)
        marked.append(statement)
    return tuple(marked)


def _out_of_count(files: list[SqlFile]) -> Iterator[MigrationError]:
    for before, after in pairwise(files):
        if before.version == after.version:
            yield about_file(
                after.name,
                None,
                f"its version {after.version} is that of {before.name}, too",
                "Give each file a version of its own.",
            )
        elif before.version + 1 < after.version < _COUNTED:
            yield about_file(
                after.name,
                None,
                f"version {before.version + 1} is missing between {before.name} and this",
                "Add the file that is missing, or count on from the one before.",
            )
