"""Rows that are kept as text, and compared by key with what a table holds later."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg import IsolationLevel

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.database.catalog import TableName, read_table
from lakebase_provider.core.database.rows.kept_rows import (
    KeptRows,
    Selection,
    as_text,
    compare,
    differing_parts,
    fetch,
    keep,
    key_columns,
)
from lakebase_provider.core.database.rows.row_diff import RowDiff
from lakebase_provider.core.errors import ConfigError

TABLE = """
CREATE TABLE "Odd t" (a int, "b c" text, v float8, at timestamptz, raw bytea, PRIMARY KEY (a, "b c"));
INSERT INTO "Odd t" SELECT n % 10, 'x, "' || n, n / 3.0, now(), '\\x00ff' FROM generate_series(1, 100) n
"""


@pytest.fixture
def session(client: LakebaseClient) -> Iterator[LakebaseConnection]:
    with client.connect(autocommit=True) as connection:
        connection.execute(TABLE)
        yield connection


def selected(connection: LakebaseConnection, *keys: str, where: str | None = None) -> Selection:
    table = read_table(connection, TableName("Odd t"))
    columns = tuple(column.name for column in table.columns)
    return Selection(table, key_columns(table, keys), columns, where)


def compared(connection: LakebaseConnection, kept: KeptRows, now: Selection, examples: int = 9) -> RowDiff:
    with as_text(connection):
        return compare(connection, kept, now, examples=examples).diff


def test_rows_are_compared_by_key(session: LakebaseConnection) -> None:
    kept = keep(session, selected(session))
    assert kept.rows == 100
    # How values are written is the session's own affair.
    session.execute("SET DateStyle = 'SQL, DMY'; SET bytea_output = escape; SET extra_float_digits = -5")
    assert compared(session, kept, selected(session)).is_empty
    session.execute(
        """UPDATE "Odd t" SET v = NULL WHERE a = 1 AND "b c" LIKE '%"1';
        DELETE FROM "Odd t" WHERE a = 2; INSERT INTO "Odd t" (a, "b c") VALUES (11, '');
        ALTER TABLE "Odd t" DROP raw, ADD note text"""
    )
    found = compared(session, kept, selected(session), examples=1)
    assert (found.rows_before, found.added, found.changed, found.removed) == (100, 1, 1, 10)
    assert found.not_compared == ("note", "raw")
    added, changed, removed = found.examples
    assert added.after == {"a": "11", "b c": "", "v": None, "at": None}
    assert changed.key == {"a": "1", "b c": 'x, "1'}
    assert (changed.before, changed.after) == ({"v": "0.3333333333333333"}, {"v": None})
    assert removed.key["a"] == "2"
    assert removed.after is None
    assert '| changed a = `1`, b c = `x, "1` | v = `0.3333333333333333` | v = NULL |' in found.to_markdown()
    assert compared(session, kept, selected(session), examples=0).examples == ()


def test_keys_must_tell_rows_apart(session: LakebaseConnection) -> None:
    with pytest.raises(ConfigError, match=r"Several rows of public\.Odd t have the same a"):
        keep(session, selected(session, "a"))
    kept = keep(session, selected(session, "b c"))
    session.execute("""UPDATE "Odd t" SET "b c" = 'same' WHERE v < 1""")
    with pytest.raises(ConfigError, match="have the same b c"):
        compared(session, kept, selected(session, "b c"))
    with pytest.raises(ConfigError, match="no column 'z'"):
        selected(session, "z")
    session.execute('ALTER TABLE "Odd t" DROP CONSTRAINT "Odd t_pkey"')
    with pytest.raises(ConfigError, match="has no primary key"):
        selected(session)


def test_only_parts_that_differ_are_fetched(session: LakebaseConnection, client: LakebaseClient) -> None:
    with client.connect(autocommit=True) as other:
        other.isolation_level = IsolationLevel.REPEATABLE_READ
        everything = selected(session, where="a < 9 -- all but some")
        with as_text(other):
            assert differing_parts((other, everything), (other, everything)) == ()
            session.execute('DELETE FROM "Odd t" WHERE a IN (3, 9)')
            with as_text(session):
                parts = differing_parts((other, everything), (session, everything))
            assert 1 <= len(parts) <= 10
            some = Selection(everything.table, everything.keys, everything.columns, everything.where, parts)
            kept = fetch(session, some, other)
        assert kept.rows >= 10
        assert compared(session, kept, some).removed == 10
