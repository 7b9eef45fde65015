"""A big load, split over as many workers as Airflow has: each part is a task, and one merge shows them all.

Any task may be tried again or cleared. A part that was loaded is skipped: the ledger of the parts lies in the
staging schema and goes with it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from datetime import datetime, timedelta

from airflow.sdk import DAG, ObjectStoragePath, task

from lakebase_provider.operators.load import LakebaseLoadOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator

# A bucket in earnest: the workers that read the parts are not the one that wrote them.
FILES = os.environ.get("LAKEBASE_EXAMPLE_REPORTS", f"file://{tempfile.gettempdir()}/lakebase_parts")
ORDERS = int(os.environ.get("LAKEBASE_EXAMPLE_ORDERS", "1000"))
PARTS = 4


def short(run_id: str) -> str:
    """A run's id as part of a name: Postgres cuts names off after 63 bytes.

    Args:
        run_id: The id, of any length.
    """
    return hashlib.sha256(run_id.encode()).hexdigest()[:12]


with DAG(
    dag_id="lakebase_mapped_load",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    user_defined_filters={"short": short},
    tags=["lakebase"],
) as dag:

    @task
    def parts(uri: str) -> list[str]:
        """Write the parts, as an export would have done.

        Args:
            uri: The folder that they go to.

        Returns:
            Their paths.
        """
        folder = ObjectStoragePath(uri)
        if folder.protocol == "file":
            folder.mkdir(parents=True, exist_ok=True)
        paths = [ObjectStoragePath(f"{uri}/part-{part}.csv") for part in range(PARTS)]
        for part, path in enumerate(paths):
            with path.open("w") as file:
                file.write("id,amount\n")
                file.writelines(f"{i},{i / 4}\n" for i in range(1, ORDERS + 1) if i % PARTS == part)
        return [str(path) for path in paths]

    files = parts(FILES + "/{{ run_id | replace(':', '_') }}")

    # [START lakebase_mapped_load]
    staging = "staging_{{ run_id | short }}"
    create = LakebaseSqlOperator(
        task_id="create",
        sql=[
            "CREATE TABLE IF NOT EXISTS mapped_orders (id bigint PRIMARY KEY, amount numeric(12, 2))",
            f"CREATE SCHEMA IF NOT EXISTS {staging}",
            f"CREATE TABLE IF NOT EXISTS {staging}.orders (LIKE mapped_orders)",
        ],
    )
    load_parts = LakebaseLoadOperator.partial(
        task_id="load_part",
        table=f"{staging}.orders",
        # By the default a part whose task is cleared would be there twice.
        load_id="{{ run_id }}/{{ ti.map_index }}",
    ).expand(source=files)
    merge = LakebaseSqlOperator(
        task_id="merge",
        sql=f"""
            INSERT INTO mapped_orders SELECT * FROM {staging}.orders
            ON CONFLICT (id) DO UPDATE SET amount = excluded.amount
        """,  # noqa: S608 # the name is letters and digits alone
    )
    drop = LakebaseSqlOperator(task_id="drop", sql=f"DROP SCHEMA IF EXISTS {staging} CASCADE")

    create >> load_parts >> merge >> drop
    # [END lakebase_mapped_load]
