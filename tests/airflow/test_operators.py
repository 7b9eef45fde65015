"""The operators alone, without a DAG run."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import psycopg
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import BaseOperator

from lakebase_provider import get_provider_info
from lakebase_provider.core.errors import ConfigError, EndpointWakingError, LoginRejectedError
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.failures import failing_fast
from lakebase_provider.operators.sql import LakebaseSqlOperator
from tests.airflow.conftest import EXAMPLES, connection_fields, define


def run(**arguments: Any) -> Any:
    context: Any = {}
    return LakebaseSqlOperator(task_id="sql", **arguments).execute(context)


def test_sql_returns_rows_and_takes_parameters(lake: LocalLakebase) -> None:
    assert run(sql="select %(n)s::int", parameters={"n": 1}) == [(1,)]
    assert run(sql="select current_database()", database="postgres") == [("postgres",)]


def test_timeouts_reach_the_server(lake: LocalLakebase) -> None:
    shown = "select current_setting('statement_timeout'), current_setting('lock_timeout')"
    assert run(sql=shown, statement_timeout=1.5, lock_timeout=2) == [("1500ms", "2s")]
    assert run(sql=shown) == [("0", "0")]
    with pytest.raises(psycopg.errors.QueryCanceled):
        run(sql="select pg_sleep(30)", statement_timeout=0.1)


def test_no_secret_gets_into_a_template_field(lake: LocalLakebase) -> None:
    operator = LakebaseSqlOperator(task_id="sql", sql="select 1", hook_params={"max_size": 1})
    operator.execute({})
    assert operator.hook_params == {"max_size": 1}
    assert operator.get_db_hook().config.max_size == 1


def test_a_refused_login_is_not_retried(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch, **connection_fields(lake, login="nobody", extra={"client_id": lake.client_id}))
    with pytest.raises(AirflowFailException, match="databricks_create_role") as caught:
        run(sql="select 1")
    assert isinstance(caught.value.__cause__, LoginRejectedError)


def test_what_a_retry_may_help_is_left_as_it_is() -> None:
    waking = EndpointWakingError("The compute is starting.")
    with pytest.raises(EndpointWakingError) as caught, failing_fast():
        raise waking
    assert caught.value is waking
    with pytest.raises(AirflowFailException) as final, failing_fast():
        raise ConfigError("Setting 'x' is wrong.")
    assert isinstance(final.value.__cause__, ConfigError)


def operators() -> list[str]:
    modules = [name for row in get_provider_info()["operators"] for name in row["python-modules"]]
    return [
        name
        for module in modules
        for name, kind in inspect.getmembers(importlib.import_module(module), inspect.isclass)
        if kind.__module__ == module and issubclass(kind, BaseOperator)
    ]


@pytest.mark.parametrize("name", operators())
def test_each_operator_stands_in_an_example_between_markers(name: str) -> None:
    text = "\n".join(file.read_text() for file in EXAMPLES.glob("*.py"))
    snippets = re.findall(r"# \[START (\w+)\](.*?)# \[END \1\]", text, re.DOTALL)
    assert any(f"{name}(" in body for _marker, body in snippets)
