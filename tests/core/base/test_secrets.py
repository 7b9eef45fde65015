"""The canary: no token and no client secret in anything that others may see."""

from __future__ import annotations

import io
import logging
import pickle
import traceback
from collections.abc import Iterator

import pytest

from lakebase_provider.core import LakebaseClient, LakebaseError, Token
from lakebase_provider.local import LocalLakebase


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that anybody logs, at DEBUG."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.setLevel(level)
    root.removeHandler(handler)


def traceback_with_locals(error: BaseException) -> str:
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def test_no_secret_is_shown(lakebase_env: LocalLakebase, log: io.StringIO) -> None:
    config = lakebase_env.config(host=None, user=None)
    client = LakebaseClient(config)
    tokens: list[Token] = []
    client.tokens.on_mint(tokens.append)
    shown: list[str] = []

    with client.connection() as connection:
        connection.execute("SELECT 1")
        shown += [repr(connection), connection.info.dsn]
    report = client.health()
    shown += [report.to_text(), str(report.to_dict()), repr(report)]
    lakebase_env.admin.expire_tokens()
    with client.connect():
        pass
    shown += [repr(client), repr(config), repr(client.pool), str(vars(client.pool)), str(client.tokens.get())]
    shown += [
        str(vars(client)),
        str(vars(client.tokens)),
        repr(client.engine()),
        pickle.dumps(config).decode("latin1"),
    ]
    client.close()

    for changes in ({"user": "nobody-knows"}, {"database": "no_such_db"}, {"sslrootcert": None}, {"port": 1}):
        failing = LakebaseClient(lakebase_env.config(**changes))
        failing.tokens.on_mint(tokens.append)
        with pytest.raises(LakebaseError) as caught:
            failing.connect(timeout=2)
        shown += [traceback_with_locals(caught.value), repr(caught.value)]
        shown.append(pickle.dumps(caught.value).decode("latin1"))
    refused = LakebaseClient(lakebase_env.config(endpoint="projects/local/branches/none/endpoints/none"))
    with pytest.raises(LakebaseError) as caught:
        refused.connect()
    shown.append(traceback_with_locals(caught.value))

    assert len({token.fingerprint for token in tokens}) >= 6
    secrets = {lakebase_env.env()["DATABRICKS_CLIENT_SECRET"], *(token.reveal()[:40] for token in tokens)}
    everything = "\n".join([*shown, log.getvalue()])
    assert "databricks.sdk" in everything or "/api/2.0/postgres/credentials" in log.getvalue()
    for secret in secrets:
        position = everything.find(secret)
        assert position < 0, everything[max(0, position - 300) : position + 20]
