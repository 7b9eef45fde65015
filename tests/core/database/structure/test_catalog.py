"""Dumps of what stands in a database, and how two of them differ."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakebase_provider.core import CatalogDump, LakebaseClient
from lakebase_provider.core.database.structure.catalog_diff import diff
from lakebase_provider.core.database.structure.catalog_dump import dump_catalog
from lakebase_provider.core.database.structure.catalog_queries import QUERIES
from lakebase_provider.core.errors import TransactionConflictError
from lakebase_provider.core.upkeep.migrations.migrations import LEDGER
from lakebase_provider.local import LocalLakebase

BASE = """
CREATE SCHEMA zoo;
CREATE TABLE zoo.animal (id int PRIMARY KEY, name text NOT NULL, born date);
CREATE SEQUENCE zoo.counter;
CREATE TYPE zoo.mood AS ENUM ('ok', 'sad');
CREATE FUNCTION zoo.twice(n int) RETURNS int LANGUAGE sql AS 'SELECT n * 2';
CREATE FUNCTION zoo.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
CREATE VIEW zoo.names AS SELECT name FROM zoo.animal;
"""
#: What can be done to it, and what undoes that.
CHANGES = [
    ("CREATE SCHEMA farm", "DROP SCHEMA farm"),
    ("CREATE TABLE zoo.cage (id int PRIMARY KEY)", "DROP TABLE zoo.cage"),
    ("CREATE UNLOGGED TABLE zoo.tmp ()", "DROP TABLE zoo.tmp"),
    ("ALTER TABLE zoo.animal ADD legs int DEFAULT 4", "ALTER TABLE zoo.animal DROP legs"),
    ("ALTER TABLE zoo.animal ADD n int GENERATED ALWAYS AS IDENTITY", "ALTER TABLE zoo.animal DROP n"),
    (
        "ALTER TABLE zoo.animal ADD g text GENERATED ALWAYS AS (name || 'x') STORED",
        "ALTER TABLE zoo.animal DROP g",
    ),
    ("ALTER TABLE zoo.animal ALTER born SET NOT NULL", "ALTER TABLE zoo.animal ALTER born DROP NOT NULL"),
    ("ALTER TABLE zoo.animal ALTER born SET DEFAULT now()", "ALTER TABLE zoo.animal ALTER born DROP DEFAULT"),
    ("ALTER TABLE zoo.animal ADD CONSTRAINT c CHECK (id > 0)", "ALTER TABLE zoo.animal DROP CONSTRAINT c"),
    ("ALTER TABLE zoo.animal SET (fillfactor = 70)", "ALTER TABLE zoo.animal RESET (fillfactor)"),
    ("ALTER TABLE zoo.animal ENABLE ROW LEVEL SECURITY", "ALTER TABLE zoo.animal DISABLE ROW LEVEL SECURITY"),
    ("ALTER TABLE zoo.animal REPLICA IDENTITY FULL", "ALTER TABLE zoo.animal REPLICA IDENTITY DEFAULT"),
    ("CREATE INDEX i ON zoo.animal (lower(name)) WHERE id > 5", "DROP INDEX zoo.i"),
    ("CREATE STATISTICS zoo.s ON id, born FROM zoo.animal", "DROP STATISTICS zoo.s"),
    ("CREATE POLICY p ON zoo.animal FOR SELECT USING (id > 1)", "DROP POLICY p ON zoo.animal"),
    (
        "CREATE TRIGGER t BEFORE UPDATE ON zoo.animal FOR EACH ROW EXECUTE FUNCTION zoo.touch()",
        "DROP TRIGGER t ON zoo.animal",
    ),
    ("CREATE RULE r AS ON DELETE TO zoo.animal DO INSTEAD NOTHING", "DROP RULE r ON zoo.animal"),
    ("CREATE MATERIALIZED VIEW zoo.m AS SELECT 1 AS a", "DROP MATERIALIZED VIEW zoo.m"),
    ("CREATE OR REPLACE VIEW zoo.v AS SELECT zoo.twice(1) AS two", "DROP VIEW zoo.v"),
    ("CREATE DOMAIN zoo.positive AS int CHECK (value > 0)", "DROP DOMAIN zoo.positive"),
    ("CREATE TYPE zoo.pair AS (a int, b text)", "DROP TYPE zoo.pair"),
    ("CREATE TYPE zoo.span AS RANGE (SUBTYPE = int)", "DROP TYPE zoo.span"),
    ("ALTER SEQUENCE zoo.counter INCREMENT 5 CYCLE", "ALTER SEQUENCE zoo.counter INCREMENT 1 NO CYCLE"),
    ("CREATE PROCEDURE zoo.p() LANGUAGE sql AS 'SELECT 1'", "DROP PROCEDURE zoo.p()"),
    (
        "CREATE AGGREGATE zoo.total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0')",
        "DROP AGGREGATE zoo.total(int)",
    ),
    ("GRANT SELECT ON zoo.animal TO PUBLIC", "REVOKE SELECT ON zoo.animal FROM PUBLIC"),
    ("GRANT UPDATE (name) ON zoo.animal TO PUBLIC", "REVOKE UPDATE (name) ON zoo.animal FROM PUBLIC"),
    ("GRANT USAGE ON SCHEMA zoo TO PUBLIC", "REVOKE USAGE ON SCHEMA zoo FROM PUBLIC"),
    ("REVOKE EXECUTE ON FUNCTION zoo.twice FROM PUBLIC", "GRANT EXECUTE ON FUNCTION zoo.twice TO PUBLIC"),
    (
        "ALTER DEFAULT PRIVILEGES IN SCHEMA zoo GRANT SELECT ON TABLES TO PUBLIC",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA zoo REVOKE SELECT ON TABLES FROM PUBLIC",
    ),
    ("REVOKE ALL ON zoo.animal FROM CURRENT_USER", "GRANT ALL ON zoo.animal TO CURRENT_USER"),
    (
        "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC, CURRENT_USER",
        "ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC, CURRENT_USER",
    ),
    ("COMMENT ON COLUMN zoo.animal.name IS 'its name'", "COMMENT ON COLUMN zoo.animal.name IS NULL"),
    ("COMMENT ON SCHEMA zoo IS 'x'", "COMMENT ON SCHEMA zoo IS NULL"),
    ("COMMENT ON FUNCTION zoo.twice IS 'x'", "COMMENT ON FUNCTION zoo.twice IS NULL"),
]


def run(client: LakebaseClient, *statements: str) -> None:
    with client.connect(autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@pytest.fixture
def zoo(client: LakebaseClient) -> Iterator[LakebaseClient]:
    run(client, "DROP SCHEMA IF EXISTS zoo CASCADE", BASE)
    yield client
    run(client, "DROP SCHEMA zoo CASCADE", "DROP SCHEMA IF EXISTS farm")


@pytest.mark.parametrize(("change", "undo"), CHANGES, ids=[change for change, _ in CHANGES])
def test_each_change_is_seen_and_each_undoing_of_it(zoo: LakebaseClient, change: str, undo: str) -> None:
    before = zoo.migrations.dump()
    run(zoo, change)
    assert zoo.migrations.diff(before).to_markdown() != "No differences.\n"
    run(zoo, undo)
    assert zoo.migrations.dump() == before


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(chosen=st.lists(st.sampled_from(CHANGES), unique=True, max_size=8))
def test_changes_in_any_order_and_what_undoes_them_leave_the_same_dump(
    zoo: LakebaseClient, chosen: list[tuple[str, str]]
) -> None:
    before = zoo.migrations.dump()
    run(zoo, *(change for change, _ in chosen))
    changed = zoo.migrations.dump()
    assert changed == zoo.migrations.dump()
    assert diff(before, changed).is_empty == (not chosen)
    run(zoo, *(undo for _, undo in reversed(chosen)))
    assert zoo.migrations.dump() == before


def test_a_dump_does_not_depend_on_the_session_or_the_order_of_options(zoo: LakebaseClient) -> None:
    run(
        zoo,
        "CREATE TABLE zoo.t (at timestamptz DEFAULT '2027-01-31 12:00+00', span interval DEFAULT '1 day 2 h',"
        " raw bytea DEFAULT 'a', CHECK (at > '2027-01-01 12:00+00'))"
        " WITH (fillfactor = 70, parallel_workers = 2)",
    )
    before = zoo.migrations.dump()
    settings = (
        "SET timezone TO 'Asia/Tokyo'; SET datestyle TO 'SQL, DMY'; SET intervalstyle TO iso_8601;"
        " SET bytea_output TO escape; SET quote_all_identifiers TO on"
    )
    with zoo.connect(autocommit=True) as connection:
        connection.execute(settings)
        assert dump_catalog(connection, leave_out=[LEDGER]) == before
    run(zoo, "ALTER TABLE zoo.t RESET (fillfactor)", "ALTER TABLE zoo.t SET (fillfactor = 70)")
    assert zoo.migrations.dump() == before


@pytest.mark.parametrize("query", ["SELECT 'a', 'b', NULL", "SELECT FROM gone"])
def test_what_others_drop_meanwhile_is_no_fault_of_the_dump(
    zoo: LakebaseClient, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.setitem(QUERIES, "gone", query)
    with pytest.raises(TransactionConflictError, match="in 3 attempts") as caught:
        zoo.migrations.dump()
    assert caught.value.retryable


def test_a_branch_and_its_parent(zoo: LakebaseClient, lakebase_env: LocalLakebase) -> None:
    zoo.workspace.branches.create("ci-1", ttl=3600)
    zoo.branches.wait_ready("ci-1")
    with LakebaseClient(zoo.config.on_branch("ci-1")) as branch:
        parent = zoo.migrations.dump()
        assert branch.migrations.diff(parent).is_empty
        # What is made anew has another OID, and is the same.
        run(branch, "DROP VIEW zoo.names", "CREATE VIEW zoo.names AS SELECT name FROM zoo.animal")
        assert branch.migrations.diff(parent).is_empty
        run(
            branch,
            "ALTER TABLE zoo.animal ALTER id TYPE bigint",
            "DROP FUNCTION zoo.twice",
            "CREATE TABLE zoo.t ()",
        )
        found = branch.migrations.diff(parent)
    assert [(one.kind, one.name) for one in found.created] == [("table", "zoo.t")]
    assert [(one.kind, one.name) for one in found.removed] == [("function", "zoo.twice(integer)")]
    assert [(one.name, one.before, one.after) for one in found.changed] == [
        ("zoo.animal.id", "integer NOT NULL", "bigint NOT NULL")
    ]
    assert json.loads(json.dumps(found.to_dict()))["changed"][0]["kind"] == "column"
    assert CatalogDump.from_dict(json.loads(json.dumps(parent.to_dict()))) == parent


def test_markdown_holds_names_and_definitions_that_would_break_it(zoo: LakebaseClient) -> None:
    before = zoo.migrations.dump()
    odd = 'zoo."a`b ""c"" ```\n| d"'
    run(zoo, f"CREATE TABLE {odd} (n int)", f"COMMENT ON TABLE {odd} IS '````\n# no heading'")
    run(zoo, "ALTER TABLE zoo.animal ALTER born TYPE timestamptz")
    text = zoo.migrations.diff(before).to_markdown()
    assert '- table ```` zoo."a`b ""c"" ``` | d" ````\n' in text
    assert "  `````sql\n  ````\n  # no heading\n  `````\n" in text
    assert "- column `zoo.animal.born`\n\n  ```diff\n  -date\n  +timestamp with time zone\n  ```\n" in text
    assert not any(line.startswith("#") and not line.startswith("###") for line in text.splitlines())
    assert zoo.migrations.diff(before, before).to_markdown() == "No differences.\n"


def test_the_ledger_and_what_belongs_to_the_system_are_left_out(
    zoo: LakebaseClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("migrations")
    (folder / "0001_a.sql").write_text("SELECT 1")
    before = zoo.migrations.dump()
    zoo.migrations.run(folder)
    assert zoo.migrations.diff(before).is_empty
    assert not [one for one in before.objects if one.name.startswith(("pg_", "information_schema"))]


def test_what_belongs_to_an_extension_is_left_out(zoo: LakebaseClient, lakebase_env: LocalLakebase) -> None:
    before = zoo.migrations.dump()
    lakebase_env.admin.execute("CREATE EXTENSION vector SCHEMA public")
    try:
        found = zoo.migrations.diff(before)
    finally:
        lakebase_env.admin.execute("DROP EXTENSION vector")
    assert [(one.kind, one.name) for one in found.created] == [("extension", "vector")]
    assert not found.changed
    assert not found.removed
