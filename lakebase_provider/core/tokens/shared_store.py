"""Tokens shared by the processes of one user on one host (setting ``credential_store``).

Tasks that start by the hundred need one mint between them instead of one each. The token lies in a file that
only its user can read, in ``$XDG_RUNTIME_DIR`` (memory, gone at logout) or else in the user's cache folder.
It is not encrypted: the key would have to lie beside it.

Nothing depends on the store: where it cannot be used, each process mints for itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

import filelock
import platformdirs

from lakebase_provider.core.base.clock import Clock
from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.tokens.cache import Minter
from lakebase_provider.core.tokens.token import Claims, Token, TokenPolicy

logger = logging.getLogger(__name__)

#: Of the files' format and of the key: processes of another version neither read nor overwrite them.
_VERSION = 1
#: Seconds to wait for another process's mint before minting beside it.
_LOCK_TIMEOUT = 10.0
#: Bytes; a file that is larger is none of ours.
_LARGEST = 65_536
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SharedTokens:
    """A minter that looks first whether another process has minted, and mints under a file lock if not.

    It takes being asked again as a sign that what it gave last is no longer wanted, being stale or refused,
    and so gives no token twice.

    Args:
        minter: Who mints.
        key: Hexadecimal digest of all that a token depends on.
        folder: Where the files lie.
        lock_timeout: Seconds to wait for another process that is minting.
    """

    def __init__(
        self, minter: Minter, key: str, folder: Path, *, lock_timeout: float = _LOCK_TIMEOUT
    ) -> None:
        self._minter = minter
        self._file = _TokenFile(folder, key)
        self._lock_path = folder / f"{key}.lock"
        self._lock_timeout = lock_timeout
        self._given: deque[str] = deque(maxlen=16)
        self._warned = False

    def mint(self, clock: Clock) -> Token:
        """Another token than before, from the store or else new.

        Raises:
            LakebaseError: The workspace gave none.
        """
        token = self._stored(clock) or self._mint_under_lock(clock)
        self._given.append(token.fingerprint)
        return token

    def _mint_under_lock(self, clock: Clock) -> Token:
        lock = self._locked()
        try:
            # Who waited for the lock finds what its last holder minted.
            token = self._stored(clock) if lock is not None else None
            if token is None:
                token = self._minter.mint(clock)
                self._store(token)
            return token
        finally:
            # The end of a process lets go of it too, however it ends.
            if lock is not None:
                lock.release()

    def _locked(self) -> filelock.BaseFileLock | None:
        """The lock, held; None where it cannot be had, for then minting twice is better than not at all."""
        try:
            self._file.prepare_folder()
            # One for each time: a forked child has no part in its parent's.
            lock = filelock.FileLock(self._lock_path, timeout=self._lock_timeout, mode=0o600)
            lock.acquire()
        except filelock.Timeout:
            logger.warning(
                "Another process has been minting for %.0f s; minting here too", self._lock_timeout
            )
            return None
        except OSError as error:
            self._warn(error)
            return None
        return lock

    def _stored(self, clock: Clock) -> Token | None:
        try:
            token = self._file.read(clock)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._warn(error)
            return None
        if token.fingerprint in self._given:
            return None
        left = token.seconds_left(wall=clock.wall(), elapsed=clock.elapsed())
        usable = TokenPolicy().state(token, seconds_left=left, chance=0.5) != "unusable"
        return token if usable else None

    def _store(self, token: Token) -> None:
        try:
            self._file.write(token)
        except OSError as error:
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        # Once: it stays like that, and there is a way without.
        level = logging.DEBUG if self._warned else logging.WARNING
        self._warned = True
        logger.log(level, "Not using the token store: %s", error)


class _TokenFile:
    """A token on disk, of which only its owner may know."""

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._path = folder / f"{key}.json"
        self._temporary_prefix = f"{key}."

    def prepare_folder(self) -> None:
        """Have the folder, or raise an OSError where it is not this user's alone."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(self._folder.lstat(), stat.S_ISDIR, self._folder)

    def read(self, clock: Clock) -> Token:
        """The token.

        Raises:
            FileNotFoundError: There is none.
            OSError: It cannot be read, or others could have read or written it.
            ValueError: The file holds something else, or a token of before the machine's last start.
        """
        # A symbolic link is not followed, and a named pipe not waited for.
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            _check_private(self._folder.lstat(), stat.S_ISDIR, self._folder)
            _check_private(status, stat.S_ISREG, self._path)
            if status.st_size > _LARGEST:
                raise ValueError(f"{self._path} is too large")
            content = file.read(_LARGEST)
        try:
            found = json.loads(content)
            token = Token(
                str(found["token"]),
                expires_at=float(found["expires_at"]),
                minted_at=float(found["minted_at"]),
                minted_elapsed=float(found["minted_elapsed"]),
                skew=float(found["skew"]),
            )
            boot = found["boot"]
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{self._path} holds no token") from None
        # Elapsed time starts anew with the machine, and says nothing about a token of before.
        if boot != _boot_id() or token.minted_elapsed > clock.elapsed():
            raise FileNotFoundError(f"{self._path} is from before the machine was started")
        return token

    def write(self, token: Token) -> None:
        """Replace the token at once: a reader sees the old one or the new one, whole."""
        assert token.expires_at is not None
        self.prepare_folder()
        self._remove_remains()
        # Made with mode 0600, under a name that is not there yet.
        descriptor, temporary = tempfile.mkstemp(
            prefix=self._temporary_prefix, suffix=".tmp", dir=self._folder
        )
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                json.dump(
                    {
                        "token": token.reveal(),
                        "expires_at": token.expires_at,
                        "minted_at": token.minted_at,
                        "minted_elapsed": token.minted_elapsed,
                        "skew": token.skew,
                        "boot": _boot_id(),
                    },
                    file,
                )
            Path(temporary).replace(self._path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _remove_remains(self) -> None:
        # Of a process that was killed while it wrote. Should one still be at it, beside the lock, its token
        # serves it all the same.
        for left_behind in self._folder.glob(f"{self._temporary_prefix}*.tmp"):
            left_behind.unlink(missing_ok=True)


def _check_private(status: os.stat_result, is_kind: Any, path: Path) -> None:
    if not is_kind(status.st_mode):
        raise PermissionError(
            f"{path} is not the expected kind of file: its mode is {stat.filemode(status.st_mode)}"
        )
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to user {status.st_uid}, not to {os.geteuid()}")
    if status.st_mode & 0o077:
        raise PermissionError(f"{path} is open to others: its mode is {stat.filemode(status.st_mode)}")


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        # Not Linux. The comparison of elapsed times has to do.
        return ""


def default_folder() -> Path:
    """Where the tokens lie: in the user's runtime folder, or else in the cache folder."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_absolute() and Path(runtime).is_dir():
        return Path(runtime) / "lakebase-provider"
    return platformdirs.user_cache_path("lakebase-provider") / "tokens"


def shared_between_processes(minter: Minter, config: LakebaseConfig, claims: Claims = ()) -> Minter:
    """The minter with the store before it, where the configuration says as whom it mints.

    Credentials that databricks-sdk finds on its own (a profile, ``az login``, a notebook) may change between
    two processes, and two principals must never share a token: there each process mints for itself.
    """
    if not any((config.client_secret, config.token, config.azure_client_secret)):
        logger.warning(
            "Not using the token store: it needs client_id and client_secret, or token, in the settings"
        )
        return minter
    return SharedTokens(minter, store_key(config, claims), default_folder())


def store_key(config: LakebaseConfig, claims: Claims = ()) -> str:
    """Digest of all that a token depends on; it names a file, and nothing can be read from it."""
    parts = [
        hashlib.sha256(part.reveal().encode()).hexdigest() if isinstance(part, Secret) else part
        for part in config.credential_key()
    ]
    text = json.dumps([_VERSION, parts, [dict(claim) for claim in claims]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
