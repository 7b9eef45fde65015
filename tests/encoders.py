"""Python rows of a load are encoded by psycopg or by Arrow, depending on how many they are: tests choose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from lakebase_provider.core.bulk.encode import encoder
from lakebase_provider.core.bulk.types import arrow

#: The last is by Arrow in a process that has not imported pandas.
ENCODERS = ("psycopg", "Arrow", "Arrow alone")


@contextmanager
def encoded_by(name: str) -> Iterator[None]:
    """Have one of :data:`ENCODERS` encode the rows, however many there are."""
    limit = 10**9 if name == "psycopg" else -1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "_FEW", limit)
        patch.setattr(encoder, "_IMPORT_AFTER", limit)
        if name == "Arrow alone":
            patch.setattr(arrow, "sys", SimpleNamespace(modules={}))
        yield
