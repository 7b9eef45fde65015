"""libpq's file of passwords, with a token that is renewed for as long as the file is in use.

A program that runs for hours opens connections when the token that it began with has long expired. libpq
reads this file at each of them (PostgreSQL's documentation, "The Password File"), and so do pgjdbc, pgx and
asyncpg. Nobody may be told of it by PGPASSWORD too, which would win.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from lakebase_provider.core.base.files.plain_files import open_new, unfinished
from lakebase_provider.core.base.files.private_folder import check_private
from lakebase_provider.core.base.threads import start_for_caller
from lakebase_provider.core.connect.target import Target
from lakebase_provider.core.errors import ConfigError, LakebaseError
from lakebase_provider.core.tokens.cache import TokenProvider
from lakebase_provider.core.tokens.token import Token

logger = logging.getLogger(__name__)

_PREFIX = "lakebase-pass-"
#: Seconds between two looks whether there is a newer token: a part of its life that is left, within bounds.
_SHARE, _LEAST, _MOST = 0.02, 0.5, 60.0
#: Seconds that a renewal may wait for the workspace; the next one comes soon.
_RENEWAL = 30.0
#: Seconds since its last renewal after which a file that nobody holds is removed: its token has expired.
_LEFT = 3600.0


class PassFile:
    """A file with one password, in a folder of its own, for this user alone.

    Args:
        target: Where the password is for, and whose it is.
        token: The password.

    Raises:
        ConfigError: It cannot be written.

    Attributes:
        path: The file: replaced whole at each renewal, so nobody reads half of it.
    """

    def __init__(self, target: Target, token: Token) -> None:
        self._target = target
        self._fingerprint = ""
        self._changing = threading.Lock()
        self._removed = False
        try:
            # For this user alone, whatever the umask.
            self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        except OSError as error:
            raise _unwritten(error, tempfile.gettempdir()) from None
        self.path = self._folder / "pgpass"
        self._lock = filelock.FileLock(self._folder / "lock", mode=0o600)
        try:
            self._lock.acquire(timeout=0)
            self.write(token)
        except BaseException as error:
            self.remove()
            if isinstance(error, OSError):
                raise _unwritten(error, str(self._folder)) from None
            raise

    def write(self, token: Token) -> None:
        """Replace the password, unless it is the same.

        Raises:
            ConfigError: It holds a line end, which such a file cannot.
            OSError: It cannot be written.
        """
        if token.fingerprint == self._fingerprint:
            return
        new = unfinished(self.path)
        with self._changing:
            if self._removed:
                return
            try:
                with open_new(new, 0o600) as file:
                    file.write(_line(self._target, token))
                new.replace(self.path)
            finally:
                new.unlink(missing_ok=True)
        self._fingerprint = token.fingerprint

    def remove(self) -> None:
        """Remove the file and its folder; it is written no more."""
        with self._changing:
            self._removed = True
            shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.release()


@contextmanager
def renewed_pass_file(target: Target, tokens: TokenProvider, seconds: float) -> Iterator[Path]:
    """A pass file for a block, renewed by a thread until its end.

    Args:
        target: Where the passwords are for, and whose they are.
        tokens: Where they come from.
        seconds: How long the first one may take.

    Raises:
        ConfigError: The file cannot be written.
        LakebaseError: There is no token.
    """
    _remove_left_ones()
    file = PassFile(target, tokens.get(seconds))
    ended = threading.Event()
    try:
        start_for_caller(_renew, file, tokens, ended, name="lakebase-pass-file")
        yield file.path
    finally:
        ended.set()
        file.remove()


def _renew(file: PassFile, tokens: TokenProvider, ended: threading.Event) -> None:
    pause = 0.0
    while not ended.wait(pause):
        try:
            token = tokens.get(_RENEWAL)
            file.write(token)
            pause = min(_MOST, max(_LEAST, _SHARE * tokens.seconds_left(token)))
        except (LakebaseError, OSError) as error:
            if ended.is_set():
                return
            pause = min(_MOST, max(1.0, 2 * pause))
            logger.warning("The program's password was not renewed, and is tried again: %s", error)


def _line(target: Target, token: Token) -> bytes:
    """The file's line: host, port, any database, user, password."""
    password = token.reveal()
    if "\n" in password or "\r" in password:
        raise ConfigError(
            "The password holds a line end, which a pass file cannot.",
            remedy="Give the role another password.",
        )
    words = (target.host, str(target.port), None, target.user, password)
    return (":".join("*" if word is None else _escaped(word) for word in words) + "\n").encode()


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace(":", "\\:")


def _unwritten(error: OSError, place: str) -> ConfigError:
    return ConfigError(
        f"The program's pass file cannot be written: {error.strerror or error}: {place}.",
        remedy="Set TMPDIR to a folder that you may write to.",
    )


def _remove_left_ones() -> None:
    """Remove what processes left that were killed; no token in it is alive any longer."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError, filelock.Timeout):
            status = folder.lstat()
            check_private(status, stat.S_ISDIR, folder)
            if time.time() - status.st_mtime < _LEFT:
                continue
            with filelock.FileLock(folder / "lock", timeout=0, mode=0o600):
                shutil.rmtree(folder)
            logger.info("Removed %s, which a killed process left", os.fspath(folder))
