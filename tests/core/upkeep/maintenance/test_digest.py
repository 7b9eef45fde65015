"""The digest of statements, on a server that counts them."""

from __future__ import annotations

import psycopg
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.upkeep.maintenance import statements_digest
from lakebase_provider.local import LocalLakebase


def test_what_the_server_counts_is_kept() -> None:
    with LocalLakebase() as lake, LakebaseClient(lake.config()) as client:
        dsn = f"{lake.superuser_dsn} dbname=databricks_postgres"
        with psycopg.connect(dsn, autocommit=True) as admin:
            [[there]] = admin.execute(
                "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements')"
            ).fetchall()
            if not there:
                # A wheel's Postgres may come without it, which Debian's has.
                pytest.skip("this Postgres has no pg_stat_statements")
            admin.execute("ALTER SYSTEM SET shared_preload_libraries = pg_stat_statements")
        lake.admin.crash_postgres()
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("CREATE EXTENSION pg_stat_statements")
        with client.connect(autocommit=True) as connection:
            for _ in range(3):
                connection.execute("SELECT 'dose-of-it' AS counted_here")
        report = client.maintenance.digest_statements("kept.statements", top=20)
        assert report.steps[0].target == "kept.statements"
        client.maintenance.digest_statements("kept.statements", top=20)
        with client.connection() as connection:
            rows = connection.execute(
                "SELECT query, calls, total_ms > 0 FROM kept.statements WHERE query LIKE '%counted_here%'"
            ).fetchall()
            assert rows == [("SELECT $1 AS counted_here", 3, True)] * 2
            [[texts]] = connection.execute("SELECT string_agg(query, ' ') FROM kept.statements").fetchall()
            assert "dose-of-it" not in texts
            connection.execute("UPDATE kept.statements SET taken_at = now() - interval '40 days'")
        report = client.maintenance.digest_statements("kept.statements", top=1, keep_days=30)
        assert report.steps[0].did.startswith("1 statements added, ")
        with client.connection() as connection:
            assert connection.execute("SELECT count(*) FROM kept.statements").fetchone() == (1,)


STAND_IN = """
CREATE SCHEMA stand_in;
CREATE VIEW stand_in.pg_stat_statements_info AS SELECT now() AS stats_reset;
CREATE VIEW stand_in.pg_stat_statements AS
    SELECT (SELECT oid FROM pg_roles WHERE rolname = current_user) AS userid,
        (SELECT oid FROM pg_database WHERE datname = current_database()) AS dbid, n AS queryid,
        CASE n WHEN 1 THEN 'SELECT $1' ELSE 'ALTER ROLE x PASSWORD ''dose-of-it''' END AS query, n AS calls,
        1.5::float8 * n AS total_exec_time, 1.5::float8 AS mean_exec_time, n AS rows, n AS shared_blks_hit,
        n AS shared_blks_read
    FROM generate_series(1::bigint, 2) AS n
"""


def test_of_what_may_hold_a_secret_the_first_word_is_kept(
    client: LakebaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, where the server has no such extension: views stand in for it."""
    monkeypatch.setattr(statements_digest, "_WHERE", "SELECT 'stand_in', %(name)s::text IS NOT NULL")
    with client.connection() as connection:
        connection.execute(STAND_IN)
    client.maintenance.digest_statements()
    with client.connection() as connection:
        rows = connection.execute("SELECT query, calls FROM lakebase_statements ORDER BY 2").fetchall()
    assert rows == [("SELECT $1", 1), ("ALTER", 2)]
