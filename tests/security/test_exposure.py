"""The canary is heard: what looks for secrets finds each that shows, wherever it is and however written."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from tests.security.error_sites import FOLDERS
from tests.security.exposure import Canaries, Log, shown_by, shown_by_value

CANARY = f"dose{uuid4().hex}+/{uuid4().hex}"


@pytest.fixture
def canaries() -> Canaries:
    found = Canaries()
    found.add(CANARY)
    return found


def compiled_there(source: str, file: Path) -> dict[str, Any]:
    """Functions whose code lies in a file of the package, or of somebody else."""
    code: CodeType = compile(source, str(file), "exec")
    names: dict[str, Any] = {"CANARY": CANARY}
    exec(code, names)  # noqa: S102 - the code above
    return names


OURS, THEIRS = FOLDERS[0] / "made_up.py", Path("/somewhere/site-packages/made_up.py")
FRAMES = """
def inner(value):
    raise ValueError("no")

def outer(work, value=None):
    work(value)
"""


class Slotted:
    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value = CANARY


@dataclass
class Quiet:
    value: str

    def __repr__(self) -> str:
        return "Quiet()"


# What is the tests' own is not followed; these stand for somebody else's.
Slotted.__module__ = Quiet.__module__ = "somebody"


def closure() -> Callable[[], str]:
    value = CANARY
    return lambda: value


def started() -> Iterator[str]:
    found = compiled_there("def made(value):\n    yield value\n", THEIRS)["made"](CANARY)
    next(found)
    return found  # type: ignore[no-any-return]


VALUES: dict[str, Callable[[], object]] = {
    "text": lambda: f"a {CANARY}",
    "bytes": lambda: bytearray(CANARY, "ascii"),
    "a key": lambda: {(CANARY,): 1},
    "deep": lambda: {"a": [({"b": {"c": CANARY}},)]},
    "slots": Slotted,
    "dataclass without a repr": lambda: Quiet(CANARY),
    "closure": closure,
    "frame of a generator": started,
    "base64": lambda: base64.b64encode(f"id:{CANARY}".encode()),
    "base64, moved": lambda: base64.b64encode(f"id42:{CANARY}".encode()).decode(),
    "base64, moved again": lambda: base64.b64encode(f"id4:{CANARY}:more".encode()).decode(),
    "base64 for URLs": lambda: base64.urlsafe_b64encode(f"x{CANARY}".encode()).decode(),
    "quoted": lambda: quote(CANARY, safe=""),
    "UTF-16": lambda: CANARY.encode("utf-16"),
    "hexadecimal": lambda: CANARY.encode().hex(),
    "cut off": lambda: f"{CANARY[:45]}…",
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_that_shows_is_found(kind: str, canaries: Canaries) -> None:
    assert canaries.in_any(shown_by_value([VALUES[kind]()]))


def raised(act: Callable[[], object]) -> Exception:
    try:
        act()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def chained(cause: Exception) -> Exception:
    error = ValueError("no")
    error.__cause__ = cause
    return error


def with_context() -> Exception:
    def act() -> None:
        try:
            raise ValueError(CANARY)
        except ValueError:
            raise KeyError("no") from None

    return raised(act)


def with_attribute() -> Exception:
    error = ValueError("no")
    error.request = {"headers": CANARY}  # type: ignore[attr-defined] # as others do it
    return error


def in_frame(file: Path) -> Exception:
    ours, found = compiled_there(FRAMES, OURS), compiled_there(FRAMES, file)
    return raised(lambda: ours["outer"](lambda _: found["inner"](CANARY)))


ERRORS: dict[str, Callable[[], Exception]] = {
    "text": lambda: ValueError(f"no {CANARY}"),
    "argument": lambda: ValueError([Quiet(CANARY)]),
    "attribute": with_attribute,
    "cause": lambda: chained(ValueError(CANARY)),
    "context": with_context,
    "argument that is an error": lambda: ValueError(ValueError(CANARY)),
    "frame of ours": lambda: in_frame(OURS),
    "frame of others below ours": lambda: in_frame(THEIRS),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_that_shows_it_is_found(kind: str, canaries: Canaries) -> None:
    assert canaries.in_any(shown_by(ERRORS[kind]()))


def test_the_callers_own_frames_are_the_callers(canaries: Canaries) -> None:
    ours, theirs = compiled_there(FRAMES, OURS), compiled_there(FRAMES, THEIRS)
    error = raised(lambda: theirs["outer"](lambda _: ours["inner"](None), CANARY))
    assert canaries.in_any(shown_by(error)) == []


def test_a_line_that_shows_it_is_found(canaries: Canaries) -> None:
    logger, handler = logging.getLogger("canary"), Log()
    logger.addHandler(handler)
    try:
        logger.warning("a line with %s", CANARY)
        logger.warning("and an error", exc_info=ValueError(CANARY))
    finally:
        logger.removeHandler(handler)
    assert len(canaries.in_any(handler.shown)) > 2
