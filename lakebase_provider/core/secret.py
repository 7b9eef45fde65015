"""A string that does not show itself, and what strikes it out of texts that others wrote."""

from __future__ import annotations

import re
import weakref

from lakebase_provider.core.errors import ConfigError

#: Characters; a shorter secret is not looked for, or every text that holds a "1" would be struck through.
_LEAST_LOOKED_FOR = 6
_STRUCK_OUT = "***"
#: What is a secret by its form: a JWT, a workspace token, an OAuth secret, credentials in a header or a URL.
_BY_FORM = re.compile(
    r"eyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?|\bd(?:api|ose|kea)[0-9a-f]{16,}(?:-\d+)?"
    r"|(?<=Bearer )[^\s'\"]+|(?<=Basic )[^\s'\"]+|(?<=://)[^\s/@'\"]+(?=@)"
    r"|(?<=password=)(?:'[^']*'|[^\s'\"]+)|(?<=client_secret=)[^\s&'\"]+",
    re.IGNORECASE,
)


class Secret:
    """An opaque string: hidden in ``repr``, ``str`` and formatting, left behind by pickling and copying.

    Two secrets are equal when their values are. A pickled secret comes back without its value, so that
    a configuration that travels to another process carries none; revealing it there raises
    :class:`~lakebase_provider.core.errors.ConfigError`.

    For as long as it is alive, :func:`redacted` knows its value.
    """

    __slots__ = ("__weakref__", "_value")

    def __init__(self, value: str | None) -> None:
        self._value = value
        if value is not None and len(value) >= _LEAST_LOOKED_FOR:
            _alive[id(self)] = self

    @property
    def has_value(self) -> bool:
        """False if it was pickled and has left its value behind."""
        return self._value is not None

    def reveal(self) -> str:
        """The value itself. Keep it in the narrowest scope there is."""
        if self._value is None:
            raise ConfigError(
                "A secret was left behind when this configuration was pickled.",
                remedy="Read the configuration again in the process that connects, such as by from_env().",
            )
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return _STRUCK_OUT

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> tuple[type[Secret], tuple[None]]:
        return (Secret, (None,))

    def __getstate__(self) -> None:
        """Nothing: who serializes by state gets none."""


_alive: weakref.WeakValueDictionary[int, Secret] = weakref.WeakValueDictionary()


def redacted(text: str) -> str:
    """A text of somebody else's (a driver, the workspace, a library) without secrets.

    Struck out are the values of all secrets that are alive in this process, and what is a secret by its form.
    """
    # The longest first: one secret may be a part of another.
    values = sorted((secret.reveal() for secret in list(_alive.values())), key=len, reverse=True)
    for value in values:
        text = text.replace(value, _STRUCK_OUT)
    return _BY_FORM.sub(_STRUCK_OUT, text)
