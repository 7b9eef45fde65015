"""A string that does not show itself."""

from __future__ import annotations

from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.errors.redaction import STRUCK_OUT, look_for


class Secret:
    """An opaque string: hidden in ``repr``, ``str`` and formatting, left behind by pickling and copying.

    Two secrets are equal when their values are. A pickled secret comes back without its value, so that a
    configuration sent to another process carries none; revealing it there raises
    :class:`~lakebase_provider.core.errors.ConfigError`.

    For as long as it is alive, the texts of errors are searched for its value and for pieces of it.

    Args:
        value: The value.
        pieces: Whether each piece of it is secret; False for a text that holds more than one, such as a host.
    """

    __slots__ = ("__weakref__", "_value", "blocks", "starts")

    def __init__(self, value: str | None, *, pieces: bool = True) -> None:
        self._value = value
        self.blocks: frozenset[int] | None = frozenset() if pieces else None
        self.starts: frozenset[int] = frozenset()
        if value is not None:
            look_for(self, len(value))

    @property
    def has_value(self) -> bool:
        """False if it was pickled and has left its value behind."""
        return self._value is not None

    def reveal(self) -> str:
        """The value itself. Keep it in the narrowest possible scope."""
        if self._value is None:
            raise ConfigError(
                "A secret was removed when this configuration was pickled.",
                remedy="Read the configuration again in the process that connects, such as with from_env().",
            )
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return STRUCK_OUT

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> tuple[type[Secret], tuple[None]]:
        return (Secret, (None,))

    def __getstate__(self) -> None:
        """Nothing: serialization by state gets no value."""
