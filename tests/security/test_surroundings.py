"""Nothing of libpq's surroundings acts, and no connection goes below what a deployment asks for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg import pq

from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.floors import ALLOWED_AUTH_TYPES, ALLOWED_PROFILES, LEAST_SSLMODE
from lakebase_provider.core.network import neutral_parameters, tls_parameters
from lakebase_provider.local import LocalLakebase

from .listener import Listener

ENDPOINT = "projects/p/branches/b/endpoints/e"

#: What libpq reads, with a value that would keep it from connecting or change the session.
VARIABLES = {
    "PGSSLCERT": "{folder}/postgresql.crt",
    "PGSSLKEY": "{folder}/postgresql.key",
    "PGSSLCERTMODE": "require",
    "PGSSLCRL": "{folder}/root.crl",
    "PGSSLCRLDIR": "{folder}",
    "PGSSLNEGOTIATION": "direct",
    "PGSSLMINPROTOCOLVERSION": "TLSv9",
    "PGSSLMAXPROTOCOLVERSION": "TLSv1",
    "PGMINPROTOCOLVERSION": "3.2",
    "PGMAXPROTOCOLVERSION": "2.0",
    "PGGSSENCMODE": "require",
    "PGCHANNELBINDING": "require",
    "PGREQUIREAUTH": "none",
    "PGREQUIREPEER": "nobody-there",
    "PGTARGETSESSIONATTRS": "standby",
    "PGLOADBALANCEHOSTS": "nonsense",
    "PGHOSTADDR": "127.0.0.9",
    "PGOPTIONS": "-c no_such_setting=1",
    "PGSSLMODE": "disable",
    "PGSSLROOTCERT": "{folder}/root.crt",
    "PGCLIENTENCODING": "LATIN1",
    "PGPASSFILE": "{folder}",
}


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
        )
        assert works(config)
        assert somebody_else.received == []
    services.unlink()
    # libpq insists on finding it; then the error says what to do.
    with pytest.raises(ConfigError, match="service") as caught:
        works(config)
    assert "PGSERVICE" in caught.value.remedy


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
    # What has no variable can come from a service's file; that of timing is the system's own affair.
    others = {option.keyword.decode() for option in pq.Conninfo.get_defaults()} - by_variable
    assert others - given.keys() == {
        *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
        *("fallback_application_name", "scram_client_key", "scram_server_key"),
    }


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
