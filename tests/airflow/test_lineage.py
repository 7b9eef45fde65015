"""What OpenLineage is told, by its own extractor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.providers.openlineage.extractors.base import DefaultExtractor

from lakebase_provider._airflow.task.lineage import file_dataset
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.health import LakebaseHealthCheckOperator, LakebaseInspectOperator
from lakebase_provider.operators.load import LakebaseLoadOperator
from lakebase_provider.operators.rehearse import LakebaseRehearseOperator
from lakebase_provider.operators.restore_rows import LakebaseRestoreRowsOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator
from lakebase_provider.operators.transfer import LakebaseTransferOperator
from lakebase_provider.sensors.health import LakebaseHealthSensor
from lakebase_provider.sensors.sql import LakebaseSqlSensor
from tests.airflow.test_branch_operators import ran


@pytest.fixture(autouse=True)
def tables(lake: LocalLakebase) -> None:
    LakebaseHook().run(
        [
            "drop table if exists lineage_from, lineage_to",
            "create table lineage_from (id int, amount numeric)",
            "create table lineage_to (id int, amount numeric)",
        ]
    )


def names(datasets: list[Any]) -> set[tuple[str, str]]:
    return {(dataset.namespace, dataset.name) for dataset in datasets}


def expected(table: str) -> tuple[str, str]:
    target = LakebaseHook().client.target()
    return f"postgres://{target.host}:{target.port}", f"databricks_postgres.public.{table}"


@pytest.mark.parametrize("deferrable", [False, True])
def test_sql_tells_what_it_reads_and_writes(lake: LocalLakebase, deferrable: bool) -> None:
    operator = LakebaseSqlOperator(
        task_id="sql",
        sql="insert into lineage_to select id, amount from lineage_from",
        deferrable=deferrable,
    )
    extractor = DefaultExtractor(operator)
    for lineage in (extractor.extract(), extractor.extract_on_complete(None)):
        assert lineage is not None
        assert names(lineage.inputs) == {expected("lineage_from")}
        assert names(lineage.outputs) == {expected("lineage_to")}
        fields = [field.name for field in lineage.outputs[0].facets["schema"].fields]
        assert fields == ["id", "amount"]
        assert lineage.job_facets["sql"].query.startswith("insert")
        for secret in (lake.client_secret, LakebaseHook().client.tokens.get().reveal()):
            assert secret not in str(lineage)


def test_a_sensor_tells_what_it_waits_for(lake: LocalLakebase) -> None:
    sensor = LakebaseSqlSensor(task_id="sensor", sql="select count(*) from lineage_from")
    lineage = DefaultExtractor(sensor).extract()
    assert lineage is not None
    assert names(lineage.inputs) == {expected("lineage_from")}


def test_loads_tell_the_file_and_the_table(lake: LocalLakebase, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("id,amount\n1,2.5\n")
    operator = LakebaseLoadOperator(task_id="load", source=str(file), table="lineage_to", load_id=None)
    extractor = DefaultExtractor(operator)
    begun = extractor.extract()
    operator.execute({})
    done = extractor.extract_on_complete(None)
    for lineage in (begun, done):
        assert lineage is not None
        assert names(lineage.inputs) == {("file", str(file))}
        assert names(lineage.outputs) == {expected("lineage_to")}
    assert done is not None
    assert done.outputs[0].outputFacets["outputStatistics"].rowCount == 1  # type: ignore[union-attr] # it is one


def test_a_transfer_tells_what_its_query_reads(lake: LocalLakebase) -> None:
    operator = LakebaseTransferOperator(
        task_id="transfer",
        source_conn_id="lakebase_default",
        sql="select id, amount from lineage_from",
        table="public.lineage_to",
    )
    lineage = DefaultExtractor(operator).extract()
    assert lineage is not None
    assert names(lineage.inputs) == {expected("lineage_from")}
    assert names(lineage.outputs) == {expected("lineage_to")}
    assert lineage.job_facets["sql"].query.startswith("select")


@pytest.mark.parametrize(
    ("path", "dataset"),
    [
        ("s3://aws_default@bucket/a/b.csv", ("s3://bucket", "a/b.csv")),
        ("file:///data/b.csv", ("file", "/data/b.csv")),
        ("/data/b.csv", ("file", "/data/b.csv")),
    ],
)
def test_files_are_named_without_their_connection(path: str, dataset: tuple[str, str]) -> None:
    assert names([file_dataset(path)]) == {dataset}


def test_health_reads_and_writes_no_data(lake: LocalLakebase) -> None:
    for operator in (
        LakebaseHealthCheckOperator(task_id="check"),
        LakebaseHealthSensor(task_id="wait"),
        LakebaseInspectOperator(task_id="inspect"),
    ):
        lineage = DefaultExtractor(operator).extract()
        assert lineage is not None
        assert not lineage.inputs
        assert not lineage.outputs


def test_work_on_a_branch_is_told_as_the_branchs(lake: LocalLakebase, tmp_path: Path) -> None:
    client = LakebaseHook().client
    name = client.workspace.branches.create("lineage-1", ttl=3600).name
    client.branches.wait_ready(name)
    target = LakebaseHook(branch=name).client.target()
    there = f"postgres://{target.host}:{target.port}"
    assert there != expected("lineage_to")[0]
    file = tmp_path / "rows.csv"
    file.write_text("id,amount\n1,2.5\n")
    moving = "insert into lineage_to select id, amount from lineage_from"
    for operator in (
        LakebaseSqlOperator(task_id="sql", sql=moving, branch=name),
        LakebaseLoadOperator(task_id="load", source=str(file), table="lineage_to", branch=name),
        LakebaseRestoreRowsOperator(task_id="undo", table="lineage_to", at="0/1", dry_run=False, branch=name),
    ):
        lineage = DefaultExtractor(operator).extract_on_complete(None)
        assert lineage is not None
        assert names(lineage.outputs) == {(there, "databricks_postgres.public.lineage_to")}
    # So an asset of the branch is no asset of production.
    asset = LakebaseHook(branch=name).asset("lineage_to")
    assert asset.uri == f"lakebase://{target.host}:{target.port}/databricks_postgres/public/lineage_to"
    assert LakebaseHook().asset("public.lineage_to").uri != asset.uri
    client.workspace.branches.delete(name, purge=True)


def test_a_rehearsal_tells_what_has_run_where_it_belongs(lake: LocalLakebase) -> None:
    moving = ["insert into lineage_to select id, amount from lineage_from", "delete from lineage_from"]
    for then, outputs in (("stop", set()), ("run", {expected("lineage_to"), expected("lineage_from")})):
        operator = LakebaseRehearseOperator(task_id="change", sql=moving, then=then)  # type: ignore[arg-type]
        ran(operator)
        lineage = DefaultExtractor(operator).extract_on_complete(None)
        assert lineage is not None
        assert names(lineage.outputs) == outputs
