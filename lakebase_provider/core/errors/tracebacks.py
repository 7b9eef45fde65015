"""Errors of other libraries, stripped of what could show secrets: frames, texts and attributes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from lakebase_provider.core.errors.redaction import redacted

_Error = TypeVar("_Error", bound=BaseException)


def without_locals(error: _Error) -> _Error:
    """The error without its frames, whose local variables hold secrets that a traceback could print.

    Its text and attributes go through :func:`.redacted`, and whatever is not a plain value is removed: the
    connection of a psycopg error knows its password, the request of a ``requests`` error its headers. The
    same is done to its causes.
    """
    for step in _chain(error):
        step.__traceback__ = None
        _strip(step)
    return error


def without_frames(error: _Error) -> _Error:
    """The error and its causes without their frames, and otherwise as they are: those of an interruption."""
    for step in _chain(error):
        step.__traceback__ = None
    return error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, its causes, and what they were raised in the middle of, each once."""
    seen: set[int] = set()
    steps: list[BaseException | None] = [error]
    while steps:
        step = steps.pop()
        if step is not None and id(step) not in seen:
            seen.add(id(step))
            yield step
            steps += (step.__cause__, step.__context__)


def _strip(error: BaseException) -> None:
    if isinstance(error, UnicodeError) and len(error.args) == 5:
        # The second is the whole text that could not be encoded.
        error.object = error.object[:0]  # type: ignore[attr-defined] # of both kinds that have five
        error.args = (error.args[0], error.args[1][:0], *error.args[2:])
    error.args = tuple(_plain(value) for value in error.args)
    for name, value in list(vars(error).items()):
        # psycopg's own diagnostics: what the server said.
        if name != "_info":
            setattr(error, name, _plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value) if type(value) in (list, tuple) else None
    return value if value is None or isinstance(value, (bool, int, float, BaseException)) else None
