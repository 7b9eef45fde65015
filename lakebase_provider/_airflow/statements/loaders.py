"""Loaders of values that Python cannot represent: a stand-in instead of psycopg's error."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format


def replace_unreadable(adapters: AdaptersMap, names: Iterable[str], instead: Callable[[str], Any]) -> None:
    """Replace each value that a type's loader cannot read by another one, in arrays too.

    Args:
        adapters: The connection's, before it runs the statement.
        names: The types.
        instead: Makes the replacement from what Postgres wrote.
    """
    for name in names:
        oid = adapters.types[name].oid
        loader = adapters.get_loader(oid, Format.TEXT)
        if loader is not None:
            adapters.register_loader(oid, _guarded(loader, instead))


def _guarded(inner: Any, instead: Callable[[str], Any]) -> type[Loader]:
    class Guarded(Loader):
        def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
            super().__init__(oid, context)
            # Not by inheritance: psycopg calls its C loaders in a way that bypasses a subclass.
            self._load: Callable[[Buffer], Any] = inner(oid, context).load

        def load(self, data: Buffer) -> Any:
            try:
                return self._load(data)
            except Exception:  # of many kinds, most of which quote the value
                return instead(str(data, "utf-8", "replace"))

    return Guarded
