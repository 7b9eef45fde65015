"""Which texts are one plain line, as a setting, a resolved value or a token must be; others as shown.

libpq's connection strings are C strings: a NUL in a host, a user or a password ends the whole string there,
and the TLS mode and everything else after it is lost. A line break ends an HTTP header, and lone surrogates
cannot be encoded at all.
"""

from __future__ import annotations

import re

#: The control characters C0 and C1 with DEL, Unicode's line and paragraph separators, and surrogates.
_NOT_PLAIN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NOT_ASCII = re.compile("[^\x21-\x7e]")
#: Text that is nothing but text in Markdown and in HTML, wherever it stands.
_HARMLESS = re.compile(r"[\w ()]+")


def flaw(text: str) -> str | None:
    """What keeps the text from being one plain line, without the text; None if nothing does."""
    return _told(_NOT_PLAIN.search(text))


def flaw_in_header(text: str) -> str | None:
    """What keeps the text from being an HTTP header, without the text; None if nothing does.

    Bearer tokens and client secrets are printable ASCII without blanks (RFC 6750, section 2.1).
    """
    return _told(_NOT_ASCII.search(text))


def escaped(text: str, *, keep: str = "") -> str:
    """The text for a terminal: of what is not printable, only escapes such as ``\\x1b`` or ``\\u202e``.

    A terminal obeys control characters, and shows text in another order after Unicode's marks of direction.

    Args:
        text: The text.
        keep: Characters that stay as they are, such as line breaks.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def code(text: str) -> str:
    """The text as code on one line of Markdown, which shows no link, image or tag that is in it."""
    shown = escaped(" ".join(text.split())) or "(empty)"
    fence = _fence(shown, 1)
    space = " " if "`" in shown else ""
    return f"{fence}{space}{shown}{space}{fence}"


def code_in_cell(text: str) -> str:
    """:func:`code` for a cell of a Markdown table, which a bar would end."""
    # Some readers of Markdown take a backslash and the bar's own for a pair, and the bar for the cell's end.
    return code(text.replace("\\|", "\\ |")).replace("|", "\\|")


def cell(text: str) -> str:
    """Text for a cell of a Markdown table: as it is if it is words, or else as code."""
    flat = " ".join(text.split())
    return flat if _HARMLESS.fullmatch(flat) else code_in_cell(flat)


def code_block(language: str, text: str) -> str:
    """The text as a block of code in Markdown.

    Args:
        language: Its language, such as ``"sql"``.
        text: The text, of any number of lines.
    """
    fence = _fence(text, 3)
    return f"{fence}{language}\n{text}\n{fence}"


def _fence(text: str, least: int) -> str:
    return "`" * max(least, *(len(run) + 1 for run in re.findall(r"`+", text)), 1)


def _told(found: re.Match[str] | None) -> str | None:
    if found is None:
        return None
    # The code point is not secret, and often explains it: U+000A is a line break from a paste.
    return f"the character U+{ord(found[0]):04X} at position {found.start() + 1}"
