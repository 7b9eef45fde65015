"""Tasks whose traces are searched for secrets; each writes down, outside of Airflow, what it minted."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, task

from lakebase_provider.operators.sql import LakebaseSqlOperator


def remember_tokens(*_: Any) -> None:
    from lakebase_provider.core.tokens.token import Token
    from lakebase_provider.hooks.lakebase import LakebaseHook

    def note(token: Token) -> None:
        with Path(os.environ["CANARIES"]).open("a") as file:
            file.write(f"{token.reveal()}\n")

    LakebaseHook().client.tokens.on_mint(note)


with DAG(
    dag_id="canary",
    schedule=None,
    start_date=datetime(2025, 1, 1),
    default_args={"on_execute_callback": remember_tokens},
) as dag:
    LakebaseSqlOperator(
        task_id="operator",
        sql=[
            "create table if not exists canary (n int)",
            "insert into canary values (%(n)s)",
            "table canary",
        ],
        parameters={"n": 1},
        hook_params={"max_size": 2},
    )
    LakebaseSqlOperator(task_id="operator_fails", sql="select no_such_column")

    @task(task_id="fails_with_locals")
    def fails_with_locals() -> None:
        from lakebase_provider.hooks.lakebase import LakebaseHook

        hook = LakebaseHook()
        client, config, engine = hook.client, hook.config, hook.get_sqlalchemy_engine()
        with hook.get_conn() as connection:
            print(hook, client, config, engine, connection, vars(hook), vars(config), vars(client))
            raise RuntimeError("with all of this in the frame", connection, client, config)

    @task(task_id="leaks_to_xcom")
    def leaks_to_xcom() -> str:
        from lakebase_provider.hooks.lakebase import LakebaseHook

        return LakebaseHook().client.tokens.get().reveal()

    @task(task_id="leaks_to_its_log")
    def leaks_to_its_log() -> None:
        from lakebase_provider.hooks.lakebase import LakebaseHook

        # Masking looks for the whole token in what goes through a logger: this does not.
        token = LakebaseHook().client.tokens.get().reveal()
        with Path(os.environ["CANARY_LOG"]).open("a") as file:
            file.write(f"Authorization: {token}\n")

    [fails_with_locals(), leaks_to_xcom(), leaks_to_its_log()]
