"""What a user writes, for mypy --strict to read against the installed package: see `make test-wheel`.

Each ``assert_type`` fails where the package's types are not found, for then everything is ``Any``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
from dagster import Definitions, asset
from typing_extensions import assert_type

from dagster_lakebase import LakebaseResource
from lakebase_provider.core import (
    HealthReport,
    LakebaseClient,
    LakebaseConfig,
    LakebaseError,
    LoadResult,
    UnloadResult,
)
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.operators.load import LakebaseLoadOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator


def with_the_client() -> None:
    with LakebaseClient(LakebaseConfig.from_env()) as client:
        with client.connection() as connection:
            row = connection.execute("SELECT 1").fetchone()
            assert_type(row, "tuple[Any, ...] | None")
        assert_type(client.load([(1, "a")], "orders"), LoadResult)
        assert_type(client.unload("SELECT 1", "orders.parquet"), UnloadResult)
        assert_type(client.health(), HealthReport)


def with_the_hook() -> str:
    hook = LakebaseHook("lakebase_default")
    try:
        with hook.get_conn() as connection:
            assert isinstance(connection, psycopg.Connection)
    except LakebaseError as error:
        assert_type(error.retryable, bool)
        return error.remedy
    return ""


def with_operators() -> list[Any]:
    return [
        LakebaseSqlOperator(task_id="sql", sql="SELECT 1", execution_timeout=timedelta(minutes=1)),
        LakebaseLoadOperator(task_id="load", source="orders.csv", table="orders", mode="merge", key=["id"]),
    ]


@asset
def orders(lakebase: LakebaseResource) -> int:
    with lakebase.get_connection() as connection:
        return len(connection.execute("SELECT 1").fetchall())


definitions = Definitions(assets=[orders], resources={"lakebase": LakebaseResource(endpoint="projects/p")})
