"""What a run must put back after a change, kept where the next run finds it: a size, or a whole branch.

A run that is killed cannot put it back. So it is in a file of this user on this machine before anything is
changed, with the processes that still want the change; the last of them puts it back, and whoever comes later
and finds none of them alive does it in their place. A process is asked for by its number: machines that share
the folder would take each other's for dead, so each needs one of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import filelock
import platformdirs

from lakebase_provider.core.base.files.private_folder import WRITING, check_private, make_private
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.errors import ConfigError, LakebaseError

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")

#: Seconds to wait for another process that has the file, and may ask the workspace what to write there.
_LOCK_TIMEOUT = 30.0
_OURS = "Make it a folder to which only this user can write, or set XDG_STATE_HOME to one"


def default_folder(purpose: str) -> Path:
    """Where the files of one purpose are: not in the cache, which may be emptied at any time."""
    return platformdirs.user_state_path("lakebase-provider") / purpose


def workspace_key(config: LakebaseConfig) -> str:
    """What tells the workspaces' files apart: the URL or the profile."""
    return config.workspace_host or config.profile or ""


class Kept:
    """What one object was before it was changed, as long as somebody wants the change.

    Args:
        workspace: The workspace's URL or profile.
        name: The object's name.
        uid: Its uid, since another one may get its name.
        folder: Where the files are.
    """

    def __init__(self, workspace: str, name: str, uid: str, folder: Path) -> None:
        self.name, self.uid = name, uid
        self._about = {"workspace": workspace, "name": name, "uid": uid}
        key = hashlib.sha256(json.dumps(self._about, sort_keys=True).encode()).hexdigest()[:32]
        self.path = folder / f"{key}.json"
        self._me = {"id": uuid.uuid4().hex, "pid": os.getpid(), "started": _started(os.getpid())}

    def enter(self, earlier: Callable[[], Mapping[str, Any]]) -> None:
        """Keep what is there, unless something earlier is kept already, and be one who wants the change.

        Args:
            earlier: Returns it, in types of JSON. It is asked for only now, and only if nothing is kept: what
                was read before could be a change that somebody has put back by now.

        Raises:
            ConfigError: The file cannot be written, or others could write there; nothing was changed.
        """
        with self._locked():
            kept = self._read() or {**self._about, "earlier": dict(earlier()), "holders": []}
            self._write({**kept, "holders": [*filter(_is_alive, kept["holders"]), self._me]})

    def take(self) -> Mapping[str, Any] | None:
        """Be the one who puts it back; None if somebody alive still wants the change, or nothing is kept.

        Raises:
            ConfigError: The file cannot be written.
        """
        with self._locked():
            kept = self._read()
            if kept is None or any(map(_is_alive, kept["holders"])):
                return None
            self._write({**kept, "holders": [self._me]})
            found: Mapping[str, Any] = kept["earlier"]
            return found

    def leave(self) -> Mapping[str, Any] | None:
        """Want the change no more; what was before it if nobody else wants it, to be put back."""
        with self._locked():
            kept = self._read()
            if kept is None:
                return None
            others = [one for one in kept["holders"] if one["id"] != self._me["id"] and _is_alive(one)]
            self._write({**kept, "holders": others})
            return None if others else kept["earlier"]

    def stop(self, *, is_done: bool) -> None:
        """:meth:`leave`, and :meth:`forget` if it is done; what cannot be written is logged.

        Something else has failed, or all is done: either counts more than the file.
        """
        try:
            self.leave()
            if is_done:
                self.forget()
        except ConfigError as error:
            logger.warning("%s %s", error.message, error.remedy)

    def forget(self) -> None:
        """It has been put back; unless somebody has come meanwhile, nothing is kept."""
        with self._locked():
            kept = self._read()
            if kept is not None and not any(map(_is_alive, kept["holders"])):
                self.path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            make_private(self.path.parent, WRITING)
            _check(self.path.parent)
            lock = filelock.FileLock(self.path.with_suffix(".lock"), timeout=_LOCK_TIMEOUT, mode=0o600)
            with lock:
                yield
        except (OSError, filelock.Timeout) as error:
            raise ConfigError(
                f"What {self.name} was before cannot be kept: {error}.",
                remedy=f"{_OURS}: it could not be put back after a kill.",
            ) from error

    def _read(self) -> dict[str, Any] | None:
        return _content(self.path)

    def _write(self, content: Mapping[str, Any]) -> None:
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def left_behind(workspace: str, folder: Path) -> Iterator[Kept]:
    """What nobody alive will put back.

    Raises:
        ConfigError: Somebody else could have written it.
    """
    if not folder.is_dir():
        return
    try:
        _check(folder)
    except OSError as error:
        raise ConfigError(f"What was kept in {folder} is not used: {error}.", remedy=f"{_OURS}.") from error
    for path in sorted(folder.glob("*.json")):
        kept = _content(path)
        if kept is not None and kept["workspace"] == workspace and not any(map(_is_alive, kept["holders"])):
            yield Kept(workspace, kept["name"], kept["uid"], folder)


def put_all_back(
    workspace: str, folder: Path, put_back: Callable[[Kept], _Result | None]
) -> tuple[_Result, ...]:
    """Put back all that nobody alive will; one that fails does not stop the others.

    Args:
        workspace: The workspace's URL or profile.
        folder: Where the files are.
        put_back: Puts one back and returns what has become of it; None if there was nothing to do.

    Raises:
        LakebaseError: The first error, once all were tried; it names the file. Others are logged.
    """
    done, failed = list[_Result](), list[LakebaseError]()
    for kept in left_behind(workspace, folder):
        try:
            found = put_back(kept)
        except LakebaseError as error:
            copy = error.again()
            if str(kept.path) not in copy.message:
                copy.message += f" What {kept.name} was before stays in {kept.path}."
            copy.__cause__ = error
            if failed:
                logger.warning("%s %s", copy.message, copy.remedy)
            failed.append(copy)
        else:
            if found is not None:
                done.append(found)
    if failed:
        raise failed[0]
    return tuple(done)


def _check(folder: Path) -> None:
    """Raise an OSError if somebody else could put something into the folder, or another in its place."""
    for place in (folder.parent, folder):
        check_private(place.lstat(), stat.S_ISDIR, place, WRITING)


def _content(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and {"workspace", "name", "uid", "earlier", "holders"} <= found.keys():
            return found
    return None


def _is_alive(holder: Mapping[str, Any]) -> bool:
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # Another process may have its number by now.
    return bool(_started(holder["pid"]) == holder["started"])


def _started(pid: int) -> str:
    """When a process began, on Linux; elsewhere its number must be enough."""
    try:
        # The second field is its name in brackets, which may hold anything.
        return (
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rpartition(")")[2]
            .split()[19]
        )
    except (OSError, IndexError):
        return ""
