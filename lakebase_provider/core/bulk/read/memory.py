"""Record batches that are kept, each in one piece of memory of just its size.

Allocators keep what lies between long-lived and short-lived pieces: of a table whose batches are decoded one
by one, a sixth more than its arrays hold.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

#: What Arrow wants the places of buffers to be multiples of.
_ALIGNMENT = 64
#: Memory of this process alone; Linux also gives all its pages at once.
_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0)
#: Texts by which a column is judged, from the start of a batch.
_SAMPLE = 4096
#: Bytes that a text view holds itself.
_INLINE = 12


@cache
def scratch_pool() -> pa.MemoryPool:
    """Where Arrow puts what is soon freed.

    Its usual allocator takes memory by huge pages, one at least for each size of what it is asked for.
    """
    import pyarrow as pa

    try:
        return pa.jemalloc_memory_pool()
    except NotImplementedError:  # not in each build
        return pa.default_memory_pool()


def packed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A copy of the batch in memory of its own, which is given back when the last of its columns is freed."""
    import pyarrow as pa

    size = sum(_room(part) for column in batch.columns for part in column.buffers() if part is not None)
    if size == 0:
        return batch
    memory = pa.py_buffer(mmap.mmap(-1, size, flags=_FLAGS))
    end = 0

    def keep(part: pa.Buffer) -> pa.Buffer:
        nonlocal end
        begin, end = end, end + _room(part)
        memoryview(memory).cast("B")[begin : begin + part.size] = memoryview(part).cast("B")
        return memory.slice(begin, part.size)

    return pa.RecordBatch.from_arrays(
        [_copied(column, keep) for column in batch.columns], schema=batch.schema
    )


def _room(part: pa.Buffer) -> int:
    size: int = -(-part.size // _ALIGNMENT) * _ALIGNMENT
    return size


def _copied(array: pa.Array, keep: Callable[[pa.Buffer], pa.Buffer]) -> pa.Array:
    import pyarrow as pa

    parts, children = array.buffers(), None
    if pa.types.is_list(array.type):  # the only nested type that a result has
        parts, children = parts[:2], [_copied(array.values, keep)]
    return pa.Array.from_buffers(
        array.type,
        len(array),
        [None if part is None else keep(part) for part in parts],
        array.null_count,
        array.offset,
        children,
    )


def as_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with its texts as views, as Polars keeps them; many equal ones share their bytes."""
    import pyarrow as pa

    try:
        columns = [_views(column) if pa.types.is_string(column.type) else column for column in batch.columns]
    except pa.ArrowNotImplementedError:  # an older pyarrow; Polars makes views of texts itself
        return batch
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _views(texts: pa.Array) -> pa.Array:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    pool = scratch_pool()
    if texts.nbytes > (4 + _INLINE) * len(texts) and _repeats(texts.slice(0, _SAMPLE)):
        encoded = pc.dictionary_encode(texts, memory_pool=pool)
        distinct = encoded.dictionary.cast(pa.string_view(), memory_pool=pool)
        _, views, *data = distinct.buffers()
        places = np.frombuffer(encoded.indices.buffers()[1], np.int32)[: len(texts)]
        # A view has 16 bytes; for NULL any one will do.
        views = pa.py_buffer(np.take(np.frombuffer(views, np.complex128), places, mode="clip"))
        parts = [texts.buffers()[0], views, *data]
        return pa.Array.from_buffers(pa.string_view(), len(texts), parts, texts.null_count)
    views = texts.cast(pa.string_view(), memory_pool=pool)
    parts = views.buffers()
    if parts[-1] is None:  # short texts have no bytes beside their views, which crashes Polars before 2.1
        return pa.Array.from_buffers(views.type, len(views), parts[:2], views.null_count)
    return views


def _repeats(sample: pa.Array) -> bool:
    """Whether less than half of the texts differ, so that to look for equal ones is worth its time."""
    import pyarrow.compute as pc

    found = pc.dictionary_encode(sample, memory_pool=scratch_pool())
    return 0 < 2 * len(found.dictionary) < len(sample)
