"""What can be read once, and has been: an iterator, a stream of record batches, a cursor.

Read a second time, it looks like a source without rows, and replacing by it would empty the table. So what
has been read is remembered for as long as it lives. Whether other code has read it shows in a generator,
which knows whether it has started, in an iterator of Python's own, which lets go at its end of what it read,
and for a wrapper in what it wraps.
"""

from __future__ import annotations

import gc
import inspect
import itertools
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, TypeVar

from lakebase_provider.core.errors import ConfigError

_Item = TypeVar("_Item")
_NOTHING: Any = object()
#: Of an object that takes no weak references, such as a map, this many are kept alive.
_HELD = 16
#: Objects that are looked at for what a source reads from.
_LOOKED_AT = 100
#: Python's own iterators that hold what they read, and let go of it at its end.
_LETTING_GO = frozenset(
    {
        *map(type, (iter([]), iter(()), iter({}), iter({}.values()), iter(set()), reversed([]))),
        itertools.islice,
        itertools.chain,
    }
)


@dataclass
class _Record:
    """How far a source has been read."""

    reference: Callable[[], object]
    mark: object
    state: str = "reading"


_records: dict[int, _Record] = {}
_held: deque[object] = deque()


class Reading:
    """One attempt to read a source that can perhaps be read only once.

    Args:
        source: What is read; known again by its identity.
        mark: Tells contents of the same source apart, such as the results of a cursor's statements: what
            is the same object as at an earlier attempt has the contents of that attempt.
        anew: Whether nothing of its contents has been read, whatever was at an earlier attempt.
        remembered: Whether later attempts are to know of this one.
        whole: Whether what can be read only once must have items, and all of them: rows are removed in favour
            of these, and a source that other code has consumed looks like one without rows.
        moved: Whether some of its items were read before.
        name: What it is called in errors; left out, by its type.

    Raises:
        ConfigError: An earlier attempt read a part of it and failed.
    """

    def __init__(
        self,
        source: object,
        mark: object = None,
        *,
        anew: bool = False,
        remembered: bool = True,
        whole: bool = False,
        moved: bool = False,
        name: str | None = None,
    ) -> None:
        self._source = source
        self._name = name or type(source).__name__
        self._whole = whole
        self._moved = moved
        found = _records.get(id(source))
        if found is not None and (anew or found.reference() is not source or found.mark is not mark):
            found = None
        self._earlier = None if found is None else found.state
        if self._earlier == "left":
            raise self._used("has been read in part by an earlier attempt")
        # Asked before it is read, for then it has begun in any case.
        self._begun = found is None and not anew and _has_begun(source)
        self._record = _remember(source, mark) if remembered else None

    def began(self, *, empty: bool) -> None:
        """Tell whether there was a first item.

        Raises:
            ConfigError: There is none because an earlier attempt or other code read them; or, if all of them
                are needed, there is none for whatever reason, or some were read before.
        """
        if not empty:
            if self._whole and self._moved:
                raise self._used("has been read in part before")
            return
        if self._earlier == "ended":
            self._set("ended")
            raise self._used("has been read to its end by an earlier attempt")
        if self._begun:
            self._set("ended")
            raise self._used("is empty: it, or what it reads from, was read before")
        # Whoever finds nothing the second time has lost nothing.
        self._set("empty")
        if self._whole:
            raise ConfigError(
                f"The source of rows ({self._name}) is empty, and would remove the table's "
                "rows. It cannot tell how many it has, and they may have been read before.",
                remedy="Create it anew, give a list, or set allow_empty=True if there may be no rows.",
            )

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
            f"The source of rows ({self._name}) {what}, and its rows can be read only once.",
            remedy="Create it anew for each attempt, or give something that can be read again, such as a "
            "list.",
        )


def read_once(rows: Iterable[_Item], *, whole: bool = False) -> tuple[Iterator[_Item], Reading]:
    """The items of an iterable, and the attempt to read them, which the caller closes.

    Args:
        rows: Any iterable.
        whole: Whether it is an error if it is empty and can perhaps be read only once.

    Raises:
        ConfigError: It can be read only once, and an earlier attempt consumed it, or it has no rows.
    """
    iterator = iter(rows)
    # A list's new iterator is only ours, and not worth remembering.
    reading = Reading(
        iterator,
        remembered=iterator is rows or _weakly(iterator) is not None,
        # What has no length may read from what is used up; its length would say that it is to be empty.
        whole=whole and not isinstance(rows, Sized),
        name=type(rows).__name__,
    )
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


def _has_begun(source: object) -> bool:
    """Whether a source, or what it reads from, has certainly been asked for items before."""
    found, seen = [source], {id(source)}
    for item in found:
        record = _records.get(id(item))
        # That of the source itself is known to be of other contents.
        if record is not None and item is not source and record.reference() is item:
            if record.state != "empty" and not _has_other_contents(item, record):
                return True
            continue
        if not hasattr(type(item), "__next__"):
            continue
        held: Iterable[object]
        if type(item) in _LETTING_GO and not gc.get_referents(item):
            return True
        if isinstance(item, Generator):
            if inspect.getgeneratorstate(item) != inspect.GEN_CREATED:
                return True
            held = inspect.getgeneratorlocals(item).values()
        else:
            held = _held_by(item)
        new = [each for each in held if id(each) not in seen]
        seen.update(map(id, new))
        found.extend(new[: max(0, _LOOKED_AT - len(found))])
    return False


def _has_other_contents(item: Any, record: _Record) -> bool:
    # A cursor that has run another statement.
    if record.mark is not None:
        return getattr(item, "description", None) is not record.mark
    return getattr(item, "rownumber", None) == 0


def _held_by(iterator: object) -> Iterator[object]:
    for item in (*gc.get_referents(iterator), *getattr(iterator, "__dict__", {}).values()):
        # Such as the iterators of a zip.
        yield from item if type(item) is tuple else (item,)


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
