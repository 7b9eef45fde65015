"""What a deployment says for all its connections: Airflow's section [lakebase], and LAKEBASE_ variables."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import conf
from airflow.providers.common.sql.operators.sql import BaseSQLOperator

from lakebase_provider import get_provider_info
from lakebase_provider._airflow.connection.page_options import PAGE_OPTIONS
from lakebase_provider.core.config import setting, settings
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import connection_fields, define
from tests.forked import Forks

#: What a deployment may say; everything else says to what and as whom, which is a connection's matter.
OF_DEPLOYMENTS = {
    "credential_ttl",
    "credential_store",
    "sslmode",
    "sslrootcert",
    "min_size",
    "max_size",
    "max_lifetime",
    "max_idle",
    "connect_budget",
    "statement_timeout",
    "lock_timeout",
    "application_name",
}
#: What the form stored before it left its fields empty: each default, as a user who touched nothing sent it.
EVERY_DEFAULT = {
    row.name: row.default
    for row in settings()
    if row.default is not None and row.name not in ("port", "database")
}


def set_option(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"AIRFLOW__LAKEBASE__{name.upper()}", value)


def test_the_variable_that_the_readme_names_works_for_the_hook(
    lake: LocalLakebase, forks: Forks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("LAKEBASE_CREDENTIAL_STORE", "shared")
    # Three processes that start one after another, forked by one that has imported Airflow, as tasks are.
    ask = """
import os
from lakebase_provider.hooks.lakebase import LakebaseHook
for _ in range(3):
    if process := os.fork():
        assert os.waitpid(process, 0)[1] == 0
    else:
        print(LakebaseHook().get_first('select 41 + 1'), flush=True)
        os._exit(0)
