"""Files of migrations as text: their names, what is refused in them, what runs outside of a transaction."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lakebase_provider.core.errors import ConfigError, MigrationError
from lakebase_provider.core.upkeep.migrations.sql_folder import read_folder
from lakebase_provider.core.upkeep.migrations.statement_kinds import Concurrent, Statement


def statement(text: str) -> Statement:
    return Statement.of(1, text, 1)


def refused(folder: Path) -> MigrationError:
    with pytest.raises(MigrationError) as caught:
        read_folder(folder)
    return caught.value


def test_files_come_in_the_order_of_their_versions(tmp_path: Path) -> None:
    for name in ("0009_a.sql", "V10__b-c.d.sql", "20240501120000_later.sql", "20230101000000_e.sql"):
        (tmp_path / name).write_text("SELECT 1")
    for name in (".hidden", "README.md"):
        (tmp_path / name).write_text("not SQL")
    assert [file.version for file in read_folder(tmp_path)] == [9, 10, 20230101000000, 20240501120000]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("orders.sql", b"SELECT 1", "orders.sql: this is not a name of a file of migrations"),
        ("0002_b.sql~", b"SELECT 1", "0002_b.sql~: this is not a name"),
        ("V1.1__b.sql", b"SELECT 1", "V1.1__b.sql: this is not a name"),
        ("01_b.sql", b"SELECT 1", "01_b.sql: its version 1 is that of 0001_a.sql, too"),
        ("0003_b.sql", b"SELECT 1", "0003_b.sql: version 2 is missing between 0001_a.sql and this"),
        ("0002_b.sql", b" \n-- nothing\n;", "0002_b.sql: there is no statement in it"),
        ("0002_b.sql", b"SELECT 1;\nSELECT '\xff'", "0002_b.sql:2: byte 19 is not UTF-8"),
        ("0002_b.sql", b"SELECT 1;\n\nSELECT 'a;\n", "0002_b.sql:3: the quote or comment that begins here"),
        ("0002_b.sql", b"SELECT 1;\n/* a /* b */\n", "0002_b.sql:2: the quote or comment that begins"),
        ("0002_b.sql", b"SELECT 1;\n\\set x 1\n", "0002_b.sql:2: a backslash is a command of psql"),
        ("0002_b.sql", b"SELECT '\0'", "0002_b.sql:1: there is a NUL character"),
        ("0002_b.sql", b"\nBEGIN;\nSELECT 1;\nCOMMIT", "0002_b.sql:2: BEGIN has no place here"),
        ("0002_b.sql", b"SELECT 1;\n-- why\nrollback", "0002_b.sql:3: ROLLBACK has no place here"),
        ("0002_b.sql", b"SELECT 1; Start Transaction", "0002_b.sql:1: START has no place here"),
        ("0002_b.sql", b"PREPARE TRANSACTION 'x'", "0002_b.sql:1: PREPARE has no place here"),
        ("0002_b.sql", b"DISCARD ALL", "0002_b.sql:1: DISCARD ALL would release the lock"),
        ("0002_b.sql", b"SELECT pg_advisory_unlock_all()", "0002_b.sql:1: pg_advisory_unlock_all would"),
        ("0002_b.sql", b"VACUUM;\nSET LOCAL work_mem = '1MB'", "0002_b.sql:2: SET LOCAL has no effect here"),
        (
            "0002_b.sql",
            b"SET CONSTRAINTS ALL DEFERRED; VACUUM",
            "0002_b.sql:1: SET CONSTRAINTS has no effect",
        ),
        ("0002_b.sql", b"LOCK t; VACUUM", "0002_b.sql:1: LOCK has no effect here"),
        (
            "0002_b.sql",
            b"SELECT pg_catalog.set_config('search_path', 'x', false); VACUUM",
            "0002_b.sql:1: set_config has no effect here",
        ),
        ("0002_b.sql", b"COPY t (a)\nFROM stdin;\n\\N\n\\.\n", "0002_b.sql:1: COPY from or to the client"),
        (
            "0002_b.sql",
            b"SELECT 1;\n-- migrate:down\nSELECT 2",
            "0002_b.sql:2: this is a mark of another tool",
        ),
        ("0002_b.sql", b"-- +goose Up\nSELECT 1", "0002_b.sql:1: this is a mark of another tool"),
        ("0002_b.sql", b"--+migrate Down\nSELECT 1", "0002_b.sql:1: this is a mark of another tool"),
        ("0002_b.sql", b"-- Down Migration\nSELECT 1", "0002_b.sql:1: this is a mark of another tool"),
        ("0002_b.sql", b"CREATE INDEX CONCURRENTLY ON t (a)", "0002_b.sql:1: an index that is built"),
    ],
)
def test_what_is_no_file_of_migrations_is_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / "0001_a.sql").write_text("SELECT 1")
    (tmp_path / name).write_bytes(content)
    error = refused(tmp_path)
    assert message in error.message
    assert error.file == name


def test_each_file_that_is_refused_is_named(tmp_path: Path) -> None:
    for name in ("a.sql", "0001_b.sql", "0003_c.sql"):
        (tmp_path / name).write_text("COMMIT")
    assert all(name in refused(tmp_path).message for name in ("a.sql", "0001_b.sql:1", "0003_c.sql:1"))
    (tmp_path / "sub").mkdir()
    assert "sub: this is not a name" in refused(tmp_path).message


@pytest.mark.parametrize(
    "links_to", ["/etc/passwd", "/dev/zero", "../outside.sql", "0001_a.sql", "absent.sql"]
)
def test_a_link_out_of_the_folder_or_to_nothing_is_not_read(links_to: str, tmp_path: Path) -> None:
    (tmp_path / "outside.sql").write_text("SELECT 1")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "0001_a.sql").symlink_to(links_to)
    message = refused(folder).message
    assert message.startswith("0001_a.sql: it ")
    assert ("it is a link out of the folder" in message) == ("/" in links_to)


def test_what_is_not_a_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0001_a.sql")
    (tmp_path / "0002_b.sql").mkdir()
    message = refused(tmp_path).message
    assert all(what in message for what in ("is a named pipe", "is a folder"))


def test_links_within_the_folder_are_files_as_kubernetes_mounts_them(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "0001_a.sql").write_text("SELECT 1")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "0001_a.sql").symlink_to("..data/0001_a.sql")
    assert [file.text for file in read_folder(tmp_path)] == ["SELECT 1"]


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_folder(tmp_path / "absent")


def test_line_ends_and_a_byte_order_mark_are_not_content(tmp_path: Path) -> None:
    texts = [b"SELECT 1;\nSELECT 2\n", b"SELECT 1;\r\nSELECT 2\r\n", b"\xef\xbb\xbfSELECT 1;\rSELECT 2\r"]
    for at, text in enumerate(texts, 1):
        (tmp_path / f"{at}_a.sql").write_bytes(text)
    files = read_folder(tmp_path)
    assert len({file.checksum for file in files}) == 1
    assert [statement.line for statement in files[2].statements] == [1, 2]


@pytest.mark.parametrize(
    "text",
    [
        "create /* x */ unique index concurrently i on t (a)",
        "-- why\nDROP INDEX CONCURRENTLY IF EXISTS i",
        "REINDEX (VERBOSE, CONCURRENTLY) TABLE t",
        "REINDEX INDEX CONCURRENTLY i",
        "REINDEX SCHEMA s",
        "VACUUM (ANALYZE) t",
        "ALTER SYSTEM SET work_mem = '1MB'",
        "CREATE DATABASE x",
        "ALTER DATABASE x SET TABLESPACE y",
        "ALTER SUBSCRIPTION s ADD PUBLICATION p",
        "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p",
        "ALTER TABLE p DETACH PARTITION q CONCURRENTLY",
        "CLUSTER VERBOSE",
    ],
)
def test_what_cannot_run_in_a_transaction(text: str) -> None:
    assert statement(text).outside


@pytest.mark.parametrize(
    "text",
    [
        "CREATE INDEX i ON t (a) -- CONCURRENTLY",
        "CREATE INDEX concurrently_not ON t (a)",
        'CREATE INDEX "CONCURRENTLY" ON t (a)',
        "SELECT 'CREATE INDEX CONCURRENTLY i ON t (a)'",
        "DO $$ BEGIN RAISE 'VACUUM'; END $$",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY v",
        "REINDEX (CONCURRENTLY false) TABLE t",
        "REINDEX TABLE t",
        "CLUSTER t",
        "ALTER TABLE p DETACH PARTITION q",
        "ALTER TYPE mood ADD VALUE 'sad'",
        "ALTER DATABASE x SET work_mem = '1MB'",
        "CREATE FUNCTION vacuum() RETURNS int BEGIN ATOMIC SELECT 1; END",
        "PREPARE x AS SELECT 1",
    ],
)
def test_what_can(text: str) -> None:
    assert not statement(text).outside
    assert statement(text).refusal() is None


@pytest.mark.parametrize(
    ("text", "change"),
    [
        (
            'CREATE INDEX CONCURRENTLY IF NOT EXISTS "I" ON ONLY s."T" (a)',
            Concurrent("build", 's."T"', '"I"'),
        ),
        ("DROP INDEX CONCURRENTLY IF EXISTS s.i", Concurrent("drop", "s.i")),
        ("REINDEX (CONCURRENTLY) INDEX s.i", Concurrent("rebuild", "s.i", "INDEX")),
        ("REINDEX SCHEMA CONCURRENTLY s", Concurrent("rebuild", "s", "SCHEMA")),
        ("ALTER TABLE ONLY p DETACH PARTITION s.q CONCURRENTLY", Concurrent("detach", "p", "s.q")),
    ],
)
def test_what_is_changed_concurrently(text: str, change: Concurrent) -> None:
    assert statement(text).concurrent == change


def test_a_label_is_committed_before_it_is_used(tmp_path: Path) -> None:
    add = "ALTER TYPE mood ADD VALUE 'sad' BEFORE 'ok';\n"
    texts = [add, f"{add}INSERT INTO t VALUES ('ok')", f"{add}SELECT $$ sad $$", f"{add}SELECT 'sad'"]
    escaped = add.replace("'sad'", "E'sad'")
    texts += [f"{add}SELECT 'sadly, unsad'", f"{escaped}SELECT 'sad'"]
    for at, text in enumerate(texts, 1):
        (tmp_path / f"{at}_a.sql").write_text(text)
    assert [file.in_transaction for file in read_folder(tmp_path)] == [True, True, False, False, True, False]


def test_the_title_of_a_statement_holds_no_values() -> None:
    said = {
        "INSERT INTO secrets VALUES ('x')": "INSERT INTO",
        "ALTER ROLE \"x\" PASSWORD 'y'": "ALTER ROLE",
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'": "CREATE OR REPLACE",
        "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)": "CREATE UNIQUE INDEX CONCURRENTLY",
        "(SELECT 1)": "statement",
    }
    assert {text: statement(text).title for text in said} == said
