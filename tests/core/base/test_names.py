from __future__ import annotations

import contextlib
from typing import Any

import pytest
from psycopg import sql

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.database.catalog import TableName
from lakebase_provider.core.errors import ConfigError, LakebaseError
from tests.core.bulk.sample_tables import counts, run

HOSTILE = [
    'quo"te', "hy-phen", "Upper Case", "select", "do.t", "semi;colon", "per%cent", "brace{}", "back\\slash",
    "new\nline", "ünïcödé", "'single'", "x" * 63, "%s", "a,b",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_work_everywhere(client: LakebaseClient, name: str) -> None:
    table, key = TableName(name, f"s{name}"[:63]), f"k{name}"[:63]
    run(client, sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(table.schema or "")))
    rows = [{key: 1, name: "a"}, {key: 2, name: "b"}]
    options: dict[str, Any] = {"load_id": name, "ledger_schema": table.schema}
    created = client.load(rows, table, mode="merge", keys=[key], create=True, **options)
    assert counts(created) == (2, 0, 0, 0)
    assert client.load(rows, str(table), **options).skipped
    merged = client.load([{key: 1, name: "c"}], str(table), mode="merge", keys=[key], version_column=key)
    assert counts(merged) == (0, 1, 0, 0)
    missing = client.load([{key: 1, name: "c"}], table, mode="merge", delete="missing", where={key: 2})
    assert counts(missing) == (0, 0, 1, 1)
    assert counts(client.load([(5, "e")], table, columns=[key, name])) == (1, 0, 0, 0)
    sliced = client.load([(6, "f")], table, columns=[key, name], mode="replace", where={name: "e"})
    assert counts(sliced) == (1, 0, 1, 0)
    assert counts(client.load(rows, table, mode="replace")) == (2, 0, 2, 0)
    rejects = TableName(f"r{name}"[:63], table.schema)
    rejected = client.load(
        [{key: 9, name: "a\0b"}, {key: 8, name: "h"}], table, on_error="reject", reject_to=rejects
    )
    assert (rejected.rows, rejected.rejected) == (1, 1)
    found = run(client, sql.SQL("SELECT * FROM {} ORDER BY 1").format(table.sql()))
    assert found == [(1, "a"), (2, "b"), (8, "h")]
    assert run(client, sql.SQL("SELECT column_name, load_id FROM {}").format(rejects.sql())) == [(name, None)]


INJECTION = 'x"; CREATE TABLE injected (id int); --'


@pytest.mark.parametrize(
    ("table", "options"),
    [
        (INJECTION, {}),
        (f"public.{INJECTION}", {}),
        (f'"{INJECTION}', {}),
        (("public", INJECTION), {}),
        ((INJECTION, "t"), {}),
        ("t", {"columns": [INJECTION, "v"]}),
        ("t", {"mode": "merge", "keys": [INJECTION]}),
        ("t", {"mode": "merge", "keys": ["id"], "version_column": INJECTION}),
        ("t", {"mode": "replace", "where": {INJECTION: 1}}),
        ("t", {"mode": "replace", "where": {"v": f"' OR true; {INJECTION}"}}),
        ("t", {"mode": "replace", "where": ("v = %s", [f"' OR true; {INJECTION}"])}),
        ("t", {"load_id": f"'; {INJECTION}"}),
        ("t", {"load_id": "x", "ledger_schema": INJECTION}),
        ("t", {"on_error": "reject", "reject_to": INJECTION}),
    ],
)
def test_an_injection_creates_nothing(client: LakebaseClient, table: Any, options: dict[str, Any]) -> None:
    run(client, "CREATE TABLE t (id int, v text)")
    run(client, "INSERT INTO t VALUES (1, 'old')")
    for more in ({}, {"create": True}):
        with contextlib.suppress(LakebaseError):
            client.load([(2, "new")], table, **options, **more)
    assert run(client, "SELECT to_regclass('injected')") == [(None,)]
    assert (1, "old") in run(client, "SELECT id, v FROM t")


@pytest.mark.parametrize(
    "options",
    [
        {"table": "x" * 64},
        {"table": ("s", "ü" * 32)},
        {"columns": ["ü" * 32]},
        {"mode": "merge", "keys": ["x" * 64]},
        {"load_id": "x", "ledger_schema": "x" * 64},
        {"on_error": "reject", "reject_to": "x" * 64},
    ],
)
def test_names_that_would_be_cut_off_are_refused(client: LakebaseClient, options: dict[str, Any]) -> None:
    run(client, "CREATE TABLE t (id int)")
    with pytest.raises(ConfigError, match="would cut it off at 63"):
        client.load([(1,)], options.pop("table", "t"), **options)
    with pytest.raises(ConfigError, match="would cut it off at 63"):
        client.load([{"x" * 64: 1}], "new", create=True)
