"""What the hook tells Airflow's lineage and OpenLineage."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from airflow.providers.common.sql.hooks import lineage
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import Connection

from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase

try:
    from airflow.sdk.lineage import HookLineageCollector
except ModuleNotFoundError:  # Airflow 3.1
    from airflow.lineage.hook import HookLineageCollector


@pytest.fixture
def hook(lake: LocalLakebase) -> Iterator[LakebaseHook]:
    hook = LakebaseHook()
    hook.run("drop table if exists traced; create table traced (id int primary key)")
    yield hook
    hook.run("drop table traced")


def in_child(work: Callable[[], object]) -> str:
    """What `work` returned, or raised, in a forked child."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = repr(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write_end, said.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        said = answer.read()
    assert os.waitpid(child, 0)[1] == 0
    return said


async def test_each_statement_is_told_with_its_rows(
    hook: LakebaseHook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Airflow collects where a plugin reads what is collected; here the test does.
    collector = HookLineageCollector()
    if not hasattr(collector, "add_extra"):
        pytest.skip("Airflow 3.1 collects no statements")
    monkeypatch.setattr(lineage, "get_hook_lineage_collector", lambda: collector)
    hook.get_records("select * from traced where id = %s", parameters=(1,))
    hook.insert_rows("traced", [(1,), (2,)])
    hook.bulk_dump("traced", tmp_path / "traced.tsv")
    hook.get_df("select * from traced")
    list(hook.get_df_by_chunks("select id from traced", chunksize=1))
    await hook.aget_first("select count(*) from traced")
    await hook.client.aclose()
    entries = [entry.value for entry in collector.collected_assets.extra if entry.context is hook]
    found = [(entry["sql"], entry.get("row_count"), entry.get("sql_parameters")) for entry in entries]
    assert found == [
        ("select * from traced where id = %s", 0, (1,)),
        ('INSERT INTO "traced"  VALUES (%s)', 2, None),
        ('COPY "traced" TO STDOUT', 2, (str(tmp_path / "traced.tsv"),)),
        ("select * from traced", None, None),
        ("select id from traced", None, None),
        ("select count(*) from traced", 1, None),
    ]


def test_openlineage_is_told_the_resolved_host(lake: LocalLakebase, hook: LakebaseHook) -> None:
    info = hook.get_openlineage_database_info(Connection(conn_id="unused", conn_type="lakebase"))
    target = hook.client.target()
    assert (info.scheme, info.authority) == ("postgres", f"{target.host}:{lake.env()['PGPORT']}")
    assert info.database == "databricks_postgres"
    assert hook.get_openlineage_database_dialect(None) == "postgres"
    assert hook.get_openlineage_default_schema() == "public"
    dicts = LakebaseHook(cursor="dictcursor", schema="postgres")
    assert dicts.get_openlineage_default_schema() == "public"
    assert dicts.get_openlineage_database_info(None).database == "postgres"


def test_openlineage_makes_data_sets_of_an_operators_statement(
    lake: LocalLakebase, hook: LakebaseHook
) -> None:
    operator = SQLExecuteQueryOperator(
        task_id="sql", conn_id="lakebase_default", sql="insert into traced select oid::int from pg_class"
    )
    lineage = operator.get_openlineage_facets_on_start()
    assert lineage is not None
    target = hook.client.target()
    assert [(data.namespace, data.name) for data in lineage.outputs] == [
        (f"postgres://{target.host}:{target.port}", "databricks_postgres.public.traced")
    ]


def test_openlineages_forked_child_uses_connections_of_its_own(hook: LakebaseHook) -> None:
    # As OpenLineage's listener does it: a fork while the task holds a connection and the pool is open.
    operator = SQLExecuteQueryOperator(task_id="sql", conn_id="lakebase_default", sql="select * from traced")
    mine = hook.get_first("select pg_backend_pid()")[0]
    held = hook.get_conn()
    held.execute("insert into traced values (7)")
    said = in_child(lambda: hook.get_first("select pg_backend_pid()")[0])
    assert said.isdigit()
    assert int(said) != mine
    assert in_child(hook.get_openlineage_default_schema) == "'public'"
    names = in_child(lambda: [data.name for data in operator.get_openlineage_facets_on_start().inputs])
    assert names == "['databricks_postgres.public.traced']"
    held.commit()
    held.close()
    assert hook.get_first("select pg_backend_pid(), id from traced") == (mine, 7)
