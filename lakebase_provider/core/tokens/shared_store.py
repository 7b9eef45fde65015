"""Tokens shared by the processes of one user on one host (setting ``credential_store``).

Tasks that start by the hundred need one mint between them instead of one each. The token is in a file that
only its user can read, in ``$XDG_RUNTIME_DIR`` (memory, gone at logout) or else in the user's cache folder.
It is not encrypted: the key would have to be next to it.

Nothing depends on the store: if it cannot be used, each process mints for itself.
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
from lakebase_provider.core.base.files.private_folder import check_private, make_private
from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.tokens.cache import Minter
from lakebase_provider.core.tokens.token import Claims, Token, TokenPolicy
from lakebase_provider.core.workspace.answers import LONGEST_LIFE, parse_json, token_text

logger = logging.getLogger(__name__)

#: Version of the files' format and the key: processes of another version neither read nor overwrite them.
_VERSION = 1
#: Seconds to wait for another process's mint before minting in parallel.
_LOCK_TIMEOUT = 10.0
#: Bytes; a larger file is not ours.
_LARGEST = 65_536
#: Unix time of the year 10000, which no date can show.
_END_OF_TIME = 253_402_300_800.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SharedTokens:
    """A minter that first checks whether another process has minted, and otherwise mints under a file lock.

    A new request means that the last token is stale or refused, so it returns no token twice.

    Args:
        minter: Who mints.
        key: Hexadecimal digest of everything that a token depends on.
        folder: The folder of the files.
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
        """A different token from the last, from the store or else new.

        Raises:
            LakebaseError: The workspace returned none.
        """
        token = self._stored(clock) or self._mint_under_lock(clock)
        self._given.append(token.fingerprint)
        return token

    def _mint_under_lock(self, clock: Clock) -> Token:
        lock = self._locked()
        try:
            # After waiting for the lock, the token of its last holder is there.
            token = self._stored(clock) if lock is not None else None
            if token is None:
                token = self._minter.mint(clock)
                self._store(token)
            return token
        finally:
            # The end of a process also releases it, however it ends.
            if lock is not None:
                lock.release()

    def _locked(self) -> filelock.BaseFileLock | None:
        """The lock, held; None if it cannot be acquired, since minting twice is better than not at all."""
        try:
            self._file.prepare_folder()
            # A new one each time: a forked child must not share its parent's.
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
        # Only once: the problem persists, and minting works without the store.
        level = logging.DEBUG if self._warned else logging.WARNING
        self._warned = True
        logger.log(level, "Not using the token store: %s", error)


class _TokenFile:
    """A token on disk, which only its owner may read."""

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._path = folder / f"{key}.json"
        self._temporary_prefix = f"{key}."

    def prepare_folder(self) -> None:
        """Create the folder, or raise an OSError if it is not private to this user."""
        make_private(self._folder)

    def read(self, clock: Clock) -> Token:
        """The token.

        Raises:
            FileNotFoundError: There is none.
            OSError: It cannot be read, or others could have read or written it.
            ValueError: The file holds something else, or a token from before the machine's last start.
        """
        # A symbolic link is not followed, and a named pipe does not block.
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            check_private(self._folder.lstat(), stat.S_ISDIR, self._folder)
            check_private(status, stat.S_ISREG, self._path)
            if status.st_size > _LARGEST:
                raise ValueError(f"{self._path} is too large")
            content = file.read(_LARGEST)
        try:
            found = parse_json(content)
            token, boot = _token(found), found["boot"]
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{self._path} holds no token") from None
        # Elapsed time restarts with the machine, and says nothing about an earlier token.
        if boot != _boot_id() or token.minted_elapsed > clock.elapsed():
            raise FileNotFoundError(f"{self._path} is from before the machine was started")
        return token

    def write(self, token: Token) -> None:
        """Replace the token atomically: a reader sees the old one or the new one, complete."""
        assert token.expires_at is not None
        self.prepare_folder()
        self._remove_remains()
        # Created with mode 0600, under an unused name.
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
        # Left by a process that was killed while writing. If one is still writing, without the lock, it can
        # use its token anyway.
        for left_behind in self._folder.glob(f"{self._temporary_prefix}*.tmp"):
            left_behind.unlink(missing_ok=True)


def _token(found: Any) -> Token:
    """The token in a file, held to what is demanded of one that comes from the workspace.

    Raises:
        KeyError, TypeError, ValueError: It is none.
    """
    value = token_text(found["token"])
    if value is None:
        raise ValueError("it could not be sent")
    moments = {name: float(found[name]) for name in ("expires_at", "minted_at", "minted_elapsed", "skew")}
    if not all(abs(moment) < _END_OF_TIME for moment in moments.values()):  # nor NaN
        raise ValueError("it is from no time")
    token = Token(value, **moments)
    if token.lifetime > LONGEST_LIFE:
        raise ValueError("it lives too long")
    return token


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        # Not Linux. Comparing elapsed times must be enough.
        return ""


def default_folder() -> Path:
    """Where the tokens are: in the user's runtime folder, or else in the cache folder."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_absolute() and Path(runtime).is_dir():
        return Path(runtime) / "lakebase-provider"
    return platformdirs.user_cache_path("lakebase-provider") / "tokens"


def shared_between_processes(minter: Minter, config: LakebaseConfig, claims: Claims = ()) -> Minter:
    """The minter behind the store, if the configuration says as whom it mints.

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
    """Digest of everything that a token depends on; it names a file and reveals nothing."""
    parts = [
        hashlib.sha256(part.reveal().encode()).hexdigest() if isinstance(part, Secret) else part
        for part in config.credential_key()
    ]
    text = json.dumps([_VERSION, parts, [dict(claim) for claim in claims]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
