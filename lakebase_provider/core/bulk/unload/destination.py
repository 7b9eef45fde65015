"""Where an unload writes: files that get their names once all of them are complete."""

from __future__ import annotations

import errno
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, get_args

from lakebase_provider.core.base.files.plain_files import open_new, require_replaceable
from lakebase_provider.core.bulk.files.file_kinds import KINDS, PACKED
from lakebase_provider.core.bulk.files.locations import locate, shown
from lakebase_provider.core.errors import ConfigError, LoadInterruptedError

Format = Literal["parquet", "arrow", "csv", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)
_OF_KIND: dict[str, Format] = {"CSV": "csv", "JSON lines": "jsonl", "Parquet": "parquet", "Arrow": "arrow"}
#: What a load reads by these, an unload writes; but not packed, and CSV with commas alone.
_SUFFIXES = {
    suffix: _OF_KIND[kind] for suffix, kind in KINDS.items() if suffix not in PACKED and suffix != ".tsv"
}
#: How a file's name or URI ends.
_SUFFIX = re.compile(r"(?<=[^/])\.[A-Za-z]\w*(?=$|\?)")
#: Reasons of the operating system that lie in the path, and are the same at the next attempt.
_NO_PLACE = frozenset(
    {
        errno.EACCES,
        errno.EEXIST,
        errno.EINVAL,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)

_PART = re.compile(rf"part-(\d{{5,}})\.({'|'.join(FORMATS)})\Z")
#: A file's name while it is being written; two unloads to one place never write the same one.
_UNFINISHED = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.unfinished\Z")


def format_of(name: str, argument: str) -> Format | None:
    """The format that a file's name asks for by its suffix; None if it has no suffix.

    Args:
        name: A path or URI, or a template of one.
        argument: Name of the argument that it comes from, for errors.

    Raises:
        ConfigError: No file with that suffix is written.
    """
    found = _SUFFIX.search(name)
    if found is None:
        return None
    if found.group().lower() not in _SUFFIXES:
        raise unknown_format(name, argument)
    return _SUFFIXES[found.group().lower()]


def unknown_format(name: str, argument: str) -> ConfigError:
    """The error about a file whose name does not say its format."""
    return ConfigError(
        f"{argument} {shown(name)!r} does not end in a known format.",
        remedy=f"End it in one of: {', '.join(_SUFFIXES)}.",
    )


class Destination:
    """A file, or a folder of numbered files, at a local path or behind a URI.

    Args:
        to: Local path, fsspec URI, or a path object with its own file system, such as Airflow's
            ObjectStoragePath.
        argument: Name of the argument that it comes from, for errors.

    Raises:
        ConfigError: As :func:`~lakebase_provider.core.bulk.files.locations.locate` says.
    """

    def __init__(self, to: Any, argument: str = "to") -> None:
        try:
            import fsspec
        except ImportError:
            raise ConfigError("Unloading needs fsspec.", remedy="Install lakebase-provider[arrow].") from None
        place = locate(to, argument)
        self.name = place.name
        self._argument = argument
        self._is_local = place.local is not None
        if place.local is not None:
            self._fs: Any = fsspec.filesystem("file")
            self._path = str(place.local.absolute())
        elif place.fs is not None:
            self._fs, self._path = place.fs, place.path
        else:
            raise ConfigError(
                f"{argument}: {self.name!r} cannot be written to.", remedy="Give a local path or a URI."
            )

    @contextmanager
    def files(
        self, suffix: Format, count: int | None, before_naming: Callable[[], object] | None = None
    ) -> Iterator[list[Any]]:
        """Open files for writing; on success they get their names, on failure they are removed.

        Unfinished files of an earlier unload to the same place, whose process was killed, are removed first.
        If it is still running, it fails in the end.

        Args:
            suffix: Suffix of the files in a folder.
            count: Number of files in the folder; None for a single file with the destination's name.
            before_naming: Called when the files are complete, before they get their names; it may fail.

        Raises:
            ConfigError: The folder holds files that no unload has written, a file would replace a folder,
                pipe, socket, device or symbolic link, or the operating system has no such place.
            LoadInterruptedError: Another unload to the same place has started meanwhile.
        """
        parent, slash, last = self._path.rstrip("/").rpartition("/")
        if count is None:
            parent = f"{parent}{slash}"
            names = [last]
            if self._is_local:  # an object store shows a file only when it is complete
                self._remove_unfinished(parent, last)
        else:
            parent = f"{self._path.rstrip('/')}/"
            self._require_own(parent)
            self._remove_unfinished(parent)
            names = [f"part-{number:05}.{suffix}" for number in range(count)]
        token = secrets.token_hex(4)
        moves = [(f"{parent}.{name}.{token}.unfinished", f"{parent}{name}") for name in names]
        opened: list[Any] = []
        try:
            with self._place_errors():
                if parent:
                    self._fs.makedirs(parent, exist_ok=True)
                for temporary, final in moves:
                    opened.append(self._new(temporary, final))
            yield opened
            for file in opened:
                file.close()
            if before_naming is not None:
                before_naming()
            for temporary, final in moves:
                self._move(temporary, final)
        except BaseException:
            for file in opened:
                with suppress(Exception):
                    file.close()
            for temporary, _ in moves:
                with suppress(Exception):
                    self._fs.rm_file(temporary)
            raise
        if count is not None:
            wanted = {final for _, final in moves}
            for path in self._listed(parent):
                if f"{parent}{path.rpartition('/')[2]}" not in wanted:
                    self._fs.rm_file(path)

    @contextmanager
    def _place_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _NO_PLACE:
                raise
            raise ConfigError(
                f"{self._argument}: {self.name!r} cannot be written: {error.strerror}.",
                remedy="Give a path below a folder in which this process may create files.",
            ) from None

    def _new(self, temporary: str, final: str) -> Any:
        if self._is_local:
            return open_new(Path(temporary), require_replaceable(Path(final), self._argument))
        return self._fs.open(temporary, "wb")

    def _move(self, temporary: str, final: str) -> None:
        try:
            if self._is_local:
                Path(temporary).replace(final)  # at once, so that a reader sees the old file or the new one
            else:
                self._fs.mv(temporary, final)
        except FileNotFoundError as error:
            raise LoadInterruptedError(
                f"Another unload to {self.name!r} has started meanwhile and removed what this one wrote.",
                remedy="Run only one unload at a time to the same place.",
                retryable=False,
            ) from error

    def _remove_unfinished(self, folder: str, name: str | None = None) -> None:
        """Remove the unfinished files of that name, or of all."""
        for path in self._listed(folder):
            found = _UNFINISHED.match(path.rpartition("/")[2])
            if found is not None and name in {None, found["name"]}:
                with suppress(FileNotFoundError):  # its own unload, or another one, was faster
                    self._fs.rm_file(path)

    def _listed(self, folder: str) -> list[str]:
        self._fs.invalidate_cache()
        return [str(path) for path in self._fs.ls(folder, detail=False)] if self._fs.exists(folder) else []

    def _require_own(self, folder: str) -> None:
        for path in self._listed(folder):
            name = path.rstrip("/").rpartition("/")[2]
            if name and not _PART.match(name) and not _UNFINISHED.match(name):
                raise ConfigError(
                    f"The folder {self.name!r} holds {name!r}, which is not part of an unload.",
                    remedy="Unload to a folder of its own: its files are replaced.",
                )
