"""Files and folders that another user might have replaced."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lakebase_provider.local.contract.errors import LocalLakebaseError

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
#: A FIFO in a file's place must not keep the caller waiting.
_CAREFUL = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_to_append(path: Path) -> int:
    """Open our own file that nobody else can read, creating it if it is missing.

    Returns:
        Its descriptor, which the caller closes.

    Raises:
        LocalLakebaseError: Something else is there: a link, a device, or somebody else's file.
    """
    return _open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, owner=os.geteuid())


def read(path: Path, *, owner: int | None = None, limit: int, private: bool = False) -> bytes:
    """Read a regular file, refusing a link or a FIFO in its place.

    Args:
        path: The file; only its last part is guarded, so its folder is one that others cannot write to.
        owner: User id that it must belong to; None for ours.
        limit: Bytes to read at most, from the end of the file.
        private: True to insist that nobody else can read it.

    Raises:
        FileNotFoundError: There is none.
        LocalLakebaseError: Something else lies there.
    """
    descriptor = _open(path, os.O_RDONLY, owner=os.geteuid() if owner is None else owner)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if private and found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise LocalLakebaseError(f"{path} is readable by other users.", remedy=f"Remove {path}.")
        file.seek(max(0, found.st_size - limit))
        return file.read(limit)


def _open(path: Path, flags: int, *, owner: int) -> int:
    try:
        descriptor = os.open(path, flags | _CAREFUL, 0o600)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise LocalLakebaseError(
            f"{path} cannot be opened: {error.strerror}.", remedy=f"Remove {path}."
        ) from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != owner:
        os.close(descriptor)
        raise LocalLakebaseError(
            f"{path} is not a file of user {owner}.", remedy=f"Remove {path}, and find out who created it."
        )
    return descriptor


def own_folder(folder: Path, *, remedy: str) -> None:
    """Make sure that a folder exists and is ours.

    Args:
        folder: Created only for us if it is missing.
        remedy: What to do if it is somebody else's.

    Raises:
        LocalLakebaseError: Somebody else could change what is put there.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if ours and found.st_mode & _WRITABLE_BY_OTHERS:
        folder.chmod(0o700)
    # A user's own folders are theirs to judge, but root may have been lent a home (`sudo -E`).
    if not ours or (os.geteuid() == 0 and not only_ours_to_change(folder.resolve())):
        raise LocalLakebaseError(f"{folder} belongs to another user.", remedy=remedy)


def only_ours_to_change(folder: Path) -> bool:
    """Return whether nobody but us and root can replace the folder, or what we put into it.

    Args:
        folder: An absolute path without links in it.
    """
    for place in (folder, *folder.parents):
        found = place.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), 0):
            return False
        if found.st_mode & _WRITABLE_BY_OTHERS and not found.st_mode & stat.S_ISVTX:
            return False
    return True


def give_tree(folder: Path, uid: int, gid: int, *, owner: int | None = None) -> None:
    """Let a folder and all in it belong to somebody; links themselves are changed, never their targets.

    Args:
        folder: Nobody else changes it meanwhile.
        uid: User.
        gid: Group.
        owner: Whose files are given away; None for all, of a folder that is new.
    """
    for _, folders, files, descriptor in os.fwalk(folder, follow_symlinks=False):
        for name in (*folders, *files):
            if owner is not None and os.lstat(name, dir_fd=descriptor).st_uid != owner:
                continue
            os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)
    os.chown(folder, uid, gid, follow_symlinks=False)


def make_passage(folder: Path, gid: int | None) -> None:
    """Create a folder that is ours, and that a group may pass through but not look into.

    Args:
        folder: In one that nobody else can change.
        gid: The group; None to keep it to ourselves.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    if gid is not None:
        os.chown(folder, os.geteuid(), gid)
        folder.chmod(0o710)
