from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.upkeep.migrations.migrations import Migrations
from tests.core.fake_clock import FakeClock

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes files of a folder, by their names without the suffix, and returns the folder."""

    def write(**files: str) -> Path:
        for name, text in files.items():
            (tmp_path / f"{name}.sql").write_text(text)
        return tmp_path

    return write


class Database:
    """What tests look at, by sessions of their own."""

    def __init__(self, client: LakebaseClient) -> None:
        self.client = client

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.client.connect(autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def waits(self) -> bool:
        """Whether a session of this database waits for a lock."""
        [[found]] = self.rows("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
        return bool(found)


@pytest.fixture
def database(client: LakebaseClient) -> Database:
    found = Database(client)
    found.rows("CREATE TABLE log (what text)")
    return found


@pytest.fixture
def patient(client: LakebaseClient, clock: FakeClock) -> Migrations:
    """A client's migrations, whose pauses take no time."""
    return Migrations(client.config, client.connect, client.target, client.tokens, clock)
