from __future__ import annotations

import dataclasses
import pickle
import traceback

import pytest

from lakebase_provider.core.client import LakebaseClient
from lakebase_provider.core.config import LakebaseConfig, settings
from lakebase_provider.core.errors import ConfigError

ENDPOINT = "projects/p/branches/b/endpoints/e"
WORKSPACE = {
    "DATABRICKS_HOST": "https://w.cloud.databricks.com",
    "DATABRICKS_CLIENT_ID": "c00f575e",
    "DATABRICKS_CLIENT_SECRET": "very-secret",
}


def test_the_variables_of_the_documentation_are_read() -> None:
    config = LakebaseConfig.from_env(
        {
            **WORKSPACE,
            "ENDPOINT_NAME": ENDPOINT,
            "PGHOST": "e.database.us-east-1.databricks.com",
            "PGDATABASE": "databricks_postgres",
            "PGUSER": "c00f575e",
            "PGPORT": "5433",
            "PGSSLMODE": "require",
        }
    )
    assert config.endpoint == ENDPOINT
    assert (config.host, config.port) == ("e.database.us-east-1.databricks.com", 5433)
    assert (config.user, config.database, config.sslmode) == ("c00f575e", "databricks_postgres", "require")
    assert config.client_secret is not None
    assert config.client_secret.reveal() == "very-secret"


def test_defaults_are_the_safe_ones() -> None:
    config = LakebaseConfig(endpoint=ENDPOINT)
    assert config.sslmode == "verify-full"
    assert (config.min_size, config.max_size) == (0, 4)
    assert (config.max_lifetime, config.max_idle) == (45 * 60, 15 * 60)


def test_each_setting_has_a_label_and_a_sentence() -> None:
    assert [row.name for row in settings()] == [f.name for f in dataclasses.fields(LakebaseConfig)]
    for row in settings():
        assert row.label
        assert row.description


@pytest.mark.parametrize(
    ("mapping", "field", "remedy"),
    [
        ({}, "endpoint", "projects/<project>/branches/<branch>/endpoints/<endpoint>"),
        ({"endpoint": "my-endpoint"}, "endpoint", "projects/<project>"),
        ({"endpoint": ENDPOINT + "/"}, "endpoint", "projects/<project>"),
        ({"endpoint": ENDPOINT, "instance": "i"}, "instance", "Keep 'endpoint'"),
        ({"endpoint": ENDPOINT, "access": "read_only", "host": "localhost"}, "access", "Remove 'host'"),
        ({"endpoint": ENDPOINT, "max_sise": 3}, "max_sise", "'max_size'"),
        ({"endpoint": ENDPOINT, "options": "-c x"}, "options", "The settings are"),
        ({"endpoint": ENDPOINT, "port": "five"}, "port", "PGPORT"),
        ({"endpoint": ENDPOINT, "port": True}, "port", "PGPORT"),
        ({"endpoint": ENDPOINT, "port": 70_000}, "port", "65535"),
        ({"endpoint": ENDPOINT, "max_size": 2.5}, "max_size", "max_size"),
        ({"endpoint": ENDPOINT, "connect_budget": "nan"}, "connect_budget", "connect_budget"),
        ({"endpoint": ENDPOINT, "min_size": 5, "max_size": 2}, "min_size", "min_size"),
        ({"endpoint": ENDPOINT, "sslmode": "prefer"}, "sslmode", "verify-full"),
        ({"endpoint": ENDPOINT, "sslrootcert": "no-such-file.pem"}, "sslrootcert", "PGSSLROOTCERT"),
        ({"endpoint": ENDPOINT, "auth": "kerberos"}, "auth", "oauth, password"),
        ({"endpoint": ENDPOINT, "password": "p"}, "password", "auth='password'"),
        ({"auth": "password", "password": "p", "host": "localhost"}, "user", "PGUSER"),
        ({"auth": "password", "password": "p", "user": "u"}, "host", "endpoint"),
        ({"endpoint": ENDPOINT, "client_secret": "s"}, "client_id", "DATABRICKS_CLIENT_ID"),
        ({"endpoint": ENDPOINT, "client_id": "c", "client_secret": "s"}, "workspace_host", "https://"),
        ({"endpoint": ENDPOINT, "client_secret": 7}, "client_secret", "client_secret"),
        ({"endpoint": ENDPOINT, "host": "db.example.com"}, "host", "LAKEBASE_ALLOWED_HOST_SUFFIXES"),
        ({"endpoint": ENDPOINT, "host": "evil-databricks.com"}, "host", "LAKEBASE_ALLOWED_HOST_SUFFIXES"),
        ({"endpoint": ENDPOINT, "host": "a.databricks.com,b.example.com"}, "host", "PGHOST"),
        ({"endpoint": ENDPOINT, "host": "ep-1-pooler.database.databricks.com"}, "host", "auth='password'"),
        ({"endpoint": ENDPOINT, "workspace_host": "http://w.databricks.com"}, "workspace_host", "https://"),
        ({"endpoint": ENDPOINT, "workspace_host": "https://w.example.com"}, "workspace_host", "SUFFIXES"),
        (
            {"endpoint": ENDPOINT, "workspace_host": "https://u:p@w.databricks.com"},
            "workspace_host",
            "Use only",
        ),
    ],
)
def test_bad_input_names_the_field_and_the_remedy(
    mapping: dict[str, object], field: str, remedy: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        LakebaseConfig.from_mapping(mapping)
    assert f"'{field}'" in caught.value.message
    assert remedy in caught.value.remedy
    assert "\n" not in caught.value.message + caught.value.remedy


def test_a_secret_of_the_wrong_kind_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        LakebaseConfig.from_mapping({"endpoint": ENDPOINT, "client_secret": ["canary-secret"]})
    assert "canary-secret" not in str(caught.value)
    assert "list" in str(caught.value)


def test_a_deployment_allows_more_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEBASE_ALLOWED_HOST_SUFFIXES", ".example.com, .example.org")
    assert LakebaseConfig(endpoint=ENDPOINT, host="db.example.org").host == "db.example.org"


def test_empty_values_count_as_not_set() -> None:
    config = LakebaseConfig.from_mapping({"endpoint": ENDPOINT, "host": "", "max_size": None})
    assert config.host is None
    assert config.max_size == 4


def test_a_uri_is_read() -> None:
    config = LakebaseConfig.from_uri(
        f"lakebase://me%40x.com@localhost:5433/sales?endpoint={ENDPOINT}&max_size=2"
    )
    assert (config.user, config.host, config.port, config.database) == (
        "me@x.com",
        "localhost",
        5433,
        "sales",
    )
    assert config.max_size == 2
    assert config.endpoint == ENDPOINT


def test_a_password_in_a_uri_is_a_native_one() -> None:
    config = LakebaseConfig.from_uri("lakebase://app:s3cr%2Ft@localhost/db")
    assert config.auth == "password"
    assert config.password is not None
    assert config.password.reveal() == "s3cr/t"


@pytest.mark.parametrize(
    "uri", ["mysql://localhost/db", "lakebase://localhost:99999/db", "lakebase://h/db?x"]
)
def test_a_wrong_uri_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError):
        LakebaseConfig.from_uri(uri)


