"""A statement's placeholders, distinguished from its quotes, comments and percent signs.

In a statement with parameters, psycopg takes every ``%`` anywhere as the start of a placeholder, and Postgres
takes a list of values as one value. Authors of SQL for Airflow or a Dagster component expect neither. This
module changes that, only for statements with parameters:

* ``%s``, ``%b``, ``%t`` and ``%(name)s`` outside quotes and comments are placeholders; ``%%`` is a percent
  sign; every other ``%`` is a percent sign too.
* ``IN %s`` with a list, tuple or set becomes ``IN (%s, %s, …)``, each value bound by the server.
* A statement without any placeholder runs without parameters: several statements can share them.
* What looks like a placeholder inside quotes is text, unless the parameters do not match then: that is an
  error, since the value would silently be lost.
* Text in a comment is a comment: it neither takes nor needs a value.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.base.sql.sql_text import tokens

if TYPE_CHECKING:
    import psycopg

_LOOKALIKE = r"%%|%(?:\((?P<name>[^)]+)\))?[sbt]"

Parameters = Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True)
class _Placeholder:
    name: str | None
    format: str
    after_in: bool

    def __str__(self) -> str:
        return f"%{self.format}" if self.name is None else f"%({self.name}){self.format}"


@dataclass(frozen=True)
class Statement:
    """A statement's text, parsed.

    Attributes:
        parts: Its text, with percent signs as intended, and its placeholders, in order.
        quoted: Names of what looks like a placeholder inside quotes; None for a nameless one.
        several: Whether the text holds more than one statement.
    """

    parts: tuple[str | _Placeholder, ...]
    quoted: frozenset[str | None]
    several: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the values that it needs, each once, in order."""
        found = [part.name for part in self.parts if isinstance(part, _Placeholder) and part.name is not None]
        return tuple(dict.fromkeys(found))

    def missing(self, given: Collection[str]) -> list[str]:
        """Names of the values that it needs and that are missing."""
        return [name for name in self.names if name not in given]

    def bind(self, parameters: Parameters) -> tuple[str, Parameters | None]:
        """The text and the parameters in psycopg's form.

        Args:
            parameters: Values by position or by name; not empty.

        Raises:
            psycopg.ProgrammingError: A value is missing or has no placeholder except inside quotes, ``IN``
                was given no values, or both kinds of placeholders are mixed.
        """
        placeholders = [part for part in self.parts if isinstance(part, _Placeholder)]
        self._check(placeholders, parameters)
        if not placeholders:
            return "".join(map(str, self.parts)), None
        if not any(part.after_in for part in placeholders):
            return "".join(_text(part) for part in self.parts), parameters
        values = _Values(parameters)
        text = "".join(values.take(p) if isinstance(p, _Placeholder) else _text(p) for p in self.parts)
        return text, values.bound

    def _check(self, placeholders: list[_Placeholder], parameters: Parameters) -> None:
        named = isinstance(parameters, Mapping)
        if any((part.name is not None) != named for part in placeholders):
            kind = "a mapping" if named else "a sequence"
            raise _refused(
                f"The parameters are {kind}: write %(name)s for a mapping's values, %s for a sequence's."
            )
        if named and (missing := self.missing(parameters)):
            raise _refused(missing_values(missing, parameters))
        if named:
            lost = sorted(name for name in self.quoted if name is not None and name in parameters)
        else:
            lost = ["%s"] if None in self.quoted and len(placeholders) != len(parameters) else []
        if lost:
            raise _refused(
                f"A placeholder is inside quotes ({', '.join(lost)}), where no value is inserted. Take it "
                "out of the quotes, such as %s || ' days'; or double its % if it is plain text."
            )


class _Values:
    """A statement's parameters, some of which are lists after IN."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._named = parameters if isinstance(parameters, Mapping) else None
        self._positional: Iterator[Any] = iter(() if self._named is not None else parameters)
        self._list: list[Any] = []
        self._mapping: dict[str, Any] = {}

    @property
    def bound(self) -> Parameters:
        # Parameters left over have no placeholder; psycopg counts them and raises.
        return self._mapping if self._named is not None else [*self._list, *self._positional]

    def take(self, placeholder: _Placeholder) -> str:
        """The text of the placeholder, or of a list of them; records the values."""
        if self._named is not None:
            name = str(placeholder.name)
            value = self._named[name]
        else:
            name = ""
            try:
                value = next(self._positional)
            except StopIteration:
                raise _refused(
                    f"The statement has more placeholders than its {len(self._parameters)} parameters."
                ) from None
        if placeholder.after_in and _is_many(value):
            return self._many(placeholder, name, value)
        return self._one(placeholder, name, value)

    def _many(self, placeholder: _Placeholder, name: str, values: Collection[Any]) -> str:
        if not values:
            raise _refused(
                "IN was given no values, which is not valid SQL: use = ANY(%s) with a list, which may be "
                "empty."
            )
        each = [
            self._many(placeholder, f"{name}[{i}]", value)
            if _is_many(value)
            else self._one(placeholder, f"{name}[{i}]", value)
            for i, value in enumerate(values)
        ]
        return f"({', '.join(each)})"

    def _one(self, placeholder: _Placeholder, name: str, value: Any) -> str:
        if self._named is None:
            self._list.append(value)
            return f"%{placeholder.format}"
        self._mapping[name] = value
        return f"%({name}){placeholder.format}"


def missing_values(names: Collection[str], given: Collection[str]) -> str:
    """The message that a statement lacks values, and which there are.

    Args:
        names: What it needs.
        given: Names of the given values.
    """
    asked = ", ".join(f"%({name})s" for name in names)
    there = ", ".join(map(repr, sorted(given))) or "none"
    return f"Parameter missing: {asked}. There are: {there}."


def _refused(reason: str) -> psycopg.ProgrammingError:
    # Imported late: statements are parsed when a code location is loaded, which needs no driver.
    import psycopg

    return psycopg.ProgrammingError(reason)


def _is_many(value: object) -> bool:
    return isinstance(value, (list, tuple, set, frozenset))


def _text(part: str | _Placeholder) -> str:
    return part.replace("%", "%%") if isinstance(part, str) else str(part)


@lru_cache(maxsize=256)
def parse(sql: str) -> Statement:
    """Parse a statement.

    Args:
        sql: Its text, as written when there are parameters.
    """
    parts: list[str | _Placeholder] = []
    quoted: set[str | None] = set()
    texts: list[str] = []
    several = ended = False
    before = ""
    for kind, start, end in tokens(sql, placeholders=True):
        piece = sql[start:end]
        if kind not in ("space", "comment"):
            # One that ends a statement of a function's body counts too: such a text takes no values either.
            several = several or (ended and piece != ";")
            ended = ended or piece == ";"
        if kind == "placeholder" and piece not in ("%", "%%"):
            parts += ["".join(texts), _placeholder(piece, after_in=before == "in")]
            texts = []
        elif kind == "placeholder":
            texts.append("%")
        elif kind in ("string", "name", "open"):
            quoted |= {m["name"] for m in re.finditer(_LOOKALIKE, piece) if m.group() != "%%"}
            texts.append(piece.replace("%%", "%"))
        else:
            texts.append(piece)
        if kind not in ("space", "comment"):
            # Of a name with its schema or table the last part is no keyword.
            before = "." if before == "." else piece.lower()
    return Statement((*parts, "".join(texts)), frozenset(quoted), several)


def _placeholder(piece: str, *, after_in: bool) -> _Placeholder:
    return _Placeholder(piece[2:-2] if piece[1] == "(" else None, piece[-1], after_in)
