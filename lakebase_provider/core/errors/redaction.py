"""Strikes secrets out of texts that other software wrote."""

from __future__ import annotations

import base64
import json
import re
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Protocol
from urllib.parse import quote, quote_plus

#: Characters; a shorter secret is not searched for, or every "1" in a text might be struck out.
_LEAST_LOOKED_FOR = 6
STRUCK_OUT = "***"
#: Letters and digits; so many of a secret in a row are struck out, whatever else stands between them.
LEAST_PIECE = 12
#: A text is looked at in blocks of so many: a piece of twice as many, less one, holds a whole block.
_BLOCK = 6
#: Letters and digits in a row. What sets colours on a terminal is none, for all that it has some.
_RUN = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|([^\W_]+)")
_URLSAFE = str.maketrans("+/", "-_")
#: What is a secret by its form: a JWT, a workspace token, an OAuth secret, credentials in a header or a URL.
_BY_FORM = re.compile(
    r"eyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?|\bd(?:api|ose|kea)[0-9a-f]{16,}(?:-\d+)?"
    r"|(?<=Bearer )[^\s'\"]+|(?<=Basic )[^\s'\"]+|(?<=://)[^\s/@'\"]+(?=@)"
    r"|(?<=password=)(?:'[^']*'|[^\s'\"]+)|(?<=client_secret=)[^\s&'\"]+",
    re.IGNORECASE,
)

#: A way of writing a secret, and a place in it.
_Place = tuple[str, int]


class _Secret(Protocol):
    #: Hashes of its blocks, none before they are needed; None if its pieces are not looked for.
    blocks: frozenset[int] | None
    #: Hashes of what it begins with, in each way of writing it; none before they are needed.
    starts: frozenset[int]

    def reveal(self) -> str:
        """The value."""


_alive: weakref.WeakValueDictionary[int, _Secret] = weakref.WeakValueDictionary()
#: Changes with each secret that is made.
_made = [0]


def look_for(secret: _Secret, length: int) -> None:
    """Strike the value of a secret out of texts, for as long as the secret is alive.

    Args:
        secret: An object that reveals it.
        length: How long it is, in characters.
    """
    if length >= _LEAST_LOOKED_FOR:
        _alive[id(secret)] = secret
        _made[0] += 1


def redacted(text: str) -> str:
    """A text of other software (a driver, the workspace, a library) without secrets.

    This strikes out the values of all secrets alive in this process, each piece of one of at least 12 letters
    and digits, whatever else stands between them (such as the ends of lines), and whatever looks like a
    secret.
    """
    return redactor()(text)


def redactor() -> Callable[[str], str]:
    """:func:`redacted` for several texts at once."""
    whole, pieces = _whole_secrets(), _Pieces()
    return lambda text: pieces.struck_out(whole(text))


def lines_redactor() -> Callable[[str], str]:
    """:func:`redacted` for the lines of one text, one after the other.

    A piece of a secret that goes on from one line to the next is struck out from where it is long enough.
    """
    made, whole, pieces, before = _made[0], _whole_secrets(), _Pieces(), ""

    def line_redacted(line: str) -> str:
        nonlocal made, whole, pieces, before
        if made != _made[0]:
            made, whole, pieces = _made[0], _whole_secrets(), _Pieces()
        line = whole(line)
        told = pieces.struck_out(line, before)
        before = (before + _plain(line))[1 - LEAST_PIECE :]
        return told

    return line_redacted


def _whole_secrets() -> Callable[[str], str]:
    living = _living()

    def strike(text: str) -> str:
        size = _LEAST_LOOKED_FOR
        there = {hash(text[at : at + size]) for at in range(len(text) - size + 1)}
        # To write a secret in all ways takes its time, and hardly any is in the text.
        near = [value for value, secret in living.items() if not _starts(value, secret).isdisjoint(there)]
        # The longest first: one secret may be a part of another.
        for form in sorted({form for value in near for form in _as_written(value)}, key=len, reverse=True):
            text = text.replace(form, STRUCK_OUT)
        return _BY_FORM.sub(STRUCK_OUT, text)

    return strike


def _starts(value: str, secret: _Secret) -> frozenset[int]:
    if not secret.starts:
        secret.starts = frozenset(hash(form[:_LEAST_LOOKED_FOR]) for form in _as_written(value))
    return secret.starts


def _living() -> dict[str, _Secret]:
    """A secret of each value: many configurations of a process hold the same one."""
    found: dict[str, _Secret] = {}
    # The references are copied in one step; values() is not, and another thread may make a secret meanwhile.
    for alive in _alive.valuerefs():
        if (secret := alive()) is not None:
            found.setdefault(secret.reveal(), secret)
    return found


