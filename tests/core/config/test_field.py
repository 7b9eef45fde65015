from __future__ import annotations

import pytest

from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.config import setting, settings
from lakebase_provider.core.errors import ConfigError


def test_a_secret_is_a_password_field() -> None:
    assert setting("client_secret").json_schema() == {"type": ["string", "null"], "format": "password"}


def test_limits_and_choices_are_in_the_schema_and_the_default_in_the_help() -> None:
    assert setting("port").json_schema() == {
        "type": ["integer", "null"],
        "minimum": 1,
        "maximum": 65535,
    }
    assert setting("port").help() == "Port of the database. Left blank: 5432."
    schema = setting("sslmode").json_schema()
    assert schema["enum"] == ["verify-full", "verify-ca", "require"]
    assert setting("sslmode").help().endswith("Left blank: the deployment's, or else verify-full.")


def test_a_form_has_no_default_that_it_would_store() -> None:
    for row in settings():
        schema = row.json_schema()
        assert schema["type"][1] == "null"
        assert "default" not in schema
        assert row.help().startswith(row.description)
        if row.default is not None:
            assert row.parse(str(row.default)) == row.default


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("database", 7, "must be text, not int"),
        ("port", "70000", "is 70000"),
        ("credential_ttl", 30, "is 30"),
        ("connect_budget", "inf", "is inf"),
        ("max_size", [], "must be a whole number, not list"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(name: str, value: object, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        setting(name).parse(value)
    assert f"'{name}' {problem}" in caught.value.message


def test_a_parsed_secret_stays_opaque() -> None:
    secret = Secret("canary")
    assert setting("token").parse(secret) is secret
    assert f"{secret}{secret!r}" == "***Secret('***')"
