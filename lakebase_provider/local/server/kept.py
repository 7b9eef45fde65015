"""A folder that outlives the run: the data of all branches, what is known of them, and who may use it."""

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
from typing import Any

from lakebase_provider.local.contract import private_files
from lakebase_provider.local.contract.errors import LocalLakebaseError
from lakebase_provider.local.contract.records import Principal
from lakebase_provider.local.postgres.accounts import Account
from lakebase_provider.local.postgres.postgres import Postgres

#: Bytes.
_LIMIT = 1 << 24
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
        #: User ids of the files, as the runs before left them; none once all are this run's account's.
        self.owners: list[int] = []
        self._account: int | None = None
        self.version: int | None = None
        self.principals: list[Principal] = []
        #: Of the control plane (:mod:`.kept_state`), and of the clusters (:meth:`.Clusters.kept`).
        self.state: dict[str, Any] = {}
        self.clusters: dict[str, dict[str, str]] = {}
        try:
            found = json.loads(private_files.read(self._note, limit=_LIMIT, private=True))
            self.version, self.owners = int(found["version"]), [int(owner) for owner in found["owners"]]
            self.principals = [Principal(**principal) for principal in found["principals"]]
            self.state, self.clusters = {**found.get("state", {})}, {**found.get("clusters", {})}
        except FileNotFoundError:
            return
        except (ValueError, LookupError, TypeError):
            raise self.damaged() from None
        if self.begun and not (folder / "postgres" / "data" / "PG_VERSION").is_file():
            raise self.damaged(folder / "postgres")

    def damaged(self, place: Path | None = None) -> LocalLakebaseError:
        """The error that what lies there is not what a run has left; its note by default."""
        return LocalLakebaseError(
            f"What an earlier run kept is damaged: {place or self._note}.",
            remedy="Keep the data in another folder; or restore that one, or remove it with all it holds.",
        )

    @property
    def home(self) -> Path:
        """Folder of the clusters of all branches but production."""
        return self.folder / "c"

    @property
    def begun(self) -> bool:
        """Whether a run before this one has left anything."""
        return bool(self.principals)

    def admit(self, postgres: Postgres, account: Account, version: int) -> None:
        """Give the data to this run's account, or remove what a run left that did not get as far as to start.

        Raises:
            LocalLakebaseError: The account cannot pass through to the folder.
        """
        self._account, self.version = account.uid, version
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
            # First: a run that is killed meanwhile leaves files of both.
            self.note(self.principals)
            os.chown(home, 0, account.gid)
            for owner in self.owners:
                private_files.give_tree(postgres.data, account.uid, account.gid, owner=owner)

    def note(
        self,
        principals: list[Principal],
        state: dict[str, Any] | None = None,
        clusters: dict[str, dict[str, str]] | None = None,
    ) -> None:
        """Write down what the next run needs to know, in one step; what is not given stays."""
        self.principals = principals
        self.state = self.state if state is None else state
        self.clusters = self.clusters if clusters is None else clusters
        content = {
            "version": self.version,
            "owners": [*self.owners, *([] if self._account is None else [self._account])],
            "principals": [asdict(principal) for principal in principals],
            "state": self.state,
            "clusters": self.clusters,
        }
        fresh = self._note.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(content, file)
        fresh.replace(self._note)


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
