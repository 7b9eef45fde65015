"""What a server says, names and values in Markdown: no link, image or tag of theirs is one there."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from dagster_lakebase import LakebaseIOManager, LakebaseResource
from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.base.plain_text import cell, code, code_block, code_in_cell
from lakebase_provider.core.database.structure.catalog_diff import CatalogDiff
from lakebase_provider.core.database.structure.catalog_dump import CatalogObject
from lakebase_provider.local import LocalLakebase

EVIL = "](http://evil)![e](http://evil/p)<img src=http://evil/q>`| evil |``\n\n# evil\n```\n<b>evil</b>"
SHORT = '![e](http://evil/p)`<img src="evil">'
NAME = '"' + SHORT.replace('"', '""') + '"'
_CODE = ("code_inline", "code_block", "fence")
#: GFM as Dagster's and Airflow's pages have it, with tables and HTML.
_READER = MarkdownIt("commonmark").enable("table")


def tokens(markdown: str) -> Iterator[Token]:
    for token in _READER.parse(markdown):
        yield token
        yield from token.children or ()


def lives(markdown: str) -> list[str]:
    """What of the evil text is more than code."""
    return [
        f"{token.type} {token.content}"
        for token in tokens(markdown)
        if token.type in ("image", "link_open", "html_inline", "html_block")
        or ("evil" in token.content and token.type not in _CODE and not token.children)
    ]


def kinds(markdown: str) -> list[str]:
    return [token.type for token in tokens(markdown)]


def test_the_reader_sees_what_lives() -> None:
    assert len(lives(EVIL)) >= 5
    assert not lives(code(EVIL))


HOSTILE = st.text("`|\\\n<>![]()#-*_~ ea1", max_size=30)


@given(HOSTILE)
def test_any_text_is_code(text: str) -> None:
    line, table = kinds(code("words")), kinds(f"| a | b |\n| - | - |\n| {code_in_cell('w')} | c |")
    assert kinds(code(text)) == line
    assert kinds(f"| a | b |\n| - | - |\n| {code_in_cell(text)} | c |") == table
    assert len(kinds(f"| a | b |\n| - | - |\n| {cell(text)} | c |")) >= len(table) - 1
    assert kinds(code_block("sql", text)) == ["fence"]


def test_what_is_cut_off_is_whole() -> None:
    objects = tuple(
        CatalogObject("table", f"{number}{SHORT}", f"{EVIL} {number}", None) for number in range(40)
    )
    difference = CatalogDiff(objects, objects, ())
    for longest in range(0, 6_000, 97):
        assert not lives(difference.to_markdown(longest=longest))
        assert len(difference.to_markdown(longest=longest)) < longest + 200


@pytest.fixture
def client(lakebase_env: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config()) as client:
        with client.connection() as connection:
            connection.execute(f"DROP TABLE IF EXISTS {NAME}")
            connection.execute(f"CREATE TABLE {NAME} (id int PRIMARY KEY, {NAME} text UNIQUE)")
            connection.execute(f"INSERT INTO {NAME} VALUES (1, %s), (2, 'b')", (EVIL,))
        yield client
        with client.connection() as connection:
            connection.execute(f"DROP TABLE {NAME}")


def test_a_rehearsal_and_what_is_put_back(client: LakebaseClient) -> None:
    raised = EVIL.replace("'", "''")
    failed = client.rehearse([f"DO $do$ BEGIN RAISE EXCEPTION '{raised}'; END $do$"])
    assert failed.failure is not None
    assert "evil" in failed.failure
    assert not lives(failed.to_markdown())

    point = client.restore_point()
    passed = client.rehearse(
        [
            f"UPDATE {NAME} SET {NAME} = {NAME} || 'x'",
            f"CREATE TABLE evil (n int DEFAULT 1, {NAME} int)",
            f"COMMENT ON TABLE evil IS '{raised}'",
        ],
        checks=[{"sql": f"SELECT count(*) > 9 FROM {NAME}", "name": EVIL}],
        tables=[NAME, f"evil.{NAME}"],
    )
    told = passed.to_markdown()
    assert "evil" in told
    assert not lives(told)

    with client.connection() as connection:
        connection.execute(f"DELETE FROM {NAME} WHERE id = 1")
    restored = client.restore_rows(NAME, at=point)
    assert restored.put_back == 1
    assert not lives(restored.to_markdown())


@pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")
def test_what_dagster_shows_of_a_query(lakebase_env: LocalLakebase, client: LakebaseClient) -> None:
    partitions = dg.DynamicPartitionsDefinition(name="evil")

    @dg.asset(partitions_def=partitions, metadata={"partition_expr": "part", "table": "evil_parts"})
    def evil_parts() -> pa.Table:
        return pa.table({"part": [EVIL]})

    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("evil", [EVIL])
        result = dg.materialize(
            [evil_parts],
            partition_key=EVIL,
            instance=instance,
            resources={"io_manager": LakebaseIOManager(lakebase=LakebaseResource(), schema="public")},
        )
    [event] = result.get_asset_materialization_events()
    query = str(event.materialization.metadata["Query"].value)
    assert "evil" in query
    assert not lives(query)
    with client.connection() as connection:
        connection.execute("DROP TABLE evil_parts")
