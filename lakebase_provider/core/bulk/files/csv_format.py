"""The format of a CSV file: what separates its fields, and what means NULL."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypedDict

from lakebase_provider.core.errors import ConfigError

_COMMA, _TAB = ",", "\t"
#: Characters that end a row, or that Postgres text cannot hold.
_NO_MARKS = "\r\n\0"


def _require_mark(field: str, value: object, such_as: str) -> None:
    if not isinstance(value, str) or len(value) != 1 or not value.isascii() or value in _NO_MARKS:
        raise ConfigError(f"{field} is {value!r}."[:200], remedy=f"Give one ASCII character, {such_as}.")


class CsvOptions(TypedDict, total=False):
    """The fields of :class:`CsvFormat` by name."""

    delimiter: str | None
    encoding: str
    null: str | Sequence[str]
    header: bool
    quote: str | None


#: Their names.
CSV_OPTIONS = tuple(CsvOptions.__annotations__)


@dataclass(frozen=True)
class CsvFormat:
    """How a CSV file is written.

    Attributes:
        delimiter: The field separator, one ASCII character; None for a comma, for a ``.tsv`` file a tab.
        encoding: A text encoding that Python knows, such as ``"cp1252"``, ``"latin-1"`` or ``"utf-16"``.
        null: What means NULL when unquoted; several strings as a list. By default an empty field.
        header: Whether the first row holds the columns' names. Without one, columns go by position, or by
            the names that `columns=` gives.
        quote: The quote character, one ASCII character, doubled within a field; None if quotes have no
            meaning.

    Raises:
        ConfigError: One of them is invalid, or two contradict each other.
    """

    delimiter: str | None = None
    encoding: str = "utf-8"
    null: str | Sequence[str] = ""
    header: bool = True
    quote: str | None = '"'

    def __post_init__(self) -> None:
        if self.delimiter is not None:
            _require_mark("delimiter", self.delimiter, "such as ';', '|' or '\\t'")
        if self.quote is not None:
            _require_mark("quote", self.quote, "such as '\"' or \"'\", or None where quotes mean nothing")
        if self.quote is not None and self.quote == self.delimiter:
            raise ConfigError(
                f"delimiter and quote are both {self.quote!r}.", remedy="Give each a character of its own."
            )
        if not isinstance(self.header, bool):
            raise ConfigError(
                f"header is {self.header!r}."[:200],
                remedy="Give True or False; put the column names of a file without a header into columns=.",
            )
        self._require_encoding()
        wrong = not isinstance(self.null, (str, list, tuple)) or not all(
            isinstance(text, str) for text in self.null
        )
        if wrong or (not self.null and self.null != ""):
            raise ConfigError(
                f"null is {self.null!r}."[:200], remedy="Give a string, such as 'NULL', or a list of strings."
            )

    def _require_encoding(self) -> None:
        try:
            "a,\n".encode(self.encoding)
        except (LookupError, TypeError, ValueError):
            raise ConfigError(
                f"encoding is {self.encoding!r}, which is not a text encoding."[:200],
                remedy="Give one that Python knows, such as 'utf-8', 'cp1252', 'latin-1' or 'utf-16'.",
            ) from None

    @property
    def nulls(self) -> tuple[str, ...]:
        """The strings that mean NULL."""
        return (self.null,) if isinstance(self.null, str) else tuple(self.null or ())

    @property
    def is_utf8(self) -> bool:
        """Whether the bytes are read unchanged; a byte order mark at the beginning is always skipped."""
        return codecs.lookup(self.encoding).name in ("utf-8", "utf-8-sig")

    def delimiter_of(self, suffix: str) -> str:
        """What separates the fields of a file with that suffix."""
        return self.delimiter or (_TAB if suffix.startswith(".tsv") else _COMMA)

    def require_unused(self, description: str) -> None:
        """Refuse these options for a source that is not a CSV file.

        Raises:
            ConfigError: One of them was given.
        """
        for field in fields(CsvFormat):
            if getattr(self, field.name) != field.default:
                raise ConfigError(
                    f"{field.name}= is for CSV files, but the source is: {description}.",
                    remedy=f"Leave {field.name} out.",
                )


#: As Postgres writes it, but for the header, and as an unload does.
PLAIN_CSV = CsvFormat()
