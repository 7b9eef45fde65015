"""The note that `lakebase local up` leaves for `env` and `down`: where its server is, and the keys to it."""

from __future__ import annotations

import json
import os
import re
import stat
import warnings
from dataclasses import asdict
from pathlib import Path

import platformdirs

from lakebase_provider.local.contract import private_files
from lakebase_provider.local.contract.errors import LocalLakebaseError
from lakebase_provider.local.contract.options import Running
from lakebase_provider.local.parent.admin import Admin

_APP = "lakebase-provider"
#: Bytes of a note.
_LIMIT = 65_536


class RunFile:
    """One named note in the user's runtime folder, readable by the user alone for it holds secrets.

    Args:
        name: Tells several local Lakebases of one user apart.
    """

    def __init__(self, name: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", name):
            raise LocalLakebaseError(
                f"--name {name!r} is not valid.", remedy="Use at most 63 letters, digits, - and _."
            )
        self.name = name
        self._path = _runtime_folder() / f"local-{name}.json"

    def write(self, running: Running) -> None:
        """Leave the note in one step: a reader sees none or the whole one."""
        temporary = self._path.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(running), file)
        temporary.replace(self._path)

    def read(self) -> Running | None:
        """Return the note, or None where there is none."""
        try:
            return Running(**json.loads(private_files.read(self._path, limit=_LIMIT, private=True)))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def remove(self) -> None:
        """Take the note away."""
        self._path.unlink(missing_ok=True)

    def alive(self) -> Running | None:
        """Return the note if its server answers to its key with its process id; else remove it."""
        running = self.read()
        if running is None:
            return None
        try:
            if admin(running).ping() == running.pid:
                return running
        except LocalLakebaseError:
            pass
        self.remove()
        return None


def names() -> list[str]:
    """Return the names under which a local Lakebase runs."""
    found = (path.stem.removeprefix("local-") for path in _runtime_folder().glob("local-*.json"))
    return sorted(name for name in found if RunFile(name).alive())


def admin(running: Running) -> Admin:
    """Return the handle on a running server."""
    return Admin(running.http_port, running.admin_key, running.superuser_dsn)


def authority_folder() -> Path:
    """Return the folder that keeps the certificate authority from one `up` to the next."""
    return platformdirs.user_data_path(_APP) / "local"


def _runtime_folder() -> Path:
    remedy = "Set XDG_RUNTIME_DIR to a folder that you own."
    with warnings.catch_warnings():
        # Without a session it falls back to a folder below /tmp, and warns; what that needs is checked below.
        warnings.simplefilter("ignore")
        try:
            folder = platformdirs.user_runtime_path(_APP)
        except PermissionError as error:
            raise LocalLakebaseError(f"Cannot create the run file: {error}", remedy=remedy) from None
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # In a shared place somebody else may have been first.
    parent = folder.parent.lstat()
    shared = parent.st_mode & stat.S_IWOTH and not parent.st_mode & stat.S_ISVTX
    if not stat.S_ISDIR(parent.st_mode) or parent.st_uid not in (os.geteuid(), 0) or shared:
        raise LocalLakebaseError(f"{folder.parent} belongs to another user.", remedy=remedy)
    private_files.own_folder(folder, remedy=remedy)
    folder.chmod(0o700)
    return folder
