"""Secrets struck out of texts that others wrote."""

from __future__ import annotations

import re
import weakref
from typing import Protocol

#: Characters; a shorter secret is not looked for, or every text that holds a "1" would be struck through.
_LEAST_LOOKED_FOR = 6
STRUCK_OUT = "***"
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
    """A text of somebody else's (a driver, the workspace, a library) without secrets.

    Struck out are the values of all secrets that are alive in this process, and what is a secret by its form.
    """
    # The longest first: one secret may be a part of another.
    values = sorted((secret.reveal() for secret in list(_alive.values())), key=len, reverse=True)
    for value in values:
        text = text.replace(value, STRUCK_OUT)
    return _BY_FORM.sub(STRUCK_OUT, text)
