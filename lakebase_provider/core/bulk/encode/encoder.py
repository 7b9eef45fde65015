"""How the rows of one load are encoded: the choice, with its reason, and the encoder."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from lakebase_provider.core.bulk.encode.text_fields import TextColumn
from lakebase_provider.core.bulk.sources.source import Batch, Source
from lakebase_provider.core.bulk.types.target_columns import OTHER, BadValueError, Target
from lakebase_provider.core.bulk.types.values import NULL_REFUSED

if TYPE_CHECKING:
    import pyarrow as pa
#: Python rows that psycopg alone writes as soon as Arrow does.
_FEW = 500
#: Python rows that a process writes by psycopg before it imports Arrow, if nobody else has done so: they
#: cost as much more as the import does.
_IMPORT_AFTER = 50_000
#: Those written so, in loads of more than a few.
_written = 0


@dataclass(frozen=True)
class Method:
    """How rows are encoded.

    Attributes:
        format: COPY's format.
        encoder: What writes it.
        reason: Why this one.
    """

    format: Literal["binary", "text"]
    encoder: Literal["pgpq", "pyarrow", "psycopg"]
    reason: str


class BadColumnError(Exception):
    """A batch has a bad value.

    Args:
        column: Place of its column.
        cause: What is wrong with it; its index is that in the batch.
    """

    def __init__(self, column: int, cause: BadValueError) -> None:
        super().__init__(column, cause)
        self.column = column
        self.cause = cause

    @property
    def index(self) -> int:
        """Place of the row in the batch."""
        return max(self.cause.index, 0)


def choose_method(source: Source, targets: Sequence[Target], text_only: str | None = None) -> Method:
    """Choose binary COPY where every column can be encoded exactly, else text.

    Args:
        source: The source, with as many columns as there are targets.
        targets: The table's columns.
        text_only: Why the table takes no binary COPY, if it takes none.
    """
    if importlib.util.find_spec("pyarrow") is None:
        return Method("text", "psycopg", "pyarrow is not installed")
    if importlib.util.find_spec("pgpq") is None:
        return Method("text", "pyarrow", "pgpq is not installed")
    if source.python and _are_few(source):
        return Method("text", "psycopg", "few Python rows need nothing but the driver")
    from lakebase_provider.core.bulk.encode.from_arrow import needs_text

    schema = source.batch_schema
    for place, target in enumerate(targets):
        column = f"column {target.name!r} of type {target.type_name}"
        if target.kind == OTHER:
            return Method("text", "pyarrow", f"{column} is read from text by the server")
        if schema is not None and needs_text(schema.types[place], target):
            return Method("text", "pyarrow", f"{column} gets text, which the server reads")
    if text_only is not None:
        return Method("text", "pyarrow", text_only)
    return Method("binary", "pgpq", "each column has an exact binary encoding")


def _are_few(source: Source) -> bool:
    """Whether psycopg alone writes a source's Python rows sooner than Arrow does, its import included."""
    global _written
    limit = _FEW if "pyarrow" in sys.modules else max(_FEW, _IMPORT_AFTER - _written)
    rows = source.count(limit)
    if _FEW < rows <= limit:
        _written += rows
    return rows <= limit


class BatchEncoder:
    """Encodes the batches of one load.

    Args:
        method: How.
        targets: The table's columns.
        schema: The source's Arrow schema, where it has one.
        strict: True to find now what the server would refuse, so that rows can be rejected.

    Attributes:
        header: Bytes before the first batch.

    Raises:
        ColumnMismatchError: A column of the schema has a type that does not go into its target.
    """

    def __init__(
        self, method: Method, targets: Sequence[Target], schema: pa.Schema | None, *, strict: bool
    ) -> None:
        self._targets = targets
        self._text = method.format == "text"
        self._strict = strict
        self.header = b""
        self._finish: Callable[[], memoryview] = lambda: memoryview(b"")
        if method.encoder == "psycopg":
            self._columns: list[_Column] = [_PlainColumn(target, strict) for target in targets]
            self._join: Callable[[list[Any]], memoryview] = _joined
            return
        from lakebase_provider.core.bulk.encode import copy_data

        self._columns = [
            _ArrowColumn(target, None if schema is None else schema.types[place], self._text, strict)
            for place, target in enumerate(targets)
        ]
        if self._text:
            self._join = lambda arrays: copy_data.encode_text(arrays, targets)
        else:
            binary = copy_data.BinaryEncoder(targets)
            self._join, self._finish = binary.encode, binary.finish
            self.header = copy_data.BINARY_HEADER

    def encode(self, batch: Batch) -> memoryview:
        """The batch's rows as COPY data, of which the end may come with a later call's.

        Raises:
            BadColumnError: A value does not fit its column.
        """
        encoded = []
        for place, (column, values) in enumerate(zip(self._columns, batch.columns, strict=True)):
            try:
                encoded.append(column(values))
            except BadValueError as error:
                raise BadColumnError(place, error) from None
        return self._join(encoded)

    def finish(self) -> memoryview:
        """Bytes after the last batch."""
        return self._finish()


_Column = Callable[[Any], Any]


class _ArrowColumn:
    """Makes Arrow arrays for a target of whatever the source's batches hold."""

    def __init__(self, target: Target, kind: pa.DataType | None, text: bool, strict: bool) -> None:
        from lakebase_provider.core.bulk.encode.from_arrow import Caster
        from lakebase_provider.core.bulk.encode.from_python import ValuesEncoder

        self._target = target
        self._values = ValuesEncoder(target, text=text, strict=strict)
        self._new_caster = partial(Caster, target=target, text=text, strict=strict)
        self._kind = kind
        self._caster = None if kind is None else self._new_caster(kind)

    def __call__(self, values: Any) -> pa.Array:
        kind = getattr(values, "type", None)
        if kind is None:
            _refuse_none(values, self._target)
            return self._values.encode(values)
        if self._target.not_null and values.null_count:
            import pyarrow.compute as pc

            raise _null(pc.indices_nonzero(pc.is_null(values))[0].as_py())
        if self._caster is None or kind != self._kind:
            self._kind, self._caster = kind, self._new_caster(kind)
        return self._caster.cast(values)


class _PlainColumn:
    """Makes fields of Python values without any other library."""

    def __init__(self, target: Target, strict: bool) -> None:
        self._target = target
        self._encode = TextColumn(target, strict=strict).encode

    def __call__(self, values: Sequence[Any]) -> list[str]:
        _refuse_none(values, self._target)
        return self._encode(values)


def _joined(columns: list[list[str]]) -> memoryview:
    return memoryview("".join(["\t".join(row) + "\n" for row in zip(*columns, strict=True)]).encode())


def _refuse_none(values: Sequence[Any], target: Target) -> None:
    # By types: comparing with None would ask arrays for a truth that they do not have.
    if target.not_null and type(None) in set(map(type, values)):
        raise _null(next(index for index, value in enumerate(values) if value is None))


def _null(index: int) -> BadValueError:
    return BadValueError(NULL_REFUSED, kind="NULL", index=index)
