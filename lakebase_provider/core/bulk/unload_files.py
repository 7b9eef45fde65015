"""Where an unload writes: files that get their names when all of them are whole."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from lakebase_provider.core.errors import ConfigError

Format = Literal["parquet", "arrow", "csv"]
FORMATS: tuple[Format, ...] = ("parquet", "arrow", "csv")

_PART = re.compile(r"part-(\d{5,})\.(parquet|arrow|csv)\Z")


class Destination:
    """A file, or a folder of numbered files, at a local path or behind a URI.

    Args:
        to: Local path, fsspec URI, or a path object with a file system of its own, such as Airflow's
            ObjectStoragePath.

    Raises:
        ConfigError: The URI needs a library that is missing, or is of no known kind.
    """

    def __init__(self, to: Any) -> None:
        try:
            import fsspec
        except ImportError:
            raise ConfigError("Unloading needs fsspec.", remedy="Install lakebase-provider[arrow].") from None
        self.name = str(to)
        if hasattr(to, "fs") and hasattr(to, "path"):  # ObjectStoragePath, with its own credentials
            self._fs: Any = to.fs
            self._path = str(to.path)
            return
        try:
            self._fs, self._path = fsspec.core.url_to_fs(os.fspath(to))
        except (ImportError, ValueError, TypeError) as error:
            raise ConfigError(
                f"Cannot unload to {self.name!r}: {error}.",
                remedy="Give a local path or a URI whose file system for fsspec is installed.",
            ) from None

    @contextmanager
    def files(self, suffix: Format, count: int | None) -> Iterator[list[Any]]:
        """Open files for writing; on success they get their names, on failure they are removed.

        Args:
            suffix: Of the files in a folder.
            count: How many files the folder shall have; None for a single file of the destination's name.

        Raises:
            ConfigError: The folder holds files that no unload has written.
        """
        parent, slash, last = self._path.rstrip("/").rpartition("/")
        if count is None:
            parent = f"{parent}{slash}"
            names = [last]
        else:
            parent = f"{self._path.rstrip('/')}/"
            self._require_own(parent)
            names = [f"part-{number:05}.{suffix}" for number in range(count)]
        token = secrets.token_hex(4)
        if parent:
            self._fs.makedirs(parent, exist_ok=True)
        moves = [(f"{parent}.{name}.{token}.unfinished", f"{parent}{name}") for name in names]
        opened: list[Any] = []
        try:
            for temporary, _ in moves:
                opened.append(self._fs.open(temporary, "wb"))
            yield opened
            for file in opened:
                file.close()
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

    def _move(self, temporary: str, final: str) -> None:
        if "file" in _protocols(self._fs):
            Path(temporary).replace(final)  # at once, so that a reader sees the old file or the new one
        else:
            self._fs.mv(temporary, final)

    def _listed(self, folder: str) -> list[str]:
        self._fs.invalidate_cache()
        return [str(path) for path in self._fs.ls(folder, detail=False)] if self._fs.exists(folder) else []

    def _require_own(self, folder: str) -> None:
        for path in self._listed(folder):
            name = path.rstrip("/").rpartition("/")[2]
            # An unfinished file may be that of an unload whose process was killed.
            if name and not _PART.match(name) and not name.endswith(".unfinished"):
                raise ConfigError(
                    f"The folder {self.name!r} holds {name!r}, which is no part of an unload.",
                    remedy="Unload to a folder of its own: its files are replaced.",
                )


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
