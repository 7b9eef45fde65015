"""Start and stop a local Lakebase from Python."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lakebase_provider.local.admin import Admin
from lakebase_provider.local.errors import LocalLakebaseError

if TYPE_CHECKING:
    from types import TracebackType

    from lakebase_provider.core.config import LakebaseConfig

#: Seconds for a clean end before the server is killed; the watchdog then cleans up.
_STOP_TIMEOUT = 15.0
ENDPOINT = "projects/local/branches/production/endpoints/primary"
DATABASE = "databricks_postgres"


@dataclass(frozen=True)
class Running:
    """What a started server said about itself."""

    pid: int
    host: str
    port: int
    http_port: int
    client_id: str
    client_secret: str = field(repr=False)
    developer: str
    pat: str = field(repr=False)
    ca: str
    admin_key: str = field(repr=False)
    superuser_dsn: str

    def env(self) -> dict[str, str]:
        """Environment variables for clients; no PGSSLMODE, for some accept only a part of its values."""
        return {
            "DATABRICKS_HOST": f"http://127.0.0.1:{self.http_port}",
            "DATABRICKS_CLIENT_ID": self.client_id,
            "DATABRICKS_CLIENT_SECRET": self.client_secret,
            "ENDPOINT_NAME": ENDPOINT,
            "LAKEBASE_ENDPOINT": ENDPOINT,
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGDATABASE": DATABASE,
            "PGUSER": self.client_id,
            "PGSSLROOTCERT": self.ca,
        }


class LocalLakebase:
    """A Lakebase on this machine: real Postgres, TLS with tokens as passwords, and a control plane.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`. Nothing outlives it, not even when this
    process is killed: the server and its data go with it.

    Args:
        token_lifetime: Seconds that a database token lives.
        port: Port of the database; 0 for a free one. Some clients insist on 5432.
        http_port: Port of the control plane; 0 for a free one.
        host: Name that clients connect to; it must lead to this machine.
        max_connections: Postgres' setting, of which 3 are reserved for the superuser. 104 is the smallest compute's.

    Example:
        >>> with LocalLakebase() as lake:  # doctest: +SKIP
        ...     client = LakebaseClient(lake.config())
    """

    def __init__(
        self,
        *,
        token_lifetime: float = 3600.0,
        port: int = 0,
        http_port: int = 0,
        host: str = "localhost",
        max_connections: int = 104,
    ) -> None:
        self._options: dict[str, Any] = {
            "token_lifetime": token_lifetime,
            "port": port,
            "http_port": http_port,
            "host": host,
            "max_connections": max_connections,
            "authority_folder": None,
            "detach": False,
        }
        self._server: Server | None = None
        self._owner = 0

    def __enter__(self) -> LocalLakebase:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        where = f"port={self.port}" if self._server else "stopped"
        return f"LocalLakebase({where})"

    def start(self) -> None:
        """Start everything and return when it answers, after one to two seconds.

        Raises:
            LocalLakebaseError: It cannot start; the message says why in one line.
        """
        if self._server is not None:
            return
        self._server = Server.launch(self._options)
        self._owner = os.getpid()

    def stop(self) -> None:
        """Stop everything and remove the data."""
        server, self._server = self._server, None
        # A forked child inherits this object, but the server is its parent's.
        if server is not None and self._owner == os.getpid():
            server.stop()

    @property
    def running(self) -> Running:
        """What the server said about itself.

        Raises:
            LocalLakebaseError: It is not started.
        """
        if self._server is None:
            raise LocalLakebaseError("The local Lakebase is not started.", remedy="Use it in a `with` block.")
        return self._server.running

    @property
    def host(self) -> str:
        """Name of the database's host, as in PGHOST."""
        return self.running.host

    @property
    def port(self) -> int:
        """Port of the database."""
        return self.running.port

    @property
    def http_port(self) -> int:
        """Port of the control plane."""
        return self.running.http_port

    @property
    def client_id(self) -> str:
        """Client id of the service principal that owns the database."""
        return self.running.client_id

    @property
    def client_secret(self) -> str:
        """OAuth secret of that service principal."""
        return self.running.client_secret

    @property
    def developer(self) -> str:
        """Name of the user that has a personal access token."""
        return self.running.developer

    @property
    def pat(self) -> str:
        """Personal access token of :attr:`developer`."""
        return self.running.pat

    @property
    def ca_path(self) -> str:
        """File with the certificate authority, for `sslrootcert`."""
        return self.running.ca

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self.running.pid

    @property
    def superuser_dsn(self) -> str:
        """Connection string of Postgres' superuser, past the front end; for inspection in tests."""
        return self.running.superuser_dsn

    @property
    def admin(self) -> Admin:
        """Handle for expiring tokens, suspending, scripting faults and reading counters."""
        running = self.running
        return Admin(running.http_port, running.admin_key, running.superuser_dsn)

    def env(self) -> dict[str, str]:
        """Return the environment variables with which any Lakebase client finds it."""
        return self.running.env()

    def config(self, **overrides: Any) -> LakebaseConfig:
        """Return the configuration of the core for this Lakebase.

        Args:
            **overrides: Fields of :class:`lakebase_provider.core.config.LakebaseConfig` to set differently.
        """
        import dataclasses

        from lakebase_provider.core.config import LakebaseConfig

        return dataclasses.replace(LakebaseConfig.from_env(self.env()), **overrides)


class Server:
    """The server process as its parent sees it."""

    def __init__(self, process: subprocess.Popen[bytes], running: Running) -> None:
        self._process = process
        self.running = running

    @classmethod
    def launch(cls, options: dict[str, Any]) -> Server:
        """Start the server and wait for its answer.

        Args:
            options: Fields of :class:`lakebase_provider.local.server.Options`.

        Raises:
            LocalLakebaseError: It could not start.
        """
        with tempfile.TemporaryFile() as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "lakebase_provider.local.server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=_environment(),
                # Not the caller's folder: Python puts it first on the path, and a module there may be called `jwt`.
                cwd="/",
                # Ctrl-C is for the parent, which then stops the server in order.
                start_new_session=True,
            )
            try:
                return cls(process, _handshake(process, options, stderr))
            except BaseException:
                process.terminate()
                _close_pipes(process)
                process.wait()
                raise

    def stop(self) -> None:
        """End the server by ending its input, and wait until it is gone."""
        _close_pipes(self._process)
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait(self) -> int:
        """Block until the server ends by itself, and return its exit code."""
        return self._process.wait()

    def leave(self) -> None:
        """Let go of a server that was started with `detach`."""
        _close_pipes(self._process)


def _handshake(process: subprocess.Popen[bytes], options: dict[str, Any], stderr: IO[bytes]) -> Running:
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(options).encode() + b"\n")
        process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        stderr.seek(0)
        said = stderr.read().decode(errors="replace").strip().splitlines()
        raise LocalLakebaseError(f"The local Lakebase ended while starting: {said[-1] if said else 'it said nothing'}")
    answer = json.loads(line)
    if "error" in answer:
        raise LocalLakebaseError(answer["error"], remedy=answer["remedy"])
    return Running(**answer)


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    if paths := environment.get("PYTHONPATH"):
        # Relative entries would mean another folder from the server's.
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(p).absolute()) for p in paths.split(os.pathsep) if p)
    return environment
