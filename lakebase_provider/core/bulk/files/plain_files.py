"""Local files, opened as what they seem to be: no pipe or device taken for a file, no link written through.

A look at a path says what lay there then. What counts is asked of the file that was opened, so nobody gains
by putting something else there in between; and a file is written under a new name beside its own, which
it takes in the end by a rename, which follows no link. Folders on the way to it may be links: that is how
a deployment lays out its disks.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from lakebase_provider.core.errors import ConfigError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_to_read(path: Path, argument: str, *, follow: bool = True) -> io.FileIO:
    """Open a file to read it, without waiting for anybody.

    Args:
        path: Where it is.
        argument: Name of the argument that gave the path, for errors.
        follow: Whether a link to a file is followed.

    Raises:
        ConfigError: It is no file but a folder, pipe, socket or device, or a link that is not followed.
        OSError: There is none, or it cannot be opened.
    """
    # Before it is opened, for to open a device may do something; after, for it may be another one by then.
    _require_file(path.stat() if follow else path.lstat(), path, argument)
    # A pipe that nobody writes to would keep the call waiting; for a file the flag means nothing.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise _no_file(stat.S_IFLNK, path, argument, "read") from None
        if error.errno == errno.ENXIO:  # a socket
            raise _no_file(stat.S_IFSOCK, path, argument, "read") from None
        raise
    try:
        _require_file(os.fstat(descriptor), path, argument)
        return io.FileIO(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def require_replaceable(path: Path, argument: str) -> int | None:
    """Refuse to write where something else is than a file.

    Args:
        path: Where a file is to be written.
        argument: Name of the argument that gave the path, for errors.

    Returns:
        The permissions of the file that is there; None if there is none.

    Raises:
        ConfigError: A folder, pipe, socket, device or symbolic link is there.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise _no_file(stat.S_IFMT(found.st_mode), path, argument, "written")
    return stat.S_IMODE(found.st_mode) & 0o777


def open_new(path: Path, permissions: int | None = None) -> io.BufferedWriter:
    """Make a file and open it to write to it.

    Args:
        path: Where nothing is.
        permissions: Those of the file; None for the process's default.

    Raises:
        FileExistsError: Something is there, be it a link that leads nowhere.
        OSError: It cannot be made.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666 if permissions is None else permissions)
    try:
        if permissions is not None:
            os.fchmod(descriptor, permissions)
        return os.fdopen(descriptor, "wb")
    except BaseException:
        os.close(descriptor)
        raise


class NewFile:
    """A file under another name until it is whole, with the permissions of the one that it replaces.

    Args:
        path: Where it is to be.
        argument: Name of the argument that gave the path, for errors.

    Raises:
        ConfigError: Something else than a file is there.
        OSError: It cannot be made.

    Attributes:
        file: To write to.
    """

    def __init__(self, path: Path, argument: str) -> None:
        permissions = require_replaceable(path, argument)
        self._path = path
        self._unfinished = unfinished(path)
        self.file = open_new(self._unfinished, permissions)

    def finish(self) -> None:
        """Give the file its name."""
        self.file.close()
        self._unfinished.replace(self._path)

    def discard(self) -> None:
        """Remove it; what had its name before stays."""
        with suppress(OSError):  # such as for a disk that is full
            self.file.close()
        self._unfinished.unlink(missing_ok=True)


def unfinished(path: Path) -> Path:
    """A new name beside a file's own, for the time in which it is written."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.unfinished")


def _require_file(found: os.stat_result, path: Path, argument: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _no_file(stat.S_IFMT(found.st_mode), path, argument, "read")


def _no_file(kind: int, path: Path, argument: str, done: str) -> ConfigError:
    what = _KINDS.get(kind, "no file")
    remedy = "Give the path of the file itself: links are not followed." if kind == stat.S_IFLNK else None
    return ConfigError(
        f"{argument}: {str(path)!r} is {what}, which is not {done}.", remedy=remedy or "Give a file's path."
    )
