"""What an error advises, in words that apply where it is raised.

The core raises the same error for many callers, not all of which have every option: Dagster's I/O manager
loads rows but takes no ``on_error``. So a remedy that names an option also says what to do without it, and a
caller without that option says so (:func:`without_options`).
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
        otherwise: What to do if one of them is missing.
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
    """Keep errors that are made in this block from advising these options, which the caller does not have."""
    reset = _missing.set(_missing.get() | frozenset(names))
    try:
        yield
    finally:
        _missing.reset(reset)


def offered(remedy: str) -> str:
    """The remedy in the words that apply here."""
    if isinstance(remedy, Remedy):
        # A plain str: errors are pickled, and read elsewhere.
        return remedy.otherwise if remedy.options & _missing.get() else str.__str__(remedy)
    return remedy
