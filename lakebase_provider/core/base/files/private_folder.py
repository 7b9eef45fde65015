"""Folders and files that only this user may change, or even only read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

#: Permissions of others, to do anything, and to write.
ANYTHING = 0o077
WRITING = 0o022


def make_private(folder: Path, refused: int = ANYTHING) -> None:
    """Create a folder, and what is missing above it, for this user alone, whatever the umask.

    Args:
        folder: The folder.
        refused: As for :func:`check_private`.

    Raises:
        PermissionError: As :func:`check_private` says, of a folder that exists.
        OSError: It cannot be created.
    """
    missing = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    for place in reversed(missing):
        with suppress(FileExistsError):  # another process was quicker
            place.mkdir(0o700)
            place.chmod(0o700)
    check_private(folder.lstat(), stat.S_ISDIR, folder, refused)


def check_private(
    status: os.stat_result, is_kind: Callable[[int], bool], path: Path, refused: int = ANYTHING
) -> None:
    """Refuse what is not this user's, or open to others.

    Args:
        status: Of the path itself, not of what a link points to, or of the opened file.
        is_kind: Whether a mode is of the expected kind, such as ``stat.S_ISDIR``.
        path: Where it is, for errors.
        refused: The permissions that nobody else may have.

    Raises:
        PermissionError: It is of another kind, such as a link, of another user, or open to others.
    """
    if not is_kind(status.st_mode):
        raise PermissionError(
            f"{path} is not the expected kind of file: its mode is {stat.filemode(status.st_mode)}"
        )
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to user {status.st_uid}, not to {os.geteuid()}")
    if status.st_mode & refused:
        raise PermissionError(f"{path} is open to others: its mode is {stat.filemode(status.st_mode)}")
