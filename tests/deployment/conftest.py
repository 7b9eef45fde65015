"""Tests that start whole deployments; they run with `make test-deployment` alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.ui.conftest import picture as picture


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = f"{Path(__file__).parent}{os.sep}"  # texts, for there are ten thousand items
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.deployment)
