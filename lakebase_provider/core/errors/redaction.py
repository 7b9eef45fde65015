"""Strikes secrets out of texts that other software wrote."""

from __future__ import annotations

import re
import weakref
from typing import Protocol

#: Characters; a shorter secret is not searched for, or every "1" in a text might be struck out.
_LEAST_LOOKED_FOR = 6
STRUCK_OUT = "***"
#: What its form shows to be a secret: a JWT, a workspace token, an OAuth secret, credentials in a header or a
#: URL.
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
    # The longest first: one secret may be a part of another.
    values = sorted((secret.reveal() for secret in list(_alive.values())), key=len, reverse=True)
    for value in values:
        text = text.replace(value, STRUCK_OUT)
    return _BY_FORM.sub(STRUCK_OUT, text)
