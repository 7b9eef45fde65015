"""A folder that outlives the run: production's data, and who may use it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from lakebase_provider.local.contract import private_files
from lakebase_provider.local.contract.errors import LocalLakebaseError
from lakebase_provider.local.contract.records import Principal
from lakebase_provider.local.postgres.accounts import Account
from lakebase_provider.local.postgres.postgres import Postgres

#: Bytes.
_LIMIT = 1 << 20
#: Seconds to wait for the end of the run before, and between two looks.
_LOCK_SECONDS, _POLL = 2.0, 0.05


class Kept:
    """What one run leaves to the next.

    Args:
        folder: Ours alone, but for the account, which passes through to the data.
        lock: Descriptor of a file there that one run at a time has locked.
    """

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        #: For the watchdog: the folder is in use until the last server there has ended.
        self.lock = lock
        self._note = folder / "kept.json"
        self._account: int | None = None
        self.version: int | None = None
        self.principals: list[Principal] = []
        #: Names of the branches of this run, which are not kept, and of the one before.
        self._branches: list[str] = []
        self.lost: list[str] = []
        try:
            found = json.loads(private_files.read(self._note, limit=_LIMIT, private=True))
            self.version, self._account = int(found["version"]), found["account"]
            self.principals = [Principal(**principal) for principal in found["principals"]]
            self.lost = [str(name) for name in found.get("branches", [])]
        except FileNotFoundError:
            return
        except (ValueError, LookupError, TypeError):
            raise _damaged(self._note) from None
        if self.begun and not (folder / "postgres" / "data" / "PG_VERSION").is_file():
            raise _damaged(folder / "postgres")

    @property
    def begun(self) -> bool:
        """Whether a run before this one has left anything."""
        return bool(self.principals)

    def admit(self, postgres: Postgres, account: Account, version: int) -> None:
        """Give the data to this run's account, or remove what a run left that did not get as far as to start.

        Raises:
            LocalLakebaseError: The account cannot pass through to the folder.
        """
        home = postgres.data.parent
        if account.gid is not None:
            closed = [place for place in self.folder.parents if not place.stat().st_mode & stat.S_IXOTH]
            if closed:
                raise LocalLakebaseError(
                    f"Postgres, which runs as another user, cannot enter {closed[-1]}.",
                    remedy="Keep the data in a folder that others may pass through, such as below /var/lib.",
                )
            os.chown(self.folder, 0, account.gid)
            self.folder.chmod(0o710)
        if not self.begun:
            shutil.rmtree(home, ignore_errors=True)
        elif account.uid is not None and account.gid is not None:
            os.chown(home, 0, account.gid)
            private_files.give_tree(postgres.data, account.uid, account.gid, owner=self._account)
            self.note(version, account, self.principals)

    def note(self, version: int, account: Account, principals: list[Principal]) -> None:
        """Write down what the next run needs to know, in one step."""
        content = {
            "version": version,
            "account": account.uid,
            "principals": [asdict(principal) for principal in principals],
            "branches": self._branches,
        }
        fresh = self._note.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(content, file)
        fresh.replace(self._note)
        self._account, self.version, self.principals = account.uid, version, principals

    def note_branches(self, account: Account, names: list[str]) -> None:
        """Write down which branches will end with this run, for the next one to tell."""
        self._branches = names
        if self.begun and self.version is not None:
            self.note(self.version, account, self.principals)


def _damaged(place: Path) -> LocalLakebaseError:
    return LocalLakebaseError(
        f"What an earlier run kept is damaged: {place}.",
        remedy="Keep the data in another folder; or restore that one, or remove it with all that it holds.",
    )


@contextlib.contextmanager
def keep(folder: Path) -> Iterator[Kept]:
    """Have a folder for one run.

    Raises:
        LocalLakebaseError: It is somebody else's, or another run has it.
    """
    remedy = "Choose a folder that you own, or one to be created where you may write."
    try:
        private_files.own_folder(folder, remedy=remedy)
    except OSError as error:
        why = "it is no folder" if isinstance(error, FileExistsError) else (error.strerror or "").lower()
        raise LocalLakebaseError(f"Nothing can be kept in {folder}: {why}.", remedy=remedy) from None
    folder = folder.resolve()
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        # One that was killed has the lock for as long as its memory is given back.
        end = time.monotonic() + _LOCK_SECONDS
        while not _locked(lock) and time.monotonic() < end:
            time.sleep(_POLL)
        if not _locked(lock):
            raise LocalLakebaseError(
                f"Another local Lakebase keeps its data in {folder}.",
                remedy="Stop it, or choose another folder.",
            )
        yield Kept(folder, lock)
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    """Whether this process has the lock."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
