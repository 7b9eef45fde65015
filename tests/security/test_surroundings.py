"""Nothing of libpq's surroundings acts, and no connection goes below what a deployment asks for."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from psycopg import pq
from sqlalchemy import text

from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.core.config.floors import ALLOWED_AUTH_TYPES, ALLOWED_PROFILES, LEAST_SSLMODE
from lakebase_provider.core.connect.network import (
    SESSION_VARIABLES,
    neutral_parameters,
    tls_parameters,
    warn_of_session_variables,
)
from lakebase_provider.core.errors import ConfigError, SessionSettingError
from lakebase_provider.local import LocalLakebase
from lakebase_provider.local.contract.errors import LocalLakebaseError

from .exposure import Canaries
from .fronts import FRONTS, World
from .listener import Listener
from .surroundings import VARIABLES, set_all

ENDPOINT = "projects/p/branches/b/endpoints/e"

#: What libpq reads besides: tested by themselves, or of no effect on a session.
OTHER_VARIABLES = {"PGSERVICE", *SESSION_VARIABLES, "PGOAUTHDEBUG"}


@pytest.fixture
def postgresql_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose .postgresql holds a client's certificate, a key, an authority and a revocation list."""
    folder = tmp_path / ".postgresql"
    folder.mkdir()
    for name in ("postgresql.crt", "postgresql.key", "root.crt", "root.crl"):
        (folder / name).write_text("-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n")
        (folder / name).chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


