"""What a client's users call it, for its errors to say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lakebase_provider.core.errors import LakebaseError


class Names:
    """Names of one client, such as ``"Airflow connection 'lakebase_default'"``.

    There may be several: two connections of the same settings share a client.
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def add(self, name: str) -> None:
        """Add a name, unless it is known already."""
        if name not in self._names:
            self._names = (*self._names, name)

    def tell(self, error: LakebaseError) -> None:
        """Add the client's names to the error's message, unless they are there."""
        if not self._names:
            return
        whose = _told(self._names)
        if whose in error.message:
            return
        for known in range(1, len(self._names)):
            # Others waited for this error, too, and it was told before the latest names were added.
            error.message = error.message.replace(_told(self._names[:known]), "")
        # Within the sentence, if it is one.
        text = error.message.removesuffix(".")
        error.message = f"{text}{whose}{'.' if text != error.message else ''}"

    @contextmanager
    def told(self) -> Iterator[None]:
        """Add the client's names to the errors of a block."""
        try:
            yield
        except LakebaseError as error:
            self.tell(error)
            raise


def _told(names: tuple[str, ...]) -> str:
    return f" ({' or '.join(names)})"