def test_secrets_are_hidden_and_left_behind_by_pickling() -> None:
    config = LakebaseConfig.from_env({**WORKSPACE, "ENDPOINT_NAME": ENDPOINT})
    assert "very-secret" not in repr(config)
    assert b"very-secret" not in pickle.dumps(config)
    travelled = pickle.loads(pickle.dumps(config))  # noqa: S301 # our own bytes
    assert travelled.endpoint == ENDPOINT
    with pytest.raises(ConfigError, match="A secret was removed"):
        travelled.client_secret.reveal()


def test_equal_configurations_are_one_key_and_other_principals_another() -> None:
    one = LakebaseConfig.from_env({**WORKSPACE, "ENDPOINT_NAME": ENDPOINT})
    assert one == LakebaseConfig.from_env({**WORKSPACE, "ENDPOINT_NAME": ENDPOINT})
    assert hash(one) == hash(LakebaseConfig.from_env({**WORKSPACE, "ENDPOINT_NAME": ENDPOINT}))
    assert one != LakebaseConfig.from_env(
        {**WORKSPACE, "ENDPOINT_NAME": ENDPOINT, "DATABRICKS_CLIENT_ID": "x"}
    )
    assert one != one.replace(client_secret="another")


ENV_A = {
    **WORKSPACE,
    "ENDPOINT_NAME": ENDPOINT,
    "PGHOST": "a.databricks.com",
    "PGPORT": "5433",
    "PGUSER": "a",
}


def test_another_endpoint_does_not_go_to_the_environments_host() -> None:
    config = LakebaseConfig.from_env(ENV_A, endpoint="projects/z/branches/z/endpoints/z")
    assert config.host is None
    assert config.user == "a"
    assert LakebaseConfig.from_env(ENV_A, instance="i").endpoint is None


def test_another_principal_takes_nothing_from_the_environments() -> None:
    config = LakebaseConfig.from_env(ENV_A, client_id="z", client_secret="zz")
    assert (config.user, config.host) == (None, "a.databricks.com")
    config = LakebaseConfig.from_env(ENV_A, token="dapi")
    assert (config.client_id, config.client_secret, config.user) == (None, None, None)
    config = LakebaseConfig.from_env(ENV_A, client_id="z")
    assert config.client_secret is None


def test_a_secret_from_the_environment_completes_a_given_identity() -> None:
    environ = {name: value for name, value in ENV_A.items() if name != "DATABRICKS_CLIENT_ID"}
    config = LakebaseConfig.from_env(environ, client_id="z")
    assert config.client_secret is not None


def test_an_override_that_repeats_the_environment_changes_nothing() -> None:
    repeated = LakebaseConfig.from_env(ENV_A, client_id="c00f575e", endpoint=ENDPOINT)
    assert repeated == LakebaseConfig.from_env(ENV_A)
    assert LakebaseConfig.from_env(ENV_A, database="d").host == "a.databricks.com"


def test_no_secret_is_in_the_frames_of_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "canary-secret")
    with pytest.raises(ConfigError) as caught:
        LakebaseConfig.from_env(endpoint="wrong", token="canary-secret", azure_client_secret="canary-secret")
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [frame for frame in frames.stack if "lakebase_provider" in frame.filename]
    assert ours
    assert "canary-secret" not in str([frame.locals for frame in ours])


def test_a_lifetime_does_not_go_with_an_instance() -> None:
    config = LakebaseConfig.from_env(WORKSPACE, instance="i", credential_ttl=600)
    with pytest.raises(ConfigError, match="'credential_ttl' is set together with 'instance'"):
        LakebaseClient(config)


def test_pgpassword_is_ignored_with_oauth() -> None:
    assert LakebaseConfig.from_env({"ENDPOINT_NAME": ENDPOINT, "PGPASSWORD": "p"}).password is None
    native = LakebaseConfig.from_env(
        {"LAKEBASE_AUTH": "password", "PGPASSWORD": "p", "PGUSER": "u", "PGHOST": "localhost"}
    )
    assert native.password is not None
