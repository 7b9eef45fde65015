from __future__ import annotations

from collections.abc import Iterator

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.core.fake_clock import FakeClock

_EMPTY = """
DO $$
DECLARE o record;
BEGIN
    FOR o IN SELECT relname AS name FROM pg_class
             WHERE relnamespace = 'public'::regnamespace AND relowner = current_user::regrole
                 AND relkind IN ('r', 'p') AND NOT relispartition LOOP
        EXECUTE format('DROP TABLE IF EXISTS public.%I CASCADE', o.name);
    END LOOP;
    FOR o IN SELECT nspname AS name FROM pg_namespace
             WHERE nspowner = current_user::regrole AND nspname <> 'public' AND nspname NOT LIKE 'pg\\_%' LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', o.name);
    END LOOP;
END $$
"""


def empty_database(client: LakebaseClient) -> None:
    """Remove what earlier tests have left."""
    with client.connection() as connection:
        connection.execute(_EMPTY)


@pytest.fixture
def client(lakebase_env: LocalLakebase) -> Iterator[LakebaseClient]:
    """A client of a database without tables of its own."""
    with LakebaseClient(lakebase_env.config()) as client:
        empty_database(client)
        yield client


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
