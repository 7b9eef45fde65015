"""The files that a folder holds or that a pattern matches, and their order.

Files other than data, or unfinished ones, have marked names, and are left out. Anything else that is not a
data file is refused: loading less than intended, or some of it twice, would go unnoticed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lakebase_provider.core.base.plain_text import flaw
from lakebase_provider.core.bulk.files.locations import Location
from lakebase_provider.core.errors import ConfigError

#: Beginnings and ends of names that are left out: hidden files, markers such as _SUCCESS, unfinished files.
_LEFT_OUT = (".", "_")
_LEFT_OUT_ENDS = (".tmp", ".crc", "~", "_$folder$")
#: Folders in which table formats keep which of the other files are current, and what reads such a table.
_OF_TABLES = {
    "_delta_log": ("a Delta table", "Name it as one: 'delta:' and the path of its folder."),
    ".hoodie": ("a Hudi table", "Read it with a library for that format, and give the Arrow data as source."),
}
#: How Hive and Spark name the folder of NULL.
_NULL = "__HIVE_DEFAULT_PARTITION__"
_ANY_DEPTH = "**"


@dataclass(frozen=True)
class Part:
    """One of the files.

    Attributes:
        place: Where it lies.
        keys: Names and values of the folders ``key=value`` in its path; the value None means NULL.
        size: Its bytes, where known.
    """

    place: Location
    keys: tuple[tuple[str, str | None], ...]
    size: int | None


@dataclass(frozen=True)
class FoundFiles:
    """The files of a folder or pattern, at least one, sorted by name.

    Attributes:
        name: The folder's or pattern's name, for errors.
        parts: The files.
        keys: Names of the columns that their folders stand for.
    """

    name: str
    parts: tuple[Part, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class _Entry:
    """Something in a folder."""

    name: str
    is_folder: bool
    is_link: bool = False
    size: int | None = None


def found_files(place: Location) -> FoundFiles | None:
    """The files that a name stands for.

    Args:
        place: Where the name leads.

    Returns:
        None if it is a file's name, or nothing has it.

    Raises:
        ConfigError: There are none, or some are not files: symbolic links, folders that are not named
            ``key=value``, those of a table format; or they are in folders with different keys.
    """
    if place.local is None and place.fs is None:
        return None
    if place.local is None:
        place.fs.invalidate_cache()  # of what has come since, a process that lives long would not know
    kind = _kind(place)
    if kind == "file":
        return None
    text = str(place.local) if place.local is not None else place.path
    parts = text.rstrip("/").split("/")
    begin = next((number for number, part in enumerate(parts) if _is_pattern(part, place)), len(parts))
    if kind == "folder":
        base, patterns, name = place, [], place.name.rstrip("/")
    elif begin == len(parts):
        return None
    else:
        patterns = parts[begin:]
        base = _moved(place, "/".join(parts[:begin]) or ("/" if text.startswith("/") else ""))
        split = place.name.rstrip("/").rsplit("/", len(patterns))
        name = split[0] if len(split) > len(patterns) else ""
    folder = _Folder(base, name)
    found = dict(folder.matching(patterns) if patterns else folder.files())
    if not found:
        if kind == "folder":
            message = f"{place.argument}: the folder {place.name!r} holds no file to load."
        else:
            message = f"{place.argument}: there is no file {place.name!r}, and none matches it as a pattern."
        raise ConfigError(message, remedy="Check the path.")
    return _of_one_shape(place, [folder.part(names, found[names]) for names in sorted(found)])


def _of_one_shape(place: Location, parts: list[Part]) -> FoundFiles:
    first = parts[0]
    keys = tuple(key for key, _ in first.keys)
    for part in parts:
        if tuple(key for key, _ in part.keys) != keys:
            raise ConfigError(
                f"{place.argument}: {first.place.name!r} and {part.place.name!r} are in folders with "
                "different keys.",
                remedy="Select those of one kind with a pattern, such as 'folder/day=*/*.parquet'.",
            )
    return FoundFiles(place.name, tuple(parts), keys)


def _kind(place: Location) -> str:
    """``"file"``, ``"folder"``, or ``"nothing"`` if nothing has this name."""
    try:
        if place.local is not None:
            return "folder" if stat.S_ISDIR(place.local.stat().st_mode) else "file"
        return "folder" if place.fs.info(place.path)["type"] == "directory" else "file"
    except FileNotFoundError:
        return "nothing"
    except Exception:  # of any library; whoever opens the file is told what is wrong
        return "file"


def _is_pattern(part: str, place: Location) -> bool:
    # A question mark begins the query of a URI.
    return bool(re.search(r"[*\[]" if place.local is None else r"[*?\[]", part))


def _moved(place: Location, path: str) -> Location:
    if place.local is not None:
        return replace(place, local=Path(path))
    return replace(place, path=path, given=None)


class _Folder:
    """A folder, and all below it."""

    def __init__(self, base: Location, name: str) -> None:
        self._base = base
        self._name = name

    def part(self, names: tuple[str, ...], size: int | None) -> Part:
        """The file of that name, whose parts are names of folders."""
        keys = tuple(key for key in map(_key, names[:-1]) if key is not None)
        return Part(self._place(names), keys, size)

    def files(self, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int | None]]:
        """The files in a folder and in those of keys below it."""
        for entry in self._entries(names):
            below = (*names, entry.name)
            if not entry.is_folder:
                yield below, entry.size
                continue
            if _key(entry.name) is None:
                raise self._refused(
                    names,
                    f"holds the folder {entry.name!r}, which is not named key=value",
                    "Select the files with a pattern, such as 'folder/**/*.csv'.",
                )
            yield from self.files(below)

    def matching(
        self, patterns: list[str], names: tuple[str, ...] = ()
    ) -> Iterator[tuple[tuple[str, ...], int | None]]:
        """The files below a folder that match patterns, one for each part of their names."""
        pattern, *more = patterns
        if pattern == _ANY_DEPTH and more:
            yield from self.matching(more, names)
        for entry in self._entries(names, pattern):
            below = (*names, entry.name)
            if pattern == _ANY_DEPTH:
                if entry.is_folder:
                    yield from self.matching(patterns, below)
                elif not more:
                    yield below, entry.size
            elif entry.is_folder:
                yield from self.matching(more, below) if more else self.files(below)
            elif not more:
                yield below, entry.size

    def _entries(self, names: tuple[str, ...], pattern: str = "*") -> Iterator[_Entry]:
        """A folder's entries with matching names, except those that are left out."""
        for entry in self._listed(names):
            if entry.is_folder and entry.name in _OF_TABLES:
                table, remedy = _OF_TABLES[entry.name]
                raise self._refused(names, f"is {table}, in which not every file is current", remedy)
            if _is_left_out(entry.name) or not fnmatchcase(entry.name, pattern):
                continue
            if found := flaw(entry.name):
                raise self._refused(names, f"holds a name with {found}", "Rename that file.")
            if entry.is_link:
                raise self._refused(
                    (*names, entry.name),
                    "is a symbolic link, which is not followed in a folder or pattern",
                    "Name the file itself as the source, or replace the link by the file.",
                )
            yield entry

    def _listed(self, names: tuple[str, ...]) -> list[_Entry]:
        place = self._place(names)
        try:
            if place.local is None:
                found = _remote(place)
            else:
                with os.scandir(place.local) as entries:
                    found = [_local(entry) for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except PermissionError:
            raise self._refused(
                names,
                "cannot be listed by this process (permission denied)",
                "Let the process's user, or its identity at the store, list it.",
            ) from None
        return sorted(found, key=lambda entry: entry.name)

    def _refused(self, names: tuple[str, ...], what: str, remedy: str) -> ConfigError:
        return ConfigError(f"{self._base.argument}: {self._shown(names)!r} {what}.", remedy=remedy)

    def _place(self, names: tuple[str, ...]) -> Location:
        base = self._base
        if base.local is not None:
            # What appears there meanwhile is not followed either.
            path = base.local.joinpath(*names)
            return replace(base, name=self._shown(names), local=path, given=None, follows=not names)
        text = "/".join((base.path.rstrip("/"), *names))
        return replace(base, name=self._shown(names), path=text, given=None)

    def _shown(self, names: tuple[str, ...]) -> str:
        if not self._name and self._base.local is not None and not str(self._base.local).startswith("/"):
            return "/".join(names) or "."
        return "/".join((self._name, *names))


def _local(entry: os.DirEntry[str]) -> _Entry:
    is_folder = entry.is_dir(follow_symlinks=False)
    # A pipe is as empty as it is no file; whoever opens it is told so.
    size = entry.stat(follow_symlinks=False).st_size if entry.is_file(follow_symlinks=False) else None
    return _Entry(entry.name, is_folder, entry.is_symlink(), size)


def _remote(place: Location) -> list[_Entry]:
    folder = place.path.rstrip("/")
    listed: list[dict[str, Any]] = place.fs.ls(folder, detail=True)
    found = []
    for entry in listed:
        path = str(entry["name"])
        # Stores without folders keep one that was made as an empty file of its name.
        if path.strip("/") == folder.strip("/") or (path.endswith("/") and entry["type"] != "directory"):
            continue
        name = path.rstrip("/").rpartition("/")[2]
        is_link = entry["type"] == "link" or bool(entry.get("islink"))
        found.append(_Entry(name, entry["type"] == "directory", is_link, entry.get("size")))
    return found


def _is_left_out(name: str) -> bool:
    if name.startswith("_") and _key(name) is not None:
        return False
    return name.startswith(_LEFT_OUT) or name.endswith(_LEFT_OUT_ENDS)


def _key(folder: str) -> tuple[str, str | None] | None:
    """The column that a folder ``key=value`` stands for, and its value."""
    name, equals, value = folder.partition("=")
    if not equals or not name:
        return None
    return unquote(name), None if value == _NULL else unquote(value)
