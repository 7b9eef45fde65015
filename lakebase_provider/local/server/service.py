"""What the server runs once Postgres is up: the TLS front end and the control plane in one event loop.

Apart from :mod:`.server`, because these imports take a third of a second, which the
server spends while initdb runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvicorn

from lakebase_provider.local.contract.options import DEVELOPER, Options, Running
from lakebase_provider.local.contract.records import Principal
from lakebase_provider.local.frontend.frontend import Frontend
from lakebase_provider.local.identity import certificates
from lakebase_provider.local.identity.certificates import Certificates
from lakebase_provider.local.network.http_limits import LIMITS, Guard
from lakebase_provider.local.postgres.binaries import Binaries
from lakebase_provider.local.postgres.clusters import Clusters
from lakebase_provider.local.postgres.postgres import Postgres
from lakebase_provider.local.postgres.supervisor import Supervisor
from lakebase_provider.local.server import kept_state
from lakebase_provider.local.server.kept import Kept
from lakebase_provider.local.workspace.admin_api import AdminApi
from lakebase_provider.local.workspace.app import create_app
from lakebase_provider.local.workspace.changes.verbs import Changes
from lakebase_provider.local.workspace.resources import Views
from lakebase_provider.local.workspace.state import Workspace

#: Seconds that an idle HTTP connection is kept: longer than a client's pool, so that no request meets a
#: closing one.
_KEEP_ALIVE = 120
_DAMAGED = (LookupError, TypeError, ValueError, AttributeError)


class _HttpServer(uvicorn.Server):
    """uvicorn that leaves the signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class Service:
    """All parts, ready to serve."""

    options: Options
    folder: Path
    workspace: Workspace
    postgres: Postgres
    certificates: Certificates
    owner: Principal
    developer: Principal
    kept: Kept | None

    async def serve(
        self,
        database: list[socket.socket],
        http: list[socket.socket],
        announce: Callable[[dict[str, Any]], None],
        clusters: Clusters,
        tell_watchdog: Callable[[str], None],
    ) -> None:
        """Serve until the parent is gone, a signal or the admin API says stop, or Postgres ends.

        Args:
            database: Listening sockets of the front end.
            http: Listening sockets of the control plane.
            announce: Receives what clients need to know, once both answer.
            clusters: Of which production's is started.
            tell_watchdog: Told of each Postgres process that starts or ends.
        """
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        supervisor = Supervisor(self.postgres, tell_watchdog, stop.set)
        supervisor.watch()
        key = secrets.token_urlsafe(32)
        views = Views(self.workspace, clusters)
        changes = Changes(self.workspace, views, clusters)
        admin = AdminApi(self.workspace, changes, clusters, self.certificates, supervisor, key, stop.set)
        app = Guard(create_app(self.workspace, views, changes, [admin.route()]), [self.options.host])
        server = _HttpServer(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=1,
                **LIMITS,
            )
        )
        frontend = Frontend(self.workspace, self.certificates, clusters)
        serving = asyncio.create_task(server.serve(sockets=http))
        frontend.start(database)
        try:
            lost = self._resume(self.kept, changes, clusters) if self.kept else []
            announce(self._answer(key, database, http, lost))
            if not self.options.detach:
                loop.add_reader(sys.stdin, self._read_stdin, stop, loop)
            await stop.wait()
        finally:
            server.should_exit = True
            await frontend.stop()
            await serving

    def _resume(self, kept: Kept, changes: Changes, clusters: Clusters) -> list[str]:
        """Go on from what an earlier run left, note each change, and return the names of what is gone."""
        workspace = self.workspace
        try:
            lost = kept_state.restore(workspace, clusters, kept.state)
        except _DAMAGED:
            raise kept.damaged() from None
        changes.resume()

        def note() -> None:
            kept.note(workspace.directory.all(), kept_state.describe(workspace), clusters.kept())

        workspace.operations.on_change = note
        note()
        return lost

    def _answer(
        self, key: str, database: list[socket.socket], http: list[socket.socket], lost: list[str]
    ) -> dict[str, Any]:
        owner, developer = self.owner, self.developer
        assert owner.client_id is not None
        assert owner.client_secret is not None
        assert developer.token is not None
        running = Running(
            pid=os.getpid(),
            host=self.options.host,
            port=database[0].getsockname()[1],
            http_port=http[0].getsockname()[1],
            client_id=owner.client_id,
            client_secret=owner.client_secret,
            developer=developer.name,
            pat=developer.token,
            ca=str(self.certificates.bundle),
            admin_key=key,
            superuser_dsn=self.postgres.dsn(),
            folder=str(self.folder),
            lakehouse=str(self.workspace.lakehouse),
            lost=lost,
        )
        return asdict(running)

    def _read_stdin(self, stop: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin)
            stop.set()


def prepare(
    options: Options, folder: Path, binaries: Binaries, postgres: Postgres, kept: Kept | None
) -> Service:
    """Create what does not need Postgres: keys, certificates, principals.

    Args:
        options: What the parent asks for.
        folder: The run's.
        binaries: Of Postgres.
        postgres: Production's.
        kept: What an earlier run left; None to keep nothing.

    Raises:
        LocalLakebaseError: What was kept is damaged.
    """
    workspace = Workspace(host=options.host, token_lifetime=options.token_lifetime, pg_version=binaries.major)
    workspace.lakehouse = (Path(options.keep) if options.keep else folder) / "lakehouse"
    workspace.lakehouse.mkdir(mode=0o700, exist_ok=True)
    place = options.authority_folder or options.keep
    issued = certificates.issue(Path(place) if place else folder, options.host, keep=place is not None)
    directory = workspace.directory
    if kept and kept.begun:
        for principal in kept.principals:
            directory.restore(principal)
        try:
            kept_state.restore_first(workspace, kept.state)
        except _DAMAGED:
            raise kept.damaged() from None
    else:
        directory.add(None, "SERVICE_PRINCIPAL")
        directory.add(DEVELOPER, "USER")
    owner, developer = directory.all()[:2]
    return Service(options, folder, workspace, postgres, issued, owner, developer, kept)
