"""Secrets in pieces: wrapped, split, coloured or spaced by a command, a function or a server."""

from __future__ import annotations

import base64
import json
import pprint
import re
import secrets
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.errors import MigrationError
from lakebase_provider.core.errors.redaction import LEAST_PIECE, lines_redactor, redacted
from lakebase_provider.local import LocalLakebase

pytestmark = pytest.mark.usefixtures("no_secrets_of_others")

HEADER = "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9"
JWT = f"{HEADER}.{secrets.token_urlsafe(600)}.{secrets.token_urlsafe(64)}"
CLIENT_SECRET = f"dose{secrets.token_hex(16)}"
PASSWORD = "T4k3-it_in+pieces/please=87"

WAYS: dict[str, Callable[[str], str]] = {
    "wrapped at 80": lambda text: "\n".join(textwrap.wrap(f"password {text}", 80, break_on_hyphens=False)),
    "wrapped at 20": lambda text: "\n".join(textwrap.wrap(text, 20)),
    "wrapped in a box": lambda text: "\n".join(f"│ {line} │" for line in textwrap.wrap(text, 17)),
    "split at dots": lambda text: text.replace(".", ".\n"),
    "a character a line": "\n".join,
    "spaced": " ".join,
    "with NULs": "\0".join,
    "coloured": lambda text: "\x1b[31m".join(textwrap.wrap(text, 5)),
    "coloured by one byte": lambda text: "\x9b1;31m".join(textwrap.wrap(text, 5)),
    "by pprint": lambda text: pprint.pformat({"password": " ".join(textwrap.wrap(text, 30))}, width=40),
    "as JSON of parts": lambda text: json.dumps(textwrap.wrap(text, 16)),
    "a part of it": lambda text: f"token {text[-LEAST_PIECE - 8 : -1]}…",
    "in base64 of MIME": lambda text: base64.encodebytes(f"id:{text}".encode()).decode(),
    "in hex of lines": lambda text: "\n".join(textwrap.wrap(text.encode().hex(), 32)),
    "in hex by bytes": lambda text: text.encode().hex(":").upper(),
}


def shows(secret: str, text: str) -> list[str]:
    """Pieces of a secret in a text, but for the header of a JWT, which is no secret."""
    text = re.sub(r"[^\w*]|_", "", re.sub(r"(\x1b\[|\x9b)[\d;]*m", "", text))
    plain = secret.removeprefix(HEADER)
    coded = [base64.b64encode(bytes(moved) + plain.encode()).decode()[4:-4] for moved in range(3)]
    forms = [re.sub(r"[\W_]", "", form) for form in (plain, *coded, plain.encode().hex())]
    found = (form[at : at + LEAST_PIECE] for form in forms for at in range(len(form) - LEAST_PIECE + 1))
    return [piece for piece in found if piece in text or piece.upper() in text]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [JWT, CLIENT_SECRET, PASSWORD], ids=["JWT", "client secret", "password"])
def test_no_piece_of_a_secret_is_shown(value: str, way: str) -> None:
    secret = Secret(value)
    written = f"begin\n{WAYS[way](value)}\nthe end"
    assert shows(value, written)
    told = redacted(written)
    assert not shows(value, told)
    assert told.startswith("begin\n")
    assert told.endswith("\nthe end")
    redact = lines_redactor()
    lines = [redact(line) for line in written.splitlines()]
    assert not shows(value, "".join(lines))
    assert (lines[0], lines[-1]) == ("begin", "the end")
    assert secret.has_value


@given(data=st.data())
def test_wherever_it_is_split(data: st.DataObject) -> None:
    secret = Secret(value := data.draw(st.text("abcXYZ0189-_.", min_size=LEAST_PIECE + 1, max_size=60)))
    gap = st.text(" \n\t-_.:'\"\0│", max_size=3)
    parts = data.draw(st.lists(gap, min_size=len(value), max_size=len(value)))
    written = "".join(one + between for one, between in zip(value, parts, strict=True))
    before, after = data.draw(st.tuples(st.text(max_size=9), st.text(max_size=9)))
    assert not shows(value, redacted(before + written + after))
    assert secret.has_value


