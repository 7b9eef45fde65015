"""Copies of a cluster's files, taken while it serves, that nobody can turn against root.

Write-ahead log is never copied where it can be linked: a segment that is full changes no more, for no cluster
here uses its segments again (`wal_recycle`).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from lakebase_provider.local.contract.errors import LocalLakebaseError
from lakebase_provider.local.postgres.accounts import Account

#: Folders whose contents belong to the running server alone; the copy gets them empty.
_EMPTY = frozenset(
    ("pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp")
)
#: Files of the same kind.
_OF_THE_RUN = re.compile(
    r"postmaster\.(pid|opts)|backup_label(\.old)?|(standby|recovery)\.signal|pg_internal\.init.*|pgsql_tmp.*"
)
#: Last of all: it must not be older than what it speaks of.
_CONTROL = ("global", "pg_control")
_SEGMENT = re.compile(r"[0-9A-F]{24}")
_HISTORY = re.compile(r"[0-9A-F]{8}\.history")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CAREFUL = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK = 1 << 30


def copy_data(source: Path, target: Path, account: Account) -> None:
    """Copy a cluster's data folder without its write-ahead log, skipping what vanishes meanwhile.

    Args:
        source: A data folder: of a cluster that has stopped, or of one in a backup (`pg_backup_start`).
        target: Created, and the account's at the end; the account cannot write to its parent.
        account: Owner of both.

    Raises:
        LocalLakebaseError: A file is not the account's.
    """
    target.mkdir(mode=0o700)
    top = os.open(target, _FOLDER)
    try:
        for path, folders, files, descriptor in os.fwalk(source, follow_symlinks=False):
            inside = os.path.relpath(path, source)
            if inside in _EMPTY:
                folders.clear()
                continue
            folder = os.open(inside, _FOLDER, dir_fd=top)
            try:
                for name in folders:
                    os.mkdir(name, 0o700, dir_fd=folder)
                for name in files:
                    if not _OF_THE_RUN.fullmatch(name) and (inside, name) != _CONTROL:
                        _copy_file(name, descriptor, folder, account)
            finally:
                os.close(folder)
        with _folder(source / "global") as descriptor, _folder(target / "global") as folder:
            _copy_file("pg_control", descriptor, folder, account)
    finally:
        os.close(top)
    _give_folders(target, account)


def add_log(
    source: Path, target: Path, account: Account, *, until: str | None = None, link: bool = True
) -> list[str]:
    """Give a copy the write-ahead log of the cluster it comes from.

    Args:
        source: The cluster's data folder.
        target: The copy's.
        account: Owner of both.
        until: Name of the last segment that is needed, which must be full; None for all, of a cluster that
            has stopped and stays so until the copy has a timeline of its own.
        link: False for a copy that goes on in the same timeline.

    Returns:
        Where each segment is in the log, in order: its name without the timeline.
    """
    with _folder(source / "pg_wal") as origin, _folder(target / "pg_wal") as folder:
        found = os.listdir(origin)  # noqa: PTH208 - by its descriptor
        # The first 8 digits are the timeline's, the others count on over all timelines.
        log = [n for n in found if _SEGMENT.fullmatch(n) and (until is None or n[8:] <= until[8:])]
        for name in (*log, *(n for n in found if _HISTORY.fullmatch(n))):
            try:
                if not link:
                    raise OSError
                os.link(name, name, src_dir_fd=origin, dst_dir_fd=folder, follow_symlinks=False)
            except OSError:
                _copy_file(name, origin, folder, account)
        return sorted(name[8:] for name in log)


def put(path: Path, content: str, account: Account) -> None:
    """Write a new file into a copy that has never run."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
        _give(descriptor, account)


def size(data: Path) -> int:
    """Bytes of all databases of a cluster, templates included."""
    found = 0
    for _, _, files, descriptor in os.fwalk(data / "base", follow_symlinks=False):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                found += os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_size
    return found


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[int]:
    """A folder two levels below one that is root's: the account may have put a link in its place."""
    parent = os.open(path.parent, _FOLDER)
    try:
        descriptor = os.open(path.name, _FOLDER, dir_fd=parent)
    finally:
        os.close(parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _copy_file(name: str, source: int, target: int, account: Account) -> None:
    try:
        reading = os.open(name, _CAREFUL, dir_fd=source)
    except FileNotFoundError:
        return  # A table that was dropped: the log tells the copy of it, too.
    try:
        found = os.fstat(reading)
        owner = os.geteuid() if account.uid is None else account.uid
        if not stat.S_ISREG(found.st_mode) or found.st_uid != owner:
            raise LocalLakebaseError(f"{name} of Postgres' data is not a file of user {owner}.")
        writing = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            _copy_bytes(reading, writing)
            _give(writing, account)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _copy_bytes(reading: int, writing: int) -> None:
    if hasattr(os, "copy_file_range"):
        try:
            # Shares the blocks where the file system can (XFS, Btrfs).
            while os.copy_file_range(reading, writing, _CHUNK):
                pass
            return
        except OSError:
            os.lseek(reading, 0, os.SEEK_SET)
            os.lseek(writing, 0, os.SEEK_SET)
    with os.fdopen(os.dup(reading), "rb") as origin, os.fdopen(os.dup(writing), "wb") as file:
        shutil.copyfileobj(origin, file, 1 << 20)


def _give(descriptor: int, account: Account) -> None:
    if account.uid is not None and account.gid is not None:
        os.fchown(descriptor, account.uid, account.gid)


def _give_folders(top: Path, account: Account) -> None:
    """Inner folders first: a folder is the account's only when nothing in it is left to do."""
    for _, _, _, descriptor in os.fwalk(top, topdown=False, follow_symlinks=False):
        _give(descriptor, account)
