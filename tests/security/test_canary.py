"""The canary: no error that the package can raise shows a secret, in whatever frame, text or pickle."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lakebase_provider.core import shared
from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.config.allowed_hosts import ALLOW_LOOPBACK
from lakebase_provider.local import LocalLakebase
from tests.security.error_sites import error_classes, raised_classes, raised_in
from tests.security.exposure import Canaries, Log, chain, shown_by, shown_by_value
from tests.security.fronts import FRONTS, SYNC, World
from tests.security.provocations import OUT_OF_REACH, PROVOCATIONS, Provocation

# Airflow's own API server, in this process.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated"),
    # Of resources within resources, by Dagster itself.
    pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated"),
]


@pytest.fixture
def canaries(monkeypatch: pytest.MonkeyPatch) -> Canaries:
    """Every secret of the test, whoever makes it one."""
    found, make = Canaries(), Secret.__init__

    def made(self: Secret, value: str | None, *, pieces: bool = True) -> None:
        make(self, value, pieces=pieces)
        if value:
            found.add(value)

    monkeypatch.setattr(Secret, "__init__", made)
    return found


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Every error of the package that is made, also those that never reach the caller."""
    found: list[BaseException] = []

    def recording(make: Callable[..., None]) -> Callable[..., None]:
        def init(self: BaseException, *arguments: Any, **keywords: Any) -> None:
            found.append(self)
            make(self, *arguments, **keywords)

        return init

    for kind in error_classes():
        if "__init__" in vars(kind) or not any(base in error_classes() for base in kind.__mro__[1:]):
            monkeypatch.setattr(kind, "__init__", recording(kind.__init__))
    return found


@pytest.fixture
def log() -> Iterator[Log]:
    """What all loggers say, at DEBUG; also those that keep it to themselves."""
    handler = Log()
    others = [
        logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)
    ]
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
    made: list[BaseException],
    log: Log,
    capfd: pytest.CaptureFixture[str],
) -> None:
    try:
        shown = list(shown_by_value(provocation.act(FRONTS[front](world), world)))
        caught = None
    except Exception as error:  # which one it is comes below
        caught, shown = error, list(shown_by(error))
        assert len(shown) > 5
    assert provocation.kind in {type(one).__name__ for one in made}, f"{caught!r} of {made}"
    assert len(canaries) > 10
    known = [] if caught is None else chain(caught)
    for one in made:
        if not any(one is step for step in known):
            shown += shown_by(one)
    printed = capfd.readouterr()
    shown += [*log.shown, ("stdout", printed.out), ("stderr", printed.err)]
    found = canaries.in_any(shown)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("front", SYNC)
@pytest.mark.parametrize("kind", [kind.__name__ for kind in raised_classes()])
def test_every_error_is_provoked_in_every_front(kind: str, front: str) -> None:
    """Fails for a new class that nobody has thought of here, and for a front that somebody forgot."""
    provoked = any(p.kind == kind and front in p.fronts for p in PROVOCATIONS)
    exempt = OUT_OF_REACH.get(kind)
    if exempt is None or front not in exempt.fronts:
        assert provoked, f"write a provocation of {kind}, raised in {', '.join(raised_in()[kind])}"
    else:
        assert not provoked, "it can be provoked, and so is not out of reach"
        assert all(file.startswith(exempt.only) for file in raised_in()[kind])


def test_no_provocation_is_of_a_class_that_is_gone() -> None:
    known = {kind.__name__ for kind in raised_classes()}
    assert {provocation.kind for provocation in PROVOCATIONS} | OUT_OF_REACH.keys() == known
