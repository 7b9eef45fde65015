"""What an error advises, in words that hold where it is raised.

The core raises one error for many callers, and not each of them has each option: an I/O manager of Dagster
loads rows, and takes no ``on_error``. So a remedy that names an option says what to do without it, too, and
whoever has no such option says so (:func:`without_options`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_missing: ContextVar[frozenset[str]] = ContextVar("_missing", default=frozenset())


class Remedy(str):
    """A remedy that names options of a call.

    Args:
        text: What to do, with the options.
        options: Their names.
        otherwise: What to do where one of them is missing.
    """

    __slots__ = ("options", "otherwise")

    options: frozenset[str]
    otherwise: str

    def __new__(cls, text: str, *, options: tuple[str, ...], otherwise: str) -> Remedy:
        """The remedy; its text is the one with the options."""
        found = super().__new__(cls, text)
        found.options, found.otherwise = frozenset(options), otherwise
        return found


@contextmanager
def without_options(*names: str) -> Iterator[None]:
    """Let errors that are made within advise none of these options, which the caller does not have."""
    reset = _missing.set(_missing.get() | frozenset(names))
    try:
        yield
    finally:
        _missing.reset(reset)


def offered(remedy: str) -> str:
    """The remedy in the words that hold here."""
    if isinstance(remedy, Remedy):
        # A plain str: errors are pickled, and read elsewhere.
        return remedy.otherwise if remedy.options & _missing.get() else str.__str__(remedy)
    return remedy
