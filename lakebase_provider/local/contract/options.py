"""What the server is told and what it answers, each as one JSON line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from lakebase_provider.core.config.allowed_hosts import ALLOW_LOOPBACK

DATABASE = "databricks_postgres"
PROJECT, BRANCH, ENDPOINT = "local", "production", "primary"
ENDPOINT_NAME = f"projects/{PROJECT}/branches/{BRANCH}/endpoints/{ENDPOINT}"
#: What a scripted fault may be of: the methods of the control plane, or all.
FAULT_METHODS = ("GET", "POST", "PATCH", "DELETE", "*")
#: How the paths of the control plane begin.
FAULT_PATHS = ("/api/2.0/", "/oidc/", "/.well-known/")
#: Name of the user that has a personal access token from the start.
DEVELOPER = "developer@example.com"


@dataclass(frozen=True)
class Options:
    """What the parent asks for.

    Attributes:
        host: Name that clients connect to.
        port: Of the front end; 0 for a free one.
        http_port: Of the control plane; 0 for a free one.
        token_lifetime: Seconds.
        max_connections: Postgres' setting.
        authority_folder: Where the certificate authority is kept for the next run; None for one that ends
            with this run.
        postgres: Major version; None for the default.
        keep: Folder for the data of all branches and the credentials, which the next run goes on from; None
            to remove them at the end.
        detach: True to outlive the parent.
    """

    host: str
    port: int
    http_port: int
    token_lifetime: float
    max_connections: int
    authority_folder: str | None = None
    postgres: int | None = None
    keep: str | None = None
    detach: bool = False


@dataclass(frozen=True)
class Running:
    """What a started server says about itself."""

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
    folder: str
    #: Folder of the Unity Catalog's Delta tables; empty where a server of an earlier version runs.
    lakehouse: str = ""
    #: Names of the branches that the run before had, and that have ended with it.
    lost: list[str] = field(default_factory=list)

    def env(self) -> dict[str, str]:
        """Environment variables for clients; no PGSSLMODE, since some accept only part of its values."""
        return {
            "DATABRICKS_HOST": f"http://127.0.0.1:{self.http_port}",
            "DATABRICKS_CLIENT_ID": self.client_id,
            "DATABRICKS_CLIENT_SECRET": self.client_secret,
            "ENDPOINT_NAME": ENDPOINT_NAME,
            "LAKEBASE_ENDPOINT": ENDPOINT_NAME,
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGDATABASE": DATABASE,
            "PGUSER": self.client_id,
            "PGSSLROOTCERT": self.ca,
            ALLOW_LOOPBACK: "1",
        }

    def airflow_connection(self) -> str:
        """An Airflow connection, as JSON for a variable like AIRFLOW_CONN_LAKEBASE_DEFAULT."""
        env = self.env()
        extra = {
            "endpoint": env["ENDPOINT_NAME"],
            "workspace_host": env["DATABRICKS_HOST"],
            "sslrootcert": env["PGSSLROOTCERT"],
        }
        connection = {
            "conn_type": "lakebase",
            "host": env["PGHOST"],
            "port": int(env["PGPORT"]),
            "schema": env["PGDATABASE"],
            "login": env["DATABRICKS_CLIENT_ID"],
            "password": env["DATABRICKS_CLIENT_SECRET"],
            "extra": extra,
        }
        return json.dumps(connection)

    def airflow_env(self) -> dict[str, str]:
        """Environment variables for Airflow: the connection, and permission to use loopback."""
        return {"AIRFLOW_CONN_LAKEBASE_DEFAULT": self.airflow_connection(), ALLOW_LOOPBACK: "1"}
