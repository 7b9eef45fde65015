"""Local files, opened as what they appear to be: no pipe or device as a file, no writing through a link.

Checking a path says what was there then. The opened file itself is checked, so nobody gains by replacing it
in between; and a file is written under a new name next to its own and renamed in the end, which follows no
link. Folders in its path may be links, as deployments lay out their disks like that.
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
        ConfigError: It is not a file but a folder, pipe, socket or device, or a link that is not followed.
        OSError: It does not exist, or cannot be opened.
    """
    # Before it is opened, since opening a device may have effects; and after, since it may be a different one
    # by then.
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
    """Refuse to write where something other than a file is.

    Args:
        path: Where a file is to be written.
        argument: Name of the argument that gave the path, for errors.

    Returns:
        The permissions of the existing file; None if there is none.

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
        path: A path where nothing exists.
        permissions: The file's permissions; None for the process's default.

    Raises:
        FileExistsError: Something is there, even a dangling link.
        OSError: It cannot be created.
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
    """A file under another name until it is complete, with the permissions of the one that it replaces.

    Args:
        path: Its final path.
        argument: Name of the argument that gave the path, for errors.

    Raises:
        ConfigError: Something other than a file is there.
        OSError: It cannot be created.

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
        with suppress(OSError):  # such as if the disk is full
            self.file.close()
        self._unfinished.unlink(missing_ok=True)


def unfinished(path: Path) -> Path:
    """A temporary name next to a file's own, while it is being written."""
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
