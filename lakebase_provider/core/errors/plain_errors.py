"""Errors as JSON values and back: how an error gets from the triggerer to a task."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping
from typing import Any

from lakebase_provider.core.errors import LakebaseError, StatementError
from lakebase_provider.core.errors.kinds import rebuild
from lakebase_provider.core.errors.sqlstates import retry_helps


def to_plain(error: Exception) -> dict[str, Any]:
    """What is needed to raise the same error elsewhere, without its frames, which may hold secrets.

    Args:
        error: A `LakebaseError`, a psycopg error or any other.
    """
    plain: dict[str, Any] = {
        "kind": type(error).__name__,
        "code": None,
        "message": str(error),
        "remedy": None,
        "retryable": retry_helps(error) is not False,
        "sqlstate": getattr(error, "sqlstate", None),
    }
    if isinstance(error, LakebaseError):
        details = error.details()
        plain.update(
            code=error.code,
            message=error.message,
            remedy=error.remedy,
            retry_after=error.retry_after,
            details={name: value for name, value in details.items() if isinstance(value, (str, int, float))},
        )
    return plain


def from_plain(plain: Mapping[str, Any]) -> Exception:
    """The error again: of the same kind, with its message, remedy, code, SQLSTATE and whether a retry helps.

    Args:
        plain: What :func:`to_plain` made, in this version or an earlier one. A kind that is not known here
            becomes a :class:`.StatementError` that names it.
    """
    name, message = plain["kind"], plain["message"]
    ours = _ours(name, plain.get("code"))
    if ours is not None:
        error = rebuild(ours, message, plain["remedy"], plain.get("retry_after"), plain["retryable"])
        error.__dict__.update(plain.get("details") or {})
        return error
    foreign = _foreign(name)
    if foreign is None:
        return StatementError(f"{name}: {message}", remedy=plain["remedy"], retryable=plain["retryable"])
    found = foreign(message)
    if plain.get("sqlstate") is not None and getattr(found, "sqlstate", None) is None:
        # psycopg has no class for it.
        found.__dict__["sqlstate"] = plain["sqlstate"]
    return found


def _ours(name: str, code: str | None) -> type[LakebaseError] | None:
    """The class of that name, or of that code if the module that defines the class is not imported here."""
    kinds: list[type[LakebaseError]] = [LakebaseError, *_below(LakebaseError)]
    of_name = (kind for kind in kinds if kind.__name__ == name)
    of_code = (kind for kind in kinds if code is not None and kind.code == code)
    return next(of_name, None) or next(of_code, None)


def _below(kind: type[LakebaseError]) -> Iterator[type[LakebaseError]]:
    for further in kind.__subclasses__():
        yield further
        yield from _below(further)


def _foreign(name: str) -> type[Exception] | None:
    # This imports the driver, which a task that succeeded does not need.
    import psycopg

    for module, base in ((psycopg.errors, psycopg.Error), (builtins, OSError)):
        kind = getattr(module, name, None)
        if isinstance(kind, type) and issubclass(kind, base):
            return kind
    return None