class _Pieces:
    """Strikes pieces of secrets out, in a time that grows with the text alone."""

    def __init__(self) -> None:
        self._known = [(value, blocks) for value, one in _living().items() if (blocks := _blocks(value, one))]
        self._places: dict[str, dict[str, list[_Place]]] = {}

    def struck_out(self, text: str, before: str = "") -> str:
        """The text without pieces.

        Args:
            text: The text.
            before: Letters and digits that stand before it, and have been shown.
        """
        plain = before + _plain(text)
        if len(plain) < LEAST_PIECE:
            return text
        hashes = {hash(plain[at : at + _BLOCK]) for at in range(0, len(plain) - _BLOCK + 1, _BLOCK)}
        spans = [
            (max(start - len(before), 0), end - len(before))
            for value, blocks in self._known
            if not blocks.isdisjoint(hashes)
            for start, end in _spans(plain, self._places_in(value))
            if end > len(before)
        ]
        return _without(text, sorted(spans)) if spans else text

    def _places_in(self, value: str) -> dict[str, list[_Place]]:
        if value not in self._places:
            places = self._places[value] = {}
            for form in _in_pieces(value):
                for at in range(len(form) - _BLOCK + 1):
                    places.setdefault(form[at : at + _BLOCK], []).append((form, at))
        return self._places[value]


def _plain(text: str) -> str:
    return "".join(_RUN.findall(text))


def _blocks(value: str, secret: _Secret) -> frozenset[int]:
    if secret.blocks is not None and not secret.blocks:
        # The header of a JWT is the same in all of them.
        told = (value.partition(".")[2] if value.startswith("eyJ") else "") or value
        found = {form[at : at + _BLOCK] for form in _in_pieces(told) for at in range(len(form) - _BLOCK + 1)}
        secret.blocks = frozenset(map(hash, found)) or None
    return secret.blocks or frozenset()


def _in_pieces(value: str) -> list[str]:
    """The letters and digits of a secret as it is, in base64 and in hex."""
    plain = value.encode(errors="surrogatepass")
    coded = (*_within_base64(plain), plain.hex(), plain.hex().upper())
    return [form for form in map(_plain, (value, *coded)) if len(form) >= LEAST_PIECE]


def _spans(plain: str, places: dict[str, list[_Place]]) -> Iterator[tuple[int, int]]:
    """Where pieces stand, each as long as it is."""
    done = 0
    for at in range(0, len(plain) - _BLOCK + 1, _BLOCK):
        # Within what is struck out there is nothing left to find.
        if at + _BLOCK > done:
            for form, place in places.get(plain[at : at + _BLOCK], ()):
                start, end = _run(plain, at, form, place)
                if end - start >= LEAST_PIECE:
                    yield start, end
                    done = max(done, end)


def _run(plain: str, at: int, form: str, place: int) -> tuple[int, int]:
    """How far both are the same, before a place and after it."""
    back, on = 0, _BLOCK
    while back < min(at, place) and plain[at - back - 1] == form[place - back - 1]:
        back += 1
    while at + on < len(plain) and place + on < len(form) and plain[at + on] == form[place + on]:
        on += 1
    return at - back, at + on


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    """The text without what stands from one of its letters and digits to another, as they are counted."""
    runs = [found.span(1) for found in _RUN.finditer(text) if found[1]]
    counts = [0]
    for start, end in runs:
        counts.append(counts[-1] + end - start)

    def place(count: int) -> int:
        run = bisect_right(counts, count) - 1
        return runs[run][0] + count - counts[run]

    kept, done = [], 0
    for start, end in spans:
        first, last = place(start), place(end - 1) + 1
        if last > done:
            kept.append(text[done:first] + STRUCK_OUT if first >= done else "")
            done = last
    return "".join(kept) + text[done:]


def _as_written(value: str) -> tuple[str, ...]:
    """A secret as it is, as a URL, a form, JSON or hex has it, and within base64 as of ``id:secret``."""
    # A lone surrogate is refused as a setting, by an error whose text comes through here too.
    plain = value.encode(errors="surrogatepass")
    inner = _within_base64(plain)
    percent = "".join(f"%{byte:02x}" for byte in plain)
    hexadecimal = (plain.hex(), plain.hex().upper(), percent, percent.upper())
    coded = (quote(plain, safe=""), quote_plus(plain), json.dumps(value)[1:-1], *hexadecimal, *inner)
    urlsafe = (text.translate(_URLSAFE) for text in inner)
    return (value, *(text for text in (*coded, *urlsafe) if len(text) >= _LEAST_LOOKED_FOR))


def _within_base64(plain: bytes) -> list[str]:
    # What stands before it moves it by no, one or two bytes against the groups of three. Those at its ends
    # share characters with their neighbours.
    return [
        base64.b64encode(b"\0" * moved + plain).decode()[(0, 2, 3)[moved] :][: (len(plain) * 8 - 16) // 6]
        for moved in range(3)
    ]
