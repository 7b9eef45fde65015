"""A process that waits for its query, until somebody kills it: ``python -m tests.faults.long_query``."""

from __future__ import annotations

from lakebase_provider.core import LakebaseClient, LakebaseConfig

if __name__ == "__main__":
    client = LakebaseClient(LakebaseConfig.from_env())
    with client.connection() as connection:
        connection.execute("create temp table t ()")
        print(connection.info.backend_pid, flush=True)
        connection.execute("select pg_sleep(55)")
