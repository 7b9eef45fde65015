"""Start and stop a local Lakebase from Python."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.config.allowed_hosts import allow_loopback, server_is_gone
from lakebase_provider.local.contract.errors import LocalLakebaseError
from lakebase_provider.local.contract.lakehouse import table_path
from lakebase_provider.local.contract.options import Options, Running
from lakebase_provider.local.parent.admin import Admin
from lakebase_provider.local.parent.launch import Server

if TYPE_CHECKING:
    from types import TracebackType

    from lakebase_provider.core.config import LakebaseConfig


class LocalLakebase:
    """A Lakebase on this machine: real Postgres, TLS with tokens as passwords, and a control plane.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`. Nothing outlives it, even if this
    process is killed: the server and its data are removed with it.

    Args:
        token_lifetime: Lifetime of a database token in seconds.
        port: Port of the database; 0 for a free one. Some clients insist on 5432.
        http_port: Port of the control plane; 0 for a free one.
        host: Name that clients connect to; it must point to this machine.
        max_connections: Postgres' setting, of which 3 are reserved for the superuser. 104 is the smallest
            compute's.
        postgres: Major version, 16, 17 or 18; None for the first one found, which is 16 as a rule.
        keep: Folder that keeps the data of all branches and all credentials, from which the next one with
            that folder goes on; read replicas end with this one. None to keep nothing.

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
        postgres: int | None = None,
        keep: str | os.PathLike[str] | None = None,
    ) -> None:
        self._options = Options(
            host=host,
            port=port,
            http_port=http_port,
            token_lifetime=token_lifetime,
            max_connections=max_connections,
            postgres=postgres,
            keep=None if keep is None else str(Path(keep).absolute()),
        )
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
        allow_loopback(self)

    def stop(self) -> None:
        """Stop everything and remove the data."""
        server, self._server = self._server, None
        server_is_gone(self)
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
            raise LocalLakebaseError(
                "The local Lakebase has not been started.", remedy="Use it in a `with` block."
            )
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

    def table_path(self, name: str) -> Path:
        """Folder of a Delta table of its Unity Catalog, which the package deltalake writes and reads.

        Args:
            name: Such as ``"main.src.trips"``.

        Raises:
            LocalLakebaseError: That is no name of a table, or it is not started.
        """
        return table_path(Path(self.running.lakehouse), name)

    @property
    def admin(self) -> Admin:
        """Handle for expiring tokens, suspending, scripting faults and reading counters."""
        running = self.running
        return Admin(running.http_port, running.admin_key, running.superuser_dsn)

    def env(self) -> dict[str, str]:
        """Return the environment variables with which any Lakebase client finds it."""
        return self.running.env()

    def airflow_connection(self) -> str:
        """Return an Airflow connection, as JSON for a variable like AIRFLOW_CONN_LAKEBASE_DEFAULT."""
        return self.running.airflow_connection()

    def config(self, **overrides: Any) -> LakebaseConfig:
        """Return the configuration of the core for this Lakebase.

        Args:
            **overrides: Fields of :class:`lakebase_provider.core.config.LakebaseConfig` to set differently.
        """
        from lakebase_provider.core.config import LakebaseConfig

        return LakebaseConfig.from_env(self.env(), **overrides)
