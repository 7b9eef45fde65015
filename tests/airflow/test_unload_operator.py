"""Rows of a query into files, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.providers.openlineage.extractors.base import DefaultExtractor

from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.unload import LakebaseUnloadOperator
from tests.airflow.test_load_operators import load

QUERY = "select n as id, 'n' || n as name from generate_series(1, 3000) as n"


def unload(to: Any, sql: str = QUERY, **arguments: Any) -> Any:
    operator = LakebaseUnloadOperator(task_id="unload", sql=sql, to=to, **arguments)
    context: Any = {"ds": "2026-01-02"}
    operator.render_template_fields(context)
    return operator.execute(context)


@pytest.mark.parametrize("scheme", ["", "file://"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_can_be_loaded_again(lake: LocalLakebase, tmp_path: Path, kind: str, scheme: str) -> None:
    LakebaseHook().run(
        "drop table if exists unloaded, lakebase_load; create table unloaded (id int, name text)"
    )
    done = unload(f"{scheme}{tmp_path}/{{{{ ds }}}}.{kind}", format=kind)
    assert done["path"] == f"{scheme}{tmp_path}/2026-01-02.{kind}"
    assert (done["rows"], done["files"]) == (3000, 1)
    assert load(done["path"], "unloaded")["inserted"] == 3000
    assert LakebaseHook().get_first("select max(id), min(name) from unloaded") == (3000, "n1")


def test_parameters_and_several_files(lake: LocalLakebase, tmp_path: Path) -> None:
    done = unload(tmp_path / "parts", f"{QUERY} where n > %(n)s", parameters={"n": 10}, parallel=2, by="id")
    assert (done["rows"], done["files"]) == (2990, 2)
    assert pq.read_table(tmp_path / "parts").num_rows == 2990


def test_a_query_that_fails_leaves_no_file(lake: LocalLakebase, tmp_path: Path) -> None:
    with pytest.raises(AirflowFailException, match="no_such_table"):
        unload(tmp_path / "rows.parquet", "select * from no_such_table")
    assert list(tmp_path.iterdir()) == []


def test_lineage(lake: LocalLakebase, tmp_path: Path) -> None:
    LakebaseHook().run("drop table if exists unloaded; create table unloaded (id int)")
    operator = LakebaseUnloadOperator(
        task_id="unload", sql="select id from unloaded", to="s3://aws@bucket/a.csv"
    )
    lineage = DefaultExtractor(operator).extract()
    assert lineage is not None
    assert [dataset.name for dataset in lineage.inputs] == ["databricks_postgres.public.unloaded"]
    assert [(dataset.namespace, dataset.name) for dataset in lineage.outputs] == [("s3://bucket", "a.csv")]


def test_what_the_error_of_a_numeric_advises_works(lake: LocalLakebase, tmp_path: Path) -> None:
    sql = "select g as id, 1e-50::numeric as n from generate_series(1, 9) g"
    with pytest.raises(AirflowFailException, match=r'(?s)Column "n" .*an unload take numeric=\'text\''):
        unload(tmp_path / "parts", sql, parallel=2, by="id")
    assert unload(tmp_path / "parts", sql, parallel=2, by="id", numeric="text")["rows"] == 9
    found = pq.read_table(tmp_path / "parts")["n"].to_pylist()
    assert found == [f"0.{'0' * 49}1"] * 9
