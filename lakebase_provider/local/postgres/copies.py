"""Copies of a cluster's files, taken while it serves, that nobody can turn against root.

Write-ahead log is never copied where it can be linked: a segment that is full changes no more, for no cluster
here uses its segments again (`wal_recycle`).
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
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
    # What Postgres makes anew where it is missing, which is a quarter of a small cluster's files: the maps of
    # free space and of visible rows. To create files is what takes a copy's time.
    r"|\d+_(fsm|vm)"
)
#: Database that takes no connections, so that its files never change, and copies hold links to them.
_TEMPLATE0 = "base/4"
_SEGMENT = re.compile(r"[0-9A-F]{24}")
_HISTORY = re.compile(r"[0-9A-F]{8}\.history")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CAREFUL = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK = 1 << 30
#: DB_SHUTDOWNED of Postgres' `pg_control.h`.
_SHUT_DOWN = 1
#: Bytes of a segment of the log: small, for each copy of a cluster ends one.
SEGMENT_SIZE = 1 << 20


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
    for inside, names, descriptor in _walk(source):
        folder = target / inside
        folder.mkdir(mode=0o700, exist_ok=True)
        with _folder(folder) as writing:
            for name in names:
                if inside == _TEMPLATE0:
                    _link_file(name, descriptor, writing, account)
                else:
                    _copy_file(name, descriptor, writing, account)
    _give_folders(target, account)


class Packed:
    """A copy of a stopped cluster's data folder in one file, as to create a thousand files takes its time.

    Args:
        source: The data folder; its write-ahead log is left out.
        file: Created; only for us.
        account: Owner of the source.
    """

    def __init__(self, source: Path, file: Path, account: Account) -> None:
        self._file = file
        self._account = account
        #: Folders with the names and sizes of their files, in the order of the file.
        self._index: list[tuple[str, list[tuple[str, int]]]] = []
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as packed:
            for inside, names, descriptor in _walk(source):
                sizes = []
                for name in names:
                    with _reading(name, descriptor, account) as origin:
                        sizes.append((name, _copy_bytes(origin, packed.fileno())))
                self._index.append((inside, sizes))

    def unpack(self, target: Path) -> None:
        """Create the data folder anew, the account's; the account cannot write to its parent."""
        with self._file.open("rb") as packed:
            for inside, sizes in self._index:
                (target / inside).mkdir(mode=0o700)
                with _folder(target / inside) as folder:
                    for name, size in sizes:
                        with _writing(name, folder, self._account) as descriptor:
                            _copy_bytes(packed.fileno(), descriptor, size)
        _give_folders(target, self._account)


def add_log(
    source: Path, target: Path, account: Account, *, since: str = "", until: str = "~", link: bool = True
) -> None:
    """Give a copy the write-ahead log of the cluster it comes from.

    Args:
        source: The cluster's data folder.
        target: The copy's.
        account: Owner of both.
        since: Where in the log the first segment is that is needed.
        until: Where the last one is, which must be full; without it the cluster has stopped, and stays so
            until the copy has a timeline of its own.
        link: False for a copy that goes on in the same timeline.
    """
    with _folder(source / "pg_wal") as origin, _folder(target / "pg_wal") as folder:
        found = os.listdir(origin)  # noqa: PTH208 - by its descriptor
        log = [name for name in found if _SEGMENT.fullmatch(name) and since <= place(name) <= until]
        for name in (*log, *(n for n in found if _HISTORY.fullmatch(n))):
            (_link_file if link else _copy_file)(name, origin, folder, account)


def place(segment: str) -> str:
    """Where a segment is in the log: the first 8 digits are the timeline's, the others count on over all."""
    return segment[8:]


def beginning(data: Path, account: Account) -> str:
    """Where in the log the first segment is that a stopped cluster needs to start."""
    with _folder(data / "global") as folder, _reading("pg_control", folder, account) as descriptor:
        # Of all versions: the last checkpoint's record, and in it where its redo begins.
        redo = int.from_bytes(os.pread(descriptor, 8, 40), sys.byteorder)
    return f"{redo >> 32:08X}{(redo & 0xFFFFFFFF) // SEGMENT_SIZE:08X}"


