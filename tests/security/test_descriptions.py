"""What a lying server says of a query's columns, and what it answers where text is read."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import postgres

from lakebase_provider.core import LakebaseClient, LakebaseError

from .copy_data import HEADER, TRAILER, numeric, row
from .lying_server import LyingServer, description, message, of_types


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LyingServer]:
    with LyingServer(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: LyingServer) -> Iterator[LakebaseClient]:
    with LakebaseClient(server.config()) as found:
        yield found


NUMERIC = postgres.types["numeric"].oid
INT4 = postgres.types["int4"].oid
DESCRIPTIONS = {
    "no columns": description(),
    "a name that is not UTF-8": description((b"\xff", INT4, -1)),
    "no name": description((b"", INT4, -1)),
    "an unknown type": description((b"c", 0x7FFFFFFF, -1)),
    "type 0": description((b"c", 0, -1)),
    "the greatest modifier": description((b"c", NUMERIC, 2**31 - 1)),
    "the least modifier": description((b"c", NUMERIC, -(2**31))),
    **{
        f"numeric by modifier {modifier}": description((b"c", NUMERIC, modifier))
        for modifier in (0, 3, 4, 5, 1 << 16, (1 << 16) + 4, (1000 << 16) + 4, (5 << 16) + 0x7FF + 4)
    },
    "a text's modifier of an array": description((b"c", postgres.types["numeric"].array_oid, 0)),
    "two of one name": description((b"c", INT4, -1), (b"c", INT4, -1)),
    "300 columns": description(*[(b"c%d" % number, INT4, -1) for number in range(300)]),
    "no description": b"",
    "an error": message(b"E", b"SERROR\0CXX000\0Mno\0\0"),
    "a description that is cut off": message(b"T", struct.pack("!h", 3)),
}


@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_a_description_is_a_result_or_one_of_the_documented_errors(
    server: LyingServer, client: LakebaseClient, case: str
) -> None:
    server.rows, server.described = b"", DESCRIPTIONS[case]
    for copied in ([HEADER + TRAILER], [HEADER + row(numeric(1)), TRAILER]):
        server.copied = copied
        with contextlib.suppress(LakebaseError, psycopg.Error):
            client.fetch_arrow("SELECT c0 FROM t").validate(full=True)


VALUES = (b"", b"x", b"\xff", b"-", b"99999999999999999999999", b"{", b"{}", b"{1,x}", b"infinity", b"NaN")
KINDS = (
    "bool",
    "int4",
    "int8",
    "float8",
    "numeric",
    "text",
    "bytea",
    "date",
    "time",
    "timestamp",
    "interval",
)
MORE = ("timestamptz", "jsonb", "uuid", "int4[]", "numeric[]", "date[]", "inet", "int4range")


@pytest.mark.parametrize("kind", KINDS + MORE)
@pytest.mark.parametrize("value", VALUES)
def test_text_that_is_read_is_a_result_or_one_of_the_documented_errors(
    server: LyingServer, client: LakebaseClient, kind: str, value: bytes
) -> None:
    data = message(b"D", struct.pack("!hi", 1, len(value)) + value)
    server.rows = of_types(kind) + data
    for read in (lambda: client.fetch_arrow("SHOW lies"), lambda: list(client.iter_rows("SHOW lies"))):
        found: Any = None
        try:
            found = read()
        except (LakebaseError, psycopg.Error):
            continue
        assert len(found) == 1
