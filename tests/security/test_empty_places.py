"""A template or a variable that becomes nothing, where somebody names the database to work on."""

from __future__ import annotations

from itertools import product
from typing import Any

import dagster as dg
import pytest

# It says where Airflow's home is, before the first import of Airflow.
import tests.airflow.conftest  # noqa: F401 # isort: skip

from airflow.sdk.exceptions import AirflowFailException

from dagster_lakebase import LakebaseResource
from dagster_lakebase.storage import LakebaseStorage
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.sql import LakebaseSqlOperator
from tests.dagster.test_launchpad import error_of, launch, of_literals, who

from .test_places import with_a_secret

#: Dagster's own, of a nested resource.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")
NAMES = ["endpoint", "project", "branch", "instance", "host", "database"]


@pytest.mark.parametrize(
    ("name", "nothing"),
    # None is the default of `schema`, which is an argument of its own.
    [*product(NAMES, ["", " ", None]), ("schema", ""), ("schema", " ")],
)
def test_the_hook_does_not_take_the_connections_own_instead(
    lakebase_env: LocalLakebase, name: str, nothing: str | None
) -> None:
    with pytest.raises(ConfigError, match=f"The {name.replace('schema', 'database')} is (empty|None)"):
        LakebaseHook("stored", connection=with_a_secret(lakebase_env), **{name: nothing}).get_conn()


@pytest.mark.parametrize("name", NAMES)
def test_nor_does_an_operator(
    lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lakebase_env.airflow_connection())
    operator = LakebaseSqlOperator(
        task_id="t", sql="DROP TABLE precious", hook_params={name: "{{ nothing }}"}
    )
    operator.render_template_fields({"nothing": ""})
    with pytest.raises(AirflowFailException, match=f"The {name} is empty"):
        operator.execute({})


@pytest.mark.parametrize("name", NAMES)
def test_nor_do_the_other_fronts(
    lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("NOTHING", "")
    config = lakebase_env.config()
    for give in (
        lambda: LakebaseConfig.from_env(**{name: ""}),
        lambda: config.replace(**{name: " "}),
        lambda: LakebaseResource(**{name: ""}).lakebase_config,  # type: ignore[arg-type] # a text each
        lambda: LakebaseResource(**{name: dg.EnvVar("NOTHING")}).lakebase_config,
        lambda: LakebaseStorage.from_config_value(None, {name: "", "should_autocreate_tables": False}),
    ):
        with pytest.raises(ConfigError, match=f"The {name} is empty"):
            give()


@pytest.mark.parametrize("name", NAMES)
def test_nor_does_a_run(lakebase_env: LocalLakebase, name: str) -> None:
    result = launch(
        dg.Definitions(assets=[who], resources={"lakebase": of_literals(lakebase_env)}), {name: ""}
    )
    assert not result.success
    assert f"The {name} is empty" in error_of(result)


def test_what_common_sql_repeats_of_a_connection_is_no_argument(lakebase_env: LocalLakebase) -> None:
    extras: dict[str, Any] = dict.fromkeys(("project", "branch", "instance"), "")
    hook = LakebaseHook("stored", connection=with_a_secret(lakebase_env, **extras), **extras)
    assert hook.get_first("select 1") == (1,)
