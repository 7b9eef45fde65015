from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lakebase_provider.core import LakebaseClient
from tests.core.upkeep.migrations.conftest import Database as Rows

LEFT = """
SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE NOT i.indisvalid
UNION ALL SELECT c.relname FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid WHERE h.inhdetachpending
UNION ALL SELECT c.relname FROM pg_description d JOIN pg_class c ON c.oid = d.objoid
    WHERE d.description LIKE '{"lakebase_retired"%'
UNION ALL SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relname ~ '_p[0-9]{4}_[0-9]{2}' AND c.relkind = 'r'
        AND NOT c.relispartition
"""


class Database(Rows):
    """What tests look at, by sessions of their own."""

    def indexes(self, table: str) -> list[str]:
        """Names of a table's valid indexes."""
        query = "SELECT indexrelid::regclass FROM pg_index WHERE indisvalid AND indrelid = '{}'::regclass"
        return sorted(name for (name,) in self.rows(query.format(table)))

    def partitions(self, table: str) -> list[str]:
        """Names of a table's partitions."""
        query = "SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = '{}'::regclass"
        return sorted(name for (name,) in self.rows(query.format(table)))

    def left(self) -> list[str]:
        """What a killed run has left: invalid indexes, and partitions that are half retired."""
        return sorted(name for (name,) in self.rows(LEFT))

    @contextmanager
    def holding(self, statement: str) -> Iterator[int]:
        """A transaction of somebody else, in which a statement has run; its backend's process id."""
        with self.client.connect() as connection:
            connection.execute(statement.encode())
            yield connection.info.backend_pid


@pytest.fixture
def database(client: LakebaseClient) -> Database:
    found = Database(client)
    found.rows("CREATE TABLE orders (id bigint PRIMARY KEY, day date, total int)")
    found.rows("INSERT INTO orders SELECT n, date '2027-01-01' + n % 28, n FROM generate_series(1, 2000) n")
    return found
