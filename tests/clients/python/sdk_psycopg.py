"""The Lakebase documentation's way: databricks-sdk mints, psycopg connects."""

import os

import psycopg
from databricks.sdk import WorkspaceClient

workspace = WorkspaceClient()
endpoint = workspace.postgres.get_endpoint(name=os.environ["ENDPOINT_NAME"])
credential = workspace.postgres.generate_database_credential(endpoint=endpoint.name)
with psycopg.connect(
    host=endpoint.status.hosts.host,
    dbname=os.environ["PGDATABASE"],
    user=workspace.current_user.me().user_name,
    password=credential.token,
    sslmode="verify-full",
) as connection:
    print(connection.execute("SELECT current_user").fetchone()[0])
