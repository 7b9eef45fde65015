"""A local Lakebase that one file of tests has for itself.

Tests of what is said about a whole database or server import its fixture, and so meet nothing that other
tests have left there.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lakebase_provider.local import LocalLakebase


@pytest.fixture(scope="module")
def lakebase_server() -> Iterator[LocalLakebase]:
    """Takes the place of the server that all tests of the session share."""
    with LocalLakebase() as lake:
        yield lake
