"""A try that is still at work when its retry starts: ``python -m tests.faults.working_try``."""

from __future__ import annotations

import sys

import psycopg

from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.core.database.fence import fence

if __name__ == "__main__":
    with LakebaseClient(LakebaseConfig.from_env(application_name="dag.task")) as client:
        try:
            with client.connection() as connection:
                fence(connection, "dag/task/run/-1")
                connection.execute("insert into fenced values ('zombie')")
                print("working", flush=True)
                sys.stdin.readline()
                connection.execute("insert into fenced values ('zombie')")
        except psycopg.OperationalError as error:
            print(error, flush=True)