"""
    before = lake.admin.counters().mints
    done = forks.run("-c", ask, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(42,)") == 3
    # One token for all of them.
    assert lake.admin.counters().mints - before == 1


def test_a_deployments_setting_goes_below_the_connections_and_above_the_default(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (LakebaseHook().config.max_size, LakebaseHook().config.lock_timeout) == (4, None)
    set_option(monkeypatch, "max_size", "7")
    set_option(monkeypatch, "lock_timeout", "2.5")
    set_option(monkeypatch, "connect_budget", "")
    found = LakebaseHook().config
    assert (found.max_size, found.lock_timeout) == (7, 2.5)
    assert found.connect_budget == setting("connect_budget").default
    define(monkeypatch, **connection_fields(lake, extra={"max_size": 3}))
    assert (LakebaseHook().config.max_size, LakebaseHook(max_size=2).config.max_size) == (3, 2)
    assert LakebaseHook().get_first("select current_setting('lock_timeout')") == ("2500ms",)


async def test_it_holds_for_async_tasks_and_triggers(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_option(monkeypatch, "max_size", "7")
    client = await LakebaseHook().aclient()
    assert client.config.max_size == 7
    await client.aclose()


def test_it_may_stand_in_the_file(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context():
        conf.add_section("lakebase")
        try:
            conf.set("lakebase", "max_size", "9")
            assert LakebaseHook().config.max_size == 9
            set_option(monkeypatch, "max_size", "8")
            assert LakebaseHook().config.max_size == 8
        finally:
            conf.remove_section("lakebase")


def test_what_is_said_of_the_page_is_no_setting(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    before = LakebaseHook().config
    for name in PAGE_OPTIONS:
        set_option(monkeypatch, name, "something")
    assert LakebaseHook().config == before


def test_airflows_own_section_goes_before_the_variable(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEBASE_CREDENTIAL_STORE", "shared")
    set_option(monkeypatch, "credential_store", "off")
    assert LakebaseHook().config.credential_store == "off"
    monkeypatch.delenv("AIRFLOW__LAKEBASE__CREDENTIAL_STORE")
    define(monkeypatch, **connection_fields(lake, extra={"credential_store": "off"}))
    assert LakebaseHook().config.credential_store == "off"


def test_variables_that_say_to_what_and_as_whom_stay_without_effect(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = LakebaseHook().config
    for row in settings():
        for variable in row.env:
            if row.name != "credential_store":
                monkeypatch.setenv(variable, "elsewhere")
    assert LakebaseHook().config == before


@pytest.mark.parametrize(
    ("name", "value", "message", "remedy"),
    [
        ("max_size", "many", "'max_size' must be a whole number", "Correct AIRFLOW__LAKEBASE__MAX_SIZE"),
        ("min_size", "9", "'min_size' is 9, more than max_size 4", "AIRFLOW__LAKEBASE__MIN_SIZE"),
        ("sslrootcert", "/no/such", "'sslrootcert' is not a file", "AIRFLOW__LAKEBASE__SSLROOTCERT"),
        ("max_sizes", "3", "'max_sizes'", "Did you mean 'max_size'?"),
        ("client_secret", "canary", "'client_secret'", "connection"),
        ("host", "canary", "'host'", "connection"),
    ],
)
def test_a_wrong_one_is_told_by_its_place(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str, remedy: str
) -> None:
    fields = connection_fields(lake)
    if name == "sslrootcert":
        del fields["extra"]["sslrootcert"]
    define(monkeypatch, **fields)
    set_option(monkeypatch, name, value)
    with pytest.raises(ConfigError) as caught:
        LakebaseHook().get_conn()
    assert message in caught.value.message
    assert remedy in caught.value.remedy
    assert f"AIRFLOW__LAKEBASE__{name.upper()}" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_wrong_variable_is_told_by_its_name(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEBASE_CREDENTIAL_STORE", "yes")
    with pytest.raises(ConfigError, match="'credential_store' is 'yes'") as caught:
        LakebaseHook().get_conn()
    assert "LAKEBASE_CREDENTIAL_STORE" in caught.value.remedy


@pytest.mark.parametrize("merged", [False, True])
def test_what_the_form_stored_untouched_gives_way(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch, merged: bool
) -> None:
    set_option(monkeypatch, "credential_store", "shared")
    set_option(monkeypatch, "connect_budget", "30")
    extra = {**EVERY_DEFAULT, "max_idle": "900.0", "connect_budget": 45}
    define(monkeypatch, **connection_fields(lake, extra=extra))
    # common-sql's own operators also pass all extras to the hook as arguments.
    hook = BaseSQLOperator.get_hook("lakebase_default") if merged else LakebaseHook()
    assert isinstance(hook, LakebaseHook)
    assert hook.config.credential_store == "shared"
    # A value of the user's own stands.
    assert hook.config.connect_budget == 45
    # So does an argument.
    assert LakebaseHook(credential_store="off").config.credential_store == "off"


def test_it_gives_way_beside_an_operators_argument_too(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_option(monkeypatch, "credential_store", "shared")
    define(monkeypatch, **connection_fields(lake, extra=EVERY_DEFAULT))
    hook = BaseSQLOperator.get_hook("lakebase_default", {"max_size": 9})
    assert isinstance(hook, LakebaseHook)
    assert (hook.config.credential_store, hook.config.max_size) == ("shared", 9)


def test_a_default_that_somebody_wrote_down_alone_is_meant(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_option(monkeypatch, "max_size", "7")
    define(monkeypatch, **connection_fields(lake, extra={"max_size": 4}))
    assert LakebaseHook().config.max_size == 4


def test_the_form_has_no_default_and_tells_it() -> None:
    fields = get_provider_info()["connection-types"][0]["conn-fields"]
    for name, field in fields.items():
        assert "default" not in field["schema"], name
    for row in settings():
        if row.default is not None and row.name in fields:
            assert str(row.default) in fields[row.name]["description"]


def test_the_name_of_the_application_is_the_tasks_unless_somebody_says_another(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "etl")
    monkeypatch.setenv("AIRFLOW_CTX_TASK_ID", "load")
    assert LakebaseHook().config.application_name == "etl.load"
    set_option(monkeypatch, "application_name", "airflow-prod")
    assert LakebaseHook().config.application_name == "airflow-prod"
    define(monkeypatch, **connection_fields(lake, extra={"application_name": "own"}))
    assert LakebaseHook().config.application_name == "own"


def test_airflow_knows_the_section(airflow_db: None, forks: Forks, tmp_path: Path) -> None:
    options = get_provider_info()["config"]["lakebase"]["options"]
    assert set(options) == OF_DEPLOYMENTS | PAGE_OPTIONS.keys()
    assert not any(setting(name).kind == "secret" or setting(name).is_host for name in OF_DEPLOYMENTS)
    command = ("-m", "airflow", "config", "list", "--section", "lakebase", "--include-descriptions")
    listed = forks.run(*command, cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "connect_budget" in listed.stdout
