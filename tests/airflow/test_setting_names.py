"""Airflow hides what is stored under a name that sounds like a secret, its own forms' defaults included."""

from __future__ import annotations

import pytest
from airflow.sdk.log import redact

from lakebase_provider.core.config import settings
from lakebase_provider.core.config.field import Setting


@pytest.mark.parametrize("row", settings(), ids=lambda row: row.name)
def test_airflow_hides_the_secret_settings_and_these_alone(row: Setting) -> None:
    # A setting by the name token_store was stored as three asterisks: the form got its default masked.
    hidden = redact({row.name: "some value"})[row.name] != "some value"
    assert hidden == (row.kind == "secret")