@pytest.mark.deep
@given(text=st.text("abc1 \n\x1b[0m.", max_size=200))
def test_other_text_stays_as_it_is(text: str) -> None:
    secret = Secret(JWT)
    assert redacted(text) == text
    assert secret.has_value


@pytest.mark.parametrize(
    "text",
    [
        HEADER,
        "projects/shop/branches/production/endpoints/primary",
        "dbc-1a2b3c4d-5e6f.cloud.databricks.com:5432/databricks_postgres",
        "499a1059-e8e5-49c4-b518-18b99d340459",
        "0f3c2b1a" * 8,
        'ERROR:  duplicate key value violates unique constraint "orders_note_key"',
        pytest.param(CLIENT_SECRET[: LEAST_PIECE - 1], id="less than a piece"),
    ],
)
def test_no_ordinary_text_is_struck_out(text: str) -> None:
    alive = [Secret(value) for value in (JWT, CLIENT_SECRET, PASSWORD)]
    assert redacted(text) == text
    assert all(secret.has_value for secret in alive)


def test_what_holds_a_host_beside_a_secret_is_struck_out_as_a_whole_alone() -> None:
    kept = Secret('{"host": "an.example.com", "login": "somebody", "password": "of-somebody"}', pieces=False)
    assert redacted("somebody at an.example.com") == "somebody at an.example.com"
    assert kept.has_value


def test_a_secret_lives_on_in_its_equal() -> None:
    first, second = Secret(CLIENT_SECRET), Secret(CLIENT_SECRET)
    assert not shows(CLIENT_SECRET, redacted(CLIENT_SECRET[:20]))
    del first
    assert not shows(CLIENT_SECRET, redacted(CLIENT_SECRET[:20]))
    assert second.has_value


@pytest.mark.parametrize("size", [1, 4])
def test_a_megabyte_of_the_beginning_of_a_piece(size: int) -> None:
    """What is nearly one, over and over, takes a time that grows with the text alone."""
    secret = Secret(CLIENT_SECRET)
    text = CLIENT_SECRET[: LEAST_PIECE - 1] + "!"
    assert "***" not in redacted(f"{text}Z" * (size * 80_000))
    assert secret.has_value


PRINTED = """
import os, sys, textwrap
token = os.environ["PGPASSWORD"]
print("\\n".join(textwrap.wrap("password " + token, 80, break_on_hyphens=False)))
print("is", token.replace(".", ".\\n"))
print("is", " ".join(token))
print("is", "\\n".join(token))
print("is", "\\x1b[0m".join(textwrap.wrap(token, 20)))
for half in (token[:300], token[300:]):
    sys.stdout.write(half + "\\n"); sys.stdout.flush()
print("the end of", token[-40:])
sys.exit(int(sys.argv[1]))
"""


def test_a_command_shows_no_piece_of_its_token(
    lakebase_env: LocalLakebase, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with LakebaseClient(lakebase_env.config()) as client:
        report = client.migrations.command([sys.executable, "-c", PRINTED, "0"])
        token = client.tokens.get().reveal()
        with pytest.raises(MigrationError, match="the end o") as caught:
            client.migrations.command([sys.executable, "-c", PRINTED, "3"])
    # The character before a piece may be the token's by chance, or be none that is looked for.
    assert re.fullmatch(r"the end o?f? ?[-_]*\*\*\*", report.output[-1])
    for shown in ("\n".join(report.output), caplog.text, str(caught.value)):
        assert not shows(token, shown)


def test_a_rehearsed_function_shows_no_piece_of_a_secret(lakebase_env: LocalLakebase) -> None:
    def wrapped(_connection: Any) -> None:
        raise ValueError("\n".join(textwrap.wrap(lakebase_env.client_secret, 20)))

    with LakebaseClient(lakebase_env.config()) as client:
        failure = client.rehearse(wrapped).failure
    assert failure == "ValueError: ***\n***"
