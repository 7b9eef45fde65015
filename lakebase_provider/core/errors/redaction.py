"""Strikes secrets out of texts that other software wrote."""

from __future__ import annotations

import base64
import json
import re
import weakref
from collections.abc import Callable
from typing import Protocol
from urllib.parse import quote, quote_plus

#: Characters; a shorter secret is not searched for, or every "1" in a text might be struck out.
_LEAST_LOOKED_FOR = 6
STRUCK_OUT = "***"
_URLSAFE = str.maketrans("+/", "-_")
#: What is a secret by its form: a JWT, a workspace token, an OAuth secret, credentials in a header or a URL.
_BY_FORM = re.compile(
    r"eyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?|\bd(?:api|ose|kea)[0-9a-f]{16,}(?:-\d+)?"
    r"|(?<=Bearer )[^\s'\"]+|(?<=Basic )[^\s'\"]+|(?<=://)[^\s/@'\"]+(?=@)"
    r"|(?<=password=)(?:'[^']*'|[^\s'\"]+)|(?<=client_secret=)[^\s&'\"]+",
    re.IGNORECASE,
)


class _Secret(Protocol):
    def reveal(self) -> str:
        """The value."""


_alive: weakref.WeakValueDictionary[int, _Secret] = weakref.WeakValueDictionary()


def look_for(secret: _Secret, length: int) -> None:
    """Strike the value of a secret out of texts, for as long as the secret is alive.

    Args:
        secret: An object that reveals it.
        length: How long it is, in characters.
    """
    if length >= _LEAST_LOOKED_FOR:
        _alive[id(secret)] = secret


def redacted(text: str) -> str:
    """A text of other software (a driver, the workspace, a library) without secrets.

    This strikes out the values of all secrets alive in this process, and whatever looks like a secret.
    """
    return redactor()(text)


def redactor() -> Callable[[str], str]:
    """:func:`redacted` for several texts at once: to write all secrets in all ways takes its time."""
    # Each value once: many configurations of a process hold the same secret.
    # The references are copied in one step; values() is not, and another thread may make a secret meanwhile.
    secrets = {secret.reveal() for alive in _alive.valuerefs() if (secret := alive()) is not None}
    # The longest first: one secret may be a part of another.
    values = sorted({written for value in secrets for written in _as_written(value)}, key=len, reverse=True)

    def strike(text: str) -> str:
        for value in values:
            text = text.replace(value, STRUCK_OUT)
        return _BY_FORM.sub(STRUCK_OUT, text)

    return strike


def _as_written(value: str) -> tuple[str, ...]:
    """A secret as it is, as a URL, a form, JSON or hex has it, and within base64 as of ``id:secret``."""
    # A lone surrogate is refused as a setting, by an error whose text comes through here too.
    plain = value.encode(errors="surrogatepass")
    # What stands before it moves it by no, one or two bytes against the groups of three. Those at its ends
    # share characters with their neighbours.
    inner = [
        base64.b64encode(b"\0" * moved + plain).decode()[(0, 2, 3)[moved] :][: (len(plain) * 8 - 16) // 6]
        for moved in range(3)
    ]
    percent = "".join(f"%{byte:02x}" for byte in plain)
    hexadecimal = (plain.hex(), plain.hex().upper(), percent, percent.upper())
    coded = (quote(plain, safe=""), quote_plus(plain), json.dumps(value)[1:-1], *hexadecimal, *inner)
    urlsafe = (text.translate(_URLSAFE) for text in inner)
    return (value, *(text for text in (*coded, *urlsafe) if len(text) >= _LEAST_LOOKED_FOR))
