"""One Postgres cluster in a folder of its own: created, started, asked as superuser, stopped."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakebase_provider.local.contract import private_files, superuser
from lakebase_provider.local.contract.errors import LocalLakebaseError
from lakebase_provider.local.postgres.accounts import Account
from lakebase_provider.local.postgres.binaries import Binaries

if TYPE_CHECKING:
    import psycopg

SUPERUSER = superuser.NAME
_PORT = 5432
#: Seconds that initdb or a start may take on a busy machine.
_START_TIMEOUT = 60.0
#: Seconds that a fast shutdown gets before an immediate one.
_STOP_TIMEOUT = 10.0
_POLL = 0.005
#: Seconds that a replay of the write-ahead log may take before the server answers.
_RECOVERY_TIMEOUT = 300.0
#: Bytes of Postgres' pid file, and of the end of its log, that are looked at.
_PID_FILE_LIMIT, _LOG_LIMIT = 4096, 65_536

#: The write-ahead log stays where it is written and is the archive: no archiver to run, nothing to copy.
_HISTORY = {
    # Megabytes. Whoever writes more loses the oldest moments to which a branch can go back.
    "wal_keep_size": "4096",
    # A segment that is full changes no more, so that copies of the cluster hold links to it.
    "wal_recycle": "off",
    "wal_init_zero": "off",
    # With segments of 1 MB the default would be 64 MB, and a load would wait for checkpoints.
    "max_wal_size": "1GB",
}


class Postgres:
    """A cluster whose only door is a unix socket that nobody but its own account and root can reach.

    As root, nothing that this process opens lies where the account could put a link in its place: the log is
    root's own, of the data folder one file is read, and the socket's folder becomes root's once the server
    listens.

    Args:
        folder: The run's folder; the cluster lives in `folder/postgres`, its socket in `folder/socket`.
        binaries: Programs that `account` can run.
        account: Who runs them.
        max_connections: Postgres' setting; 3 of them are reserved for the superuser.
        settings: More of Postgres' settings.
        home: Where the cluster lives instead.
    """

    def __init__(
        self,
        folder: Path,
        binaries: Binaries,
        account: Account,
        *,
        max_connections: int,
        settings: Mapping[str, str] | None = None,
        home: Path | None = None,
    ) -> None:
        self._home = home or folder / "postgres"
        self.data = self._home / "data"
        self._sockets = folder / "socket"
        self._log = folder / "log"
        self._binaries = binaries
        self._account = account
        self._max_connections = max_connections
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket_path(self) -> str:
        """Path of the unix socket."""
        return str(self._sockets / f".s.PGSQL.{_PORT}")

    @property
    def pid_file(self) -> Path:
        """File that the server removes when it ends."""
        return self.data / "postmaster.pid"

    @property
    def running(self) -> bool:
        """Whether the server was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def group(self) -> int:
        """Process group of the server that was started last."""
        assert self._process is not None
        return self._process.pid

    def begin_initdb(self) -> subprocess.Popen[bytes]:
        """Start initdb without waiting, so that the caller can import and generate keys meanwhile."""
        account = self._account
        self.make_home()
        self.data.mkdir(mode=0o700)
        if account.gid is not None and account.creator is not None:
            os.chown(self.data, account.creator, account.gid)
        return self._spawn(
            account.creator,
            [str(self._binaries.initdb), "-D", str(self.data), "-U", SUPERUSER, "--auth-local=trust",
             "--auth-host=reject", "--no-sync", "--no-instructions", "--locale=C", "-E", "UTF8",
             # Small, for each copy of a cluster ends one.
             "--wal-segsize=1"],
        )  # fmt: skip

    def make_home(self) -> None:
        """Create the folder that holds the data folder: root's, and the account may pass through."""
        private_files.make_passage(self._home, self._account.gid)

    def finish_initdb(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for initdb.

        Raises:
            LocalLakebaseError: It failed; the message holds its last words.
        """
        if process.wait(_START_TIMEOUT) != 0:
            raise LocalLakebaseError(f"initdb failed: {self._last_words()}")
        if self._account.uid is not None and self._account.gid is not None:
            private_files.give_tree(self.data, self._account.uid, self._account.gid)

    def begin_start(self, recovery: Mapping[str, str] | None = None) -> int:
        """Start the server without waiting, and return its process id, which is its process group's too.

        Args:
            recovery: Settings for this start alone, of a copy that has to replay write-ahead log.
        """
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._sockets),
            "unix_socket_permissions": "0700",
            "port": str(_PORT),
            "max_connections": str(self._max_connections),
            "superuser_reserved_connections": str(min(3, self._max_connections - 1)),
            "shared_buffers": "32MB",
            # The data does not outlive the run, so nothing is gained by waiting for a disk.
            "fsync": "off",
            "full_page_writes": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **_HISTORY,
            **self._settings,
            **(recovery or {}),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._open_socket_folder()
        argv = [str(self._binaries.postgres), "-D", str(self.data), *options]
        self._process = self._spawn(self._account.uid, argv)
        return self._process.pid

    def finish_start(self, *, replays: bool = False) -> None:
        """Wait until the server answers.

        Args:
            replays: True for a copy, which first replays the write-ahead log of its parent.

        Raises:
            LocalLakebaseError: It ended or did not answer in time.
        """
        assert self._process is not None
        timeout = _RECOVERY_TIMEOUT if replays else _START_TIMEOUT
        deadline = time.monotonic() + timeout
        while not self._ready():
            if self._process.poll() is not None:
                raise LocalLakebaseError(f"Postgres exited while starting: {self._last_words()}")
            if time.monotonic() > deadline:
                raise LocalLakebaseError(f"Postgres did not start within {timeout:.0f} seconds.")
            time.sleep(_POLL)
        self._close_socket_folder()

    def wait(self) -> int:
        """Block until the server has ended, and return its exit code."""
        assert self._process is not None
        return self._process.wait()

    def crash(self) -> None:
        """End the server at once, as `pg_ctl stop -m immediate`: no checkpoint, no farewell to sessions."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(_STOP_TIMEOUT)

    def stop(self) -> None:
        """Stop the server; open sessions are closed."""
        process = self._process
        if process is None:
            return
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            if process.poll() is not None:
                return
            process.send_signal(number)
            try:
                process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                continue
            return

    def dsn(self, database: str = SUPERUSER) -> str:
        """Connection string of the superuser over the unix socket, for programs of the same account."""
        return superuser.dsn(str(self._sockets), _PORT, database)

    def session(self, database: str = SUPERUSER) -> psycopg.Connection[Any]:
        """Open a session of the superuser in which each statement is a transaction of its own."""
        return superuser.connect(self.dsn(database), database=database)

    def execute(
        self, statement: str, parameters: Sequence[Any] | None = None, *, database: str = SUPERUSER
    ) -> list[tuple[Any, ...]]:
        """Run one statement as superuser and return its rows."""
        return superuser.execute(self.dsn(database), statement, parameters, database=database)

    def _open_socket_folder(self) -> None:
        """Let the server, and what it leaves after a crash, have an empty folder."""
        account = self._account
        if self._sockets.exists() and account.uid is not None:
            shutil.rmtree(self._sockets)
        self._sockets.mkdir(mode=0o700, exist_ok=True)
        if account.uid is not None and account.gid is not None:
            os.chown(self._sockets, account.uid, account.gid)

    def _close_socket_folder(self) -> None:
        """Keep the account from replacing its socket by a link, along which root would talk to others."""
        account = self._account
        if account.uid is None or account.gid is None:
            return
        os.chown(self._sockets, 0, account.gid)
        self._sockets.chmod(0o710)
        found = os.lstat(self.socket_path)
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != account.uid:
            raise LocalLakebaseError(
                f"{self.socket_path} is not the socket of Postgres (user {account.uid})."
            )

    def _ready(self) -> bool:
        try:
            content = private_files.read(self.pid_file, owner=self._account.uid, limit=_PID_FILE_LIMIT)
        except FileNotFoundError:
            return False
        lines = content.decode(errors="replace").splitlines()
        assert self._process is not None
        return len(lines) >= 8 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready"

    def _spawn(self, uid: int | None, argv: list[str]) -> subprocess.Popen[bytes]:
        # A clean environment: PGPORT, PGDATA and their kin would reach the server as settings.
        environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        user: dict[str, Any] = {}
        if uid is not None:
            user = {"user": uid, "group": self._account.gid, "extra_groups": []}
        with os.fdopen(private_files.open_to_append(self._log), "ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own argument list
                argv,
                env={**environment, "LC_ALL": "C", "TZ": "UTC"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **user,
            )

    def _last_words(self) -> str:
        said = private_files.read(self._log, limit=_LOG_LIMIT).decode(errors="replace")
        lines = [line for line in said.splitlines() if line.strip()]
        telling = [line for line in lines if "FATAL" in line or "error" in line.lower()]
        return (telling or lines or ["it printed nothing"])[-1].strip()
