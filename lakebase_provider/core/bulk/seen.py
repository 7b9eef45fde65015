"""What can be read once, and has been: an iterator, a stream of record batches, a cursor.

To whoever reads it a second time it looks like a source without rows, and a replacement by it empties the
table. So what has been read is remembered for as long as it lives.
"""

from __future__ import annotations

import itertools
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from lakebase_provider.core.errors import ConfigError

_Item = TypeVar("_Item")
_NOTHING: Any = object()
#: Of an object that takes no weak references, such as a map, this many are kept alive.
_HELD = 16


@dataclass
class _Record:
    """How far a source has been read."""

    reference: Callable[[], object]
    mark: object
    state: str = "reading"


_records: dict[int, _Record] = {}
_held: deque[object] = deque()


class Reading:
    """One attempt to read a source that may be one to be read once.

    Args:
        source: What is read; known again by its identity.
        mark: Tells contents of the same source apart, such as the results of a cursor's statements: what
            is the same object as at an earlier attempt has the contents of that attempt.
        anew: Whether nothing of its contents has been read, whatever was at an earlier attempt.
        remembered: Whether later attempts are to know of this one.

    Raises:
        ConfigError: An earlier attempt read a part of it and failed.
    """

    def __init__(
        self, source: object, mark: object = None, *, anew: bool = False, remembered: bool = True
    ) -> None:
        self._source = source
        found = _records.get(id(source))
        if found is not None and (anew or found.reference() is not source or found.mark is not mark):
            found = None
        self._earlier = None if found is None else found.state
        if self._earlier == "left":
            raise self._used("has been read in part")
        self._record = _remember(source, mark) if remembered else None

    def began(self, *, empty: bool) -> None:
        """Tell whether there was a first item.

        Raises:
            ConfigError: There is none, for an earlier attempt read them all.
        """
        if not empty:
            return
        if self._earlier == "ended":
            self._set("ended")
            raise self._used("has been read to its end")
        # Who finds nothing the second time has lost nothing.
        self._record = None
        _records.pop(id(self._source), None)

    def ended(self) -> None:
        """Tell that all of it was read."""
        self._set("ended")

    def close(self) -> None:
        """Tell that the attempt is over."""
        if self._record is not None and self._record.state == "reading":
            self._set("left")

    def _set(self, state: str) -> None:
        if self._record is not None:
            self._record.state = state

    def _used(self, what: str) -> ConfigError:
        return ConfigError(
            f"The source of rows ({type(self._source).__name__}) {what} by an earlier attempt, and gives"
            " these rows only once.",
            remedy="Make it anew for each attempt, or give what can be read again, such as a list.",
        )


def read_once(rows: Iterable[_Item]) -> tuple[Iterator[_Item], Reading]:
    """The items of an iterable, and the attempt to read them, which the caller closes.

    Args:
        rows: Any iterable.

    Raises:
        ConfigError: It gives its items once, and an earlier attempt took them.
    """
    iterator = iter(rows)
    # A list's new iterator is nobody's but ours, and not worth a memory.
    reading = Reading(iterator, remembered=iterator is rows or _weakly(iterator) is not None)
    try:
        first = next(iterator, _NOTHING)
        reading.began(empty=first is _NOTHING)
    except BaseException:
        reading.close()
        raise
    if first is _NOTHING:
        return iter(()), reading
    # At the speed of C, item by item.
    return itertools.chain((first,), iterator, _noting_the_end(reading)), reading


def _noting_the_end(reading: Reading) -> Iterator[Any]:
    reading.ended()
    yield from ()


def _remember(source: object, mark: object) -> _Record:
    key = id(source)
    reference: Callable[[], object] | None = _weakly(source, lambda _: _records.pop(key, None))
    if reference is None:
        reference = lambda: source  # noqa: E731 - it has to hold the source
        _held.append(source)
        if len(_held) > _HELD:
            _records.pop(id(_held.popleft()), None)
    record = _records[key] = _Record(reference, mark)
    return record


def _weakly(source: object, gone: Callable[[Any], Any] | None = None) -> weakref.ref[object] | None:
    try:
        return weakref.ref(source, gone)
    except TypeError:
        return None
