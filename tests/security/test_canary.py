"""The canary: no error that the package can raise shows a secret, in whatever frame, text or pickle."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lakebase_provider.core import shared
from lakebase_provider.core.allowed_hosts import ALLOW_LOOPBACK
from lakebase_provider.core.secret import Secret
from lakebase_provider.local import LocalLakebase
from tests.security.exposure import Canaries, Log, chain, shown_by
from tests.security.fronts import FRONTS, World
from tests.security.provocations import PROVOCATIONS, Provocation

# Airflow's own API server, in this process.
pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")


@pytest.fixture
def canaries(monkeypatch: pytest.MonkeyPatch) -> Canaries:
    """Every secret of the test, whoever makes it one."""
    found, make = Canaries(), Secret.__init__

    def made(self: Secret, value: str | None) -> None:
        make(self, value)
        if value:
            found.add(value)

    monkeypatch.setattr(Secret, "__init__", made)
    return found


@pytest.fixture
def log() -> Iterator[Log]:
    """What all loggers say, at DEBUG; also those that keep it to themselves."""
    handler = Log()
    others = [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    loggers = [logging.root, *(logger for logger in others if not logger.propagate)]
    levels = {logger: logger.level for logger in (logging.root, *others)}
    for logger in loggers:
        logger.addHandler(handler)
    for logger in levels:
        logger.setLevel(logging.DEBUG if logger is logging.root else logging.NOTSET)
    yield handler
    for logger, level in levels.items():
        logger.setLevel(level)
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.fixture
def world(
    lakebase_env: LocalLakebase,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    canaries: Canaries,
    no_name_server: None,
) -> Iterator[World]:
    """As a new process finds it: no clients and tokens of earlier tests, nothing in the environment."""
    monkeypatch.setattr(shared, "_shared", {})
    monkeypatch.setattr(shared, "_shared_tokens", {})
    for name in lakebase_env.env().keys() - {ALLOW_LOOPBACK}:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "none"))
    for secret in (lakebase_env.client_secret, lakebase_env.pat):
        canaries.add(secret)
    with ExitStack() as stack:
        yield World(lakebase_env, monkeypatch, tmp_path, canaries, stack)
        shared.close_shared_clients()
        lakebase_env.admin.clear_faults()


CASES = [
    pytest.param(provocation, front, id=f"{provocation.name}-{front}")
    for provocation in PROVOCATIONS
    for front in provocation.fronts
]


@pytest.mark.parametrize(("provocation", "front"), CASES)
def test_no_error_shows_a_secret(
    provocation: Provocation,
    front: str,
    world: World,
    canaries: Canaries,
    log: Log,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one it is comes below
        provocation.act(FRONTS[front](world), world)
    kinds = {kind.__name__ for step in chain(caught.value) for kind in type(step).__mro__}
    assert provocation.kind in kinds, repr(caught.value)
    assert len(canaries) > 10
    printed = capfd.readouterr()
    shown = [*shown_by(caught.value), *log.shown, ("stdout", printed.out), ("stderr", printed.err)]
    assert len(shown) > 20
    found = canaries.in_any(shown)
    assert not found, "\n".join(found)