def works(config: LakebaseConfig) -> bool:
    with LakebaseClient(config).connect(timeout=5) as connection:
        row = connection.execute("SELECT current_setting('client_encoding')").fetchone()
        return connection.pgconn.ssl_in_use and row == ("UTF8",)


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_of_libpq_has_no_effect(
    lakebase_env: LocalLakebase, postgresql_home: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = lakebase_env.config()
    monkeypatch.setenv(name, VARIABLES[name].format(folder=postgresql_home))
    assert works(config)


def test_every_variable_that_this_libpq_knows_is_tried() -> None:
    """Found in its code, for it tells of no more than those that a parameter has."""
    named = {option.envvar.decode() for option in pq.Conninfo.get_defaults() if option.envvar}
    inside = {name for name in strings_of(libpq()) if name.startswith("PG") and not name.startswith("PGRES_")}
    assert {"PGSYSCONFDIR", "PGTZ"} < inside
    assert (named | inside) - VARIABLES.keys() - OTHER_VARIABLES == set()


def libpq() -> Path:
    """The library that psycopg has loaded."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split(maxsplit=5)[-1]
        if re.match(r"libpq[-.]", Path(path).name):
            return Path(path)
    pytest.skip("libpq is not a library of its own here")


def strings_of(library: Path) -> set[str]:
    return {found.decode() for found in re.findall(rb"(?<=\0)PG[A-Z_]+(?=\0)", library.read_bytes())}


@pytest.mark.parametrize("front", ["core", "async", "airflow", "airflow-async", "dagster"])
def test_nor_in_any_front(
    lakebase_env: LocalLakebase, postgresql_home: Path, monkeypatch: pytest.MonkeyPatch, front: str
) -> None:
    with ExitStack() as stack:
        world = World(lakebase_env, monkeypatch, postgresql_home, Canaries(), stack)
        given = world.settings()
        set_all(monkeypatch, postgresql_home)
        FRONTS[front](world).select(given, "SELECT 1")


def test_nor_on_a_local_lakebase(postgresql_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, postgresql_home)
    for name in (*SESSION_VARIABLES, "PGSERVICE"):
        # Its own sessions are in a process without any of them.
        monkeypatch.setenv(name, "nonsense")
    with LocalLakebase(max_connections=20) as lake:
        for name in (*SESSION_VARIABLES, "PGSERVICE"):
            monkeypatch.delenv(name)
        assert lake.admin.execute("SHOW TimeZone") == [("UTC",)]
        assert works(lake.config())


@pytest.mark.usefixtures("postgresql_home")
def test_what_libpq_sends_of_its_own_accord_is_told(
    lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = LakebaseClient(lakebase_env.config())
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    monkeypatch.setenv("PGGEQO", "default")
    warn_of_session_variables.cache_clear()
    for _ in range(2):
        client.connect(timeout=5).close()
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line.split()[2] for line in warnings] == ["PGTZ"]
    monkeypatch.setenv("PGTZ", "Middle/Earth")
    with pytest.raises(SessionSettingError) as caught:
        client.connect(timeout=5)
    assert "unset PGTZ" in caught.value.remedy
    with pytest.raises(LocalLakebaseError) as refused:
        lakebase_env.admin.execute("SELECT 1")
    assert "unset PGTZ" in refused.value.remedy
    warn_of_session_variables.cache_clear()


@pytest.mark.usefixtures("postgresql_home")
@pytest.mark.parametrize("sslmode", ["verify-full", "verify-ca", "require"])
def test_the_files_of_a_home_have_no_effect(lakebase_env: LocalLakebase, sslmode: str) -> None:
    assert works(lakebase_env.config(sslmode=sslmode))
    if sslmode == "require":
        # libpq would verify by ~/.postgresql/root.crt.
        assert works(lakebase_env.config(sslmode=sslmode, sslrootcert=None))


@pytest.mark.usefixtures("postgresql_home")
async def test_nor_for_asyncio(lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    config = lakebase_env.config()
    for name in ("PGTARGETSESSIONATTRS", "PGREQUIREAUTH", "PGSSLCERTMODE", "PGGSSENCMODE"):
        monkeypatch.setenv(name, VARIABLES[name])
    async with await LakebaseClient(config).aconnect(timeout=5) as connection:
        assert connection.pgconn.ssl_in_use


def test_a_service_leads_nowhere(
    lakebase_env: LocalLakebase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = lakebase_env.config()
    services = tmp_path / "services.conf"
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    monkeypatch.setenv("PGSERVICE", "other")
    with Listener() as somebody_else:
        services.write_text(
            f"[other]\nhost=127.0.0.1\nhostaddr=127.0.0.1\nport={somebody_else.port}\nsslmode=disable\n"
            "user=other\npassword=other\ndbname=other\noptions=-c x=1\nreplication=true\nrequire_auth=none\n"
            "keepalives=0\nkeepalives_idle=1\ntcp_user_timeout=1\n"
        )
        assert works(config)
        assert somebody_else.received == []
    services.unlink()
    # libpq insists on finding it; then the error says what to do.
    with pytest.raises(ConfigError, match="service") as caught:
        works(config)
    assert "PGSERVICE" in caught.value.remedy
    with pytest.raises(LocalLakebaseError, match="service") as refused:
        lakebase_env.admin.execute("SELECT 1")
    assert "PGSERVICE" in refused.value.remedy


def test_every_parameter_that_a_variable_could_set_is_given(lakebase_env: LocalLakebase) -> None:
    """Those of this libpq, whatever its version: a later one that knows more fails here."""
    given: dict[str, Any] = {}

    client = LakebaseClient(lakebase_env.config())
    arguments = client._connector._arguments

    def noting(*places: Any) -> dict[str, Any]:
        given.update(arguments(*places))
        return given

    client._connector._arguments = noting  # type: ignore[method-assign] # to look, not to change
    client.connect(timeout=5).close()
    assert given["sslmode"] == "verify-full"
    by_variable = {option.keyword.decode() for option in pq.Conninfo.get_defaults() if option.envvar}
    assert by_variable - given.keys() == {"service"}
    # What has no variable can come from a service's file. These have no value that stands for the default.
    others = {option.keyword.decode() for option in pq.Conninfo.get_defaults()} - by_variable
    assert others - given.keys() == {
        *("keepalives_idle", "keepalives_interval", "keepalives_count"),
        *("fallback_application_name", "scram_client_key", "scram_server_key"),
    }


def test_a_caller_may_still_say_how_a_dead_link_is_told(lakebase_env: LocalLakebase) -> None:
    client = LakebaseClient(lakebase_env.config())
    with client.connect(timeout=5, tcp_user_timeout=7000) as connection:
        found = {option.keyword: option.val for option in connection.pgconn.info}
    assert found[b"tcp_user_timeout"] == b"7000"
    assert found[b"keepalives"] == b"1"


def test_no_file_is_named_where_none_is_meant() -> None:
    named = [value for value in neutral_parameters().values() if value.startswith("/")]
    assert named
    assert not any(os.path.lexists(path) for path in named)
    assert not os.path.lexists(
        tls_parameters(LakebaseConfig(endpoint=ENDPOINT, sslmode="require"))["sslrootcert"]
    )


def refused(build: Callable[[], object], setting: str, variable: str) -> None:
    with pytest.raises(ConfigError, match=f"'{setting}'") as caught:
        build()
    assert variable in caught.value.remedy


def test_the_least_sslmode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEAST_SSLMODE, "verify-ca")
    assert LakebaseConfig(endpoint=ENDPOINT, sslmode="verify-ca")
    refused(lambda: LakebaseConfig(endpoint=ENDPOINT, sslmode="require"), "sslmode", LEAST_SSLMODE)
    refused(lambda: LakebaseConfig(endpoint=ENDPOINT).replace(sslmode="require"), "sslmode", LEAST_SSLMODE)
    environ = {"ENDPOINT_NAME": ENDPOINT, "PGSSLMODE": "require", LEAST_SSLMODE: "require"}
    refused(lambda: LakebaseConfig.from_env(environ), "sslmode", LEAST_SSLMODE)
    monkeypatch.setenv(LEAST_SSLMODE, "prefer")
    with pytest.raises(ConfigError, match=LEAST_SSLMODE):
        LakebaseConfig(endpoint=ENDPOINT)


@pytest.mark.parametrize("text", ["", " ", "\t", ",", " , ", "VERIFY", "0"])
@pytest.mark.parametrize("variable", [LEAST_SSLMODE, ALLOWED_AUTH_TYPES, ALLOWED_PROFILES])
def test_what_a_deployment_sets_and_leaves_blank_does_not_allow_everything(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigError, match=variable) as caught:
        LakebaseConfig(endpoint=ENDPOINT, sslmode="require", auth_type="pat", profile="some")
    assert variable in caught.value.message + caught.value.remedy


def test_the_allowed_ways_to_authenticate(monkeypatch: pytest.MonkeyPatch) -> None:
    workspace: dict[str, Any] = {"endpoint": ENDPOINT, "workspace_host": "https://w.databricks.com"}
    by_principal: dict[str, Any] = {**workspace, "client_id": "c", "client_secret": "s"}
    native: dict[str, Any] = {
        "auth": "password",
        "user": "u",
        "password": "p",
        "host": "w.databricks.com",
    }
    monkeypatch.setenv(ALLOWED_AUTH_TYPES, "oauth-m2m, azure-cli")
    assert LakebaseConfig(**by_principal)
    assert LakebaseConfig(**workspace, auth_type="azure-cli")
    for other in (
        {**workspace, "token": "t"},
        {**by_principal, "auth_type": "external-browser"},
        {**workspace, "azure_client_id": "a", "azure_client_secret": "s"},
        workspace,
        native,
    ):
        refused(lambda other=other: LakebaseConfig(**other), "auth_type", ALLOWED_AUTH_TYPES)  # type: ignore[misc] # mypy sees no default in a lambda
    monkeypatch.setenv(ALLOWED_AUTH_TYPES, "password,default")
    assert LakebaseConfig(**native)
    assert LakebaseConfig(**workspace)


def test_the_allowed_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOWED_PROFILES, "etl")
    assert LakebaseConfig(endpoint=ENDPOINT, profile="etl")
    assert LakebaseConfig(endpoint=ENDPOINT)
    refused(lambda: LakebaseConfig(endpoint=ENDPOINT, profile="admin"), "profile", ALLOWED_PROFILES)


async def test_nor_in_an_engine(
    lakebase_env: LocalLakebase, postgresql_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = LakebaseClient(lakebase_env.config())
    set_all(monkeypatch, postgresql_home)
    engine = client.engine()
    with engine.connect() as connection:
        assert connection.execute(text("SHOW client_encoding")).scalar() == "UTF8"
    engine.dispose()
    async_engine = client.async_engine()
    async with async_engine.connect() as connection:
        assert (await connection.execute(text("SHOW client_encoding"))).scalar() == "UTF8"
    await async_engine.dispose()


@pytest.mark.parametrize("names_nothing", ["", " ", ",", " , ,\t"])
def test_a_list_that_names_nothing_does_not_allow_everything(
    names_nothing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in (ALLOWED_AUTH_TYPES, ALLOWED_PROFILES):
        with monkeypatch.context() as patch:
            patch.setenv(variable, names_nothing)
            with pytest.raises(ConfigError, match=f"{variable} is set but names nothing"):
                LakebaseConfig(endpoint=ENDPOINT, profile="admin")
