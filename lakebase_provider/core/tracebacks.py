"""Errors without what a traceback could show of their frames."""

from __future__ import annotations


def without_locals(error: BaseException) -> BaseException:
    """The error without its frames, whose local variables hold secrets that a traceback could print."""
    seen: set[int] = set()
    step: BaseException | None = error
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        step.__traceback__ = None
        step = step.__cause__ or step.__context__
    return error