def was_shut_down(data: Path, account: Account) -> bool:
    """Whether a cluster that does not run was stopped in order, so that it needs no recovery."""
    with _folder(data / "global") as folder, _reading("pg_control", folder, account) as descriptor:
        # Of all versions: behind the identifier and two versions.
        return int.from_bytes(os.pread(descriptor, 4, 16), sys.byteorder) == _SHUT_DOWN


def has_log(data: Path, since: str) -> bool:
    """Whether a cluster has the segment at that place of its log."""
    with _folder(data / "pg_wal") as folder:
        return any(_SEGMENT.fullmatch(n) and place(n) == since for n in os.listdir(folder))  # noqa: PTH208


def drop_log(data: Path, before: str) -> None:
    """Remove what a stopped cluster does not need of its log."""
    with _folder(data / "pg_wal") as folder:
        for name in os.listdir(folder):  # noqa: PTH208
            if _SEGMENT.fullmatch(name) and place(name) < before:
                os.unlink(name, dir_fd=folder)


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


def _walk(source: Path) -> Iterator[tuple[str, list[str], int]]:
    """Path inside, names of the files that belong into a copy, and descriptor, of each folder."""
    for path, folders, files, descriptor in os.fwalk(source, follow_symlinks=False):
        inside = os.path.relpath(path, source)
        if inside in _EMPTY:
            folders.clear()
            files.clear()
        if inside == ".":
            # Last of all comes global/pg_control: it must not be older than what it speaks of.
            folders.sort(key="global".__eq__)
        files.sort(key="pg_control".__eq__)
        yield inside, [name for name in files if not _OF_THE_RUN.fullmatch(name)], descriptor


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[int]:
    """A folder inside one that is root's or a data folder, where the account may have put a link."""
    parent = os.open(path.parent, _FOLDER)
    try:
        descriptor = os.open(path.name, _FOLDER, dir_fd=parent)
    finally:
        os.close(parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _reading(name: str, folder: int, account: Account) -> Iterator[int]:
    descriptor = os.open(name, _CAREFUL, dir_fd=folder)
    try:
        found = os.fstat(descriptor)
        owner = os.geteuid() if account.uid is None else account.uid
        if not stat.S_ISREG(found.st_mode) or found.st_uid != owner:
            raise LocalLakebaseError(f"{name} of Postgres' data is not a file of user {owner}.")
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _writing(name: str, folder: int, account: Account) -> Iterator[int]:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        yield descriptor
        _give(descriptor, account)
    finally:
        os.close(descriptor)


def _link_file(name: str, source: int, target: int, account: Account) -> None:
    """Link a file, or copy it to another file system: a folder to keep may lie in another than /tmp."""
    try:
        os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except OSError:
        _copy_file(name, source, target, account)


def _copy_file(name: str, source: int, target: int, account: Account) -> None:
    # A table may be dropped meanwhile: the log tells the copy of it, too.
    with (
        contextlib.suppress(FileNotFoundError),
        _reading(name, source, account) as reading,
        _writing(name, target, account) as writing,
    ):
        _copy_bytes(reading, writing)


def _copy_bytes(reading: int, writing: int, size: int | None = None) -> int:
    """Copy from where both are, to the end or so many bytes, and return how many."""
    copied, left = 0, _CHUNK if size is None else size
    while left:
        try:
            # Shares the blocks where the file system can (XFS, Btrfs).
            done = os.copy_file_range(reading, writing, left)
        except (AttributeError, OSError):
            done = os.write(writing, os.read(reading, min(left, 1 << 20)))
        if not done:
            break
        copied += done
        left = _CHUNK if size is None else size - copied
    return copied


def _give(descriptor: int, account: Account) -> None:
    if account.uid is not None and account.gid is not None:
        os.fchown(descriptor, account.uid, account.gid)


def _give_folders(top: Path, account: Account) -> None:
    """Inner folders first: a folder is the account's only when nothing in it is left to do."""
    for _, _, _, descriptor in os.fwalk(top, topdown=False, follow_symlinks=False):
        _give(descriptor, account)
