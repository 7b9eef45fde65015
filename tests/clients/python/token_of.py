"""A database token by databricks-sdk, for drivers that know nothing of Databricks."""

import os

from databricks.sdk import WorkspaceClient


def database_token() -> str:
    return WorkspaceClient().postgres.generate_database_credential(endpoint=os.environ["ENDPOINT_NAME"]).token
