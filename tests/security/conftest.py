"""What tests of secrets share."""

from __future__ import annotations

import weakref

import pytest

from lakebase_provider.core.errors import redaction


@pytest.fixture
def no_secrets_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret is struck out that another test has left alive, whose text may be any word."""
    monkeypatch.setattr(redaction, "_alive", weakref.WeakValueDictionary())
    redaction._made[0] += 1
