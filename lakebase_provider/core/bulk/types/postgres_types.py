"""THE table of Postgres' types: whatever this package knows of one stands in its row, and nowhere else.

A new type is a new row here and, where what its family shares does not do, a function of its own registered
by its name: in ``values`` a check, in ``encode.binary`` a packer, in ``encode.from_python`` an array's maker,
in ``read.decoding.decode`` a decoder.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from numbers import Integral
from operator import methodcaller as call
from typing import Any, Literal, TypeVar
from uuid import UUID

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: Types of Python's values that some column takes from INSERT and COPY alike.
PYTHON_TYPES: frozenset[type] = frozenset(
    {int, float, str, bool, Decimal, datetime, date, time, timedelta, bytes, UUID, dict, list}
)


@dataclass(frozen=True, eq=False)
class Kind:
    """A type of Postgres.

    Attributes:
        name: Its name in the catalog; ``"enum"`` stands for all enums.
        oid: Its OID, the same on every server; 0 where each server gives out its own.
        array_oid: OID of its arrays; 0 if it has none.
        family: What it shares its treatment with.
        sql: Its name as Postgres writes it (``format_type``); left out, `name`.
        form: Its binary form as ``struct`` and NumPy name it, where all values have one size.
        modifier: What its modifier says: digits of a number, characters, digits of a second, or an
            interval's fields and digits of a second.
        arrow: Makes, of the module pyarrow, the type that its binary form is read as; None where it is read
            as the server's text, and for a numeric, whose type its digits decide.
        sent: Makes the type that encodes to its binary form, where that is another one.
        polars: Makes, of the module polars, the type that it is read as; None as for `arrow`.
        takes: Types of Python's values that binary COPY takes as they are; empty if it is sent as text.
        alike: Types of Python's values that COPY and INSERT write alike. What COPY refuses, INSERT decides;
            COPY would take a few that INSERT refuses, and digits of a float that the cast to numeric leaves
            out; json keeps its text, whose blanks differ.
        casts: Of a type that is sent as text: types of Python's values that INSERT casts to it.
        holds: Names of the types, as ``pyarrow.types`` has them, for which it is the type of a new column.
        values: The type of Python's values for which it is the type of a new column.
        extension: Name of Arrow's extension type that means it.
        zoned: Whether its values have a time zone.
        one_image: Whether its values are equal only where their binary images are.
        listable: Whether pgpq writes arrays of it with the OID that the server expects.
        reads_all: Whether its input function reads nearly any text, and nothing is cast to it.
        text_only: Whether its binary form says something of the server that sent it, or is no input.
        delimiter: What separates the elements of its arrays, as text.
    """

    name: str
    oid: int
    array_oid: int
    family: str
    sql: str = ""
    form: str = ""
    modifier: Literal["", "digits", "length", "fraction", "interval"] = ""
    arrow: Callable[[Any], Any] | None = None
    sent: Callable[[Any], Any] | None = None
    polars: Callable[[Any], Any] | None = None
    takes: AbstractSet[type] = frozenset()
    alike: AbstractSet[type] = frozenset({str})
    casts: AbstractSet[type] = frozenset()
    holds: tuple[str, ...] = ()
    values: type | None = None
    extension: str = ""
    zoned: bool = False
    one_image: bool = False
    listable: bool = False
    reads_all: bool = False
    text_only: bool = False
    delimiter: str = ","

    def __post_init__(self) -> None:
        object.__setattr__(self, "sql", self.sql or self.name)

    @property
    def width(self) -> int:
        """Bytes of its binary form; 0 where values differ in size."""
        return struct.calcsize(self.form)


def _like(family: str, *rows: tuple[str, int, int], **facts: Any) -> Iterator[Kind]:
    """Rows that differ in name and OIDs alone."""
    return (Kind(*row, family, **facts) for row in rows)


KINDS: tuple[Kind, ...] = (
    Kind("bool", 16, 1000, "boolean", "boolean", ">?", arrow=call("bool_"), polars=call("Boolean"),
         takes={bool}, alike=PYTHON_TYPES, holds=("boolean",), extension="arrow.bool8",
         one_image=True, listable=True, values=bool),
    Kind("int2", 21, 1005, "integer", "smallint", ">h", arrow=call("int16"), polars=call("Int16"),
         takes={int}, alike=PYTHON_TYPES, holds=("int8", "int16", "uint8"), one_image=True, listable=True),
    Kind("int4", 23, 1007, "integer", "integer", ">i", arrow=call("int32"), polars=call("Int32"),
         takes={int}, alike=PYTHON_TYPES, holds=("int32", "uint16"), one_image=True, listable=True),
    Kind("int8", 20, 1016, "integer", "bigint", ">q", arrow=call("int64"), polars=call("Int64"),
         takes={int}, alike=PYTHON_TYPES, holds=("int64", "uint32"), one_image=True, listable=True,
         values=int),
    Kind("float4", 700, 1021, "float", "real", ">f", arrow=call("float32"), polars=call("Float32"),
         takes={float}, alike=PYTHON_TYPES, holds=("float16", "float32")),
    Kind("float8", 701, 1022, "float", "double precision", ">d", arrow=call("float64"),
         polars=call("Float64"), takes={float}, alike=PYTHON_TYPES, holds=("float64",), listable=True,
         values=float),
    Kind("numeric", 1700, 1231, "numeric", modifier="digits",
         takes={Decimal, int}, alike={int, Decimal, str}, values=Decimal),
    Kind("oid", 26, 1028, "oid", form=">I", arrow=call("int64"), polars=call("Int64"), casts={Integral},
         one_image=True),
    Kind("money", 790, 791, "money", casts={Integral, Decimal}),
    Kind("text", 25, 1009, "text", arrow=call("string"), polars=call("String"), takes={str},
         alike=PYTHON_TYPES, holds=("string", "large_string", "string_view", "null"), listable=True,
         values=str),
    Kind("varchar", 1043, 1015, "text", "character varying", modifier="length", arrow=call("string"),
         polars=call("String"), takes={str}, alike=PYTHON_TYPES),
    Kind("bpchar", 1042, 1014, "text", "character", modifier="length", arrow=call("string"),
         polars=call("String"), takes={str}, alike=PYTHON_TYPES),
    Kind("name", 19, 1003, "text", arrow=call("string"), polars=call("String"), takes={str}),
    Kind("enum", 0, 0, "text", takes={str}),
    Kind("char", 18, 1002, "char", '"char"', reads_all=True),
    Kind("json", 114, 199, "json", arrow=call("string"), takes={dict, list, str}),
    Kind("jsonb", 3802, 3807, "json", arrow=call("string"), takes={dict, list, str},
         alike={str, dict, list}, holds=("struct", "map"), extension="arrow.json", values=dict),
    Kind("bytea", 17, 1001, "bytes", arrow=call("binary"), polars=call("Binary"), takes={bytes},
         alike=PYTHON_TYPES, holds=("binary", "large_binary", "fixed_size_binary", "binary_view"),
         values=bytes),
    Kind("uuid", 2950, 2951, "uuid", form=">16s", arrow=call("string"), sent=call("binary", 16),
         takes={UUID}, alike=PYTHON_TYPES, extension="arrow.uuid", one_image=True, values=UUID),
    Kind("date", 1082, 1182, "temporal", form=">i", arrow=call("date32"), polars=call("Date"),
         takes={date}, alike=PYTHON_TYPES, holds=("date",), one_image=True, values=date),
    Kind("time", 1083, 1183, "temporal", "time without time zone", ">q", "fraction",
         arrow=call("time64", "us"), polars=call("Time"), takes={time}, alike={time}, holds=("time",),
         one_image=True, values=time),
    Kind("timetz", 1266, 1270, "temporal", "time with time zone", modifier="fraction", alike={time},
         casts={time}, zoned=True),
    Kind("timestamp", 1114, 1115, "temporal", "timestamp without time zone", ">q", "fraction",
         arrow=call("timestamp", "us"), polars=call("Datetime", "us"), takes={datetime}, alike=PYTHON_TYPES,
         one_image=True, values=datetime),
    Kind("timestamptz", 1184, 1185, "temporal", "timestamp with time zone", ">q", "fraction",
         arrow=call("timestamp", "us", "UTC"), polars=call("Datetime", "us", "UTC"), takes={datetime},
         alike=PYTHON_TYPES, zoned=True, one_image=True),
    Kind("interval", 1186, 1187, "interval", form=">qii", modifier="interval", arrow=call("duration", "us"),
         polars=call("Duration", "us"), alike={timedelta, str}, casts={timedelta, time},
         holds=("duration", "interval"), values=timedelta),
    Kind("bit", 1560, 1561, "bits"),
    Kind("varbit", 1562, 1563, "bits", "bit varying"),
    *_like("network", ("inet", 869, 1041), ("cidr", 650, 651)),
    *_like("shape", ("point", 600, 1017), ("lseg", 601, 1018), ("path", 602, 1019),
           ("polygon", 604, 1027), ("line", 628, 629), ("circle", 718, 719)),
    Kind("box", 603, 1020, "shape", delimiter=";"),
    *_like("range", ("int4range", 3904, 3905), ("int8range", 3926, 3927), ("numrange", 3906, 3907),
           ("daterange", 3912, 3913), ("tsrange", 3908, 3909), ("tstzrange", 3910, 3911),
           ("int4multirange", 4451, 6150), ("int8multirange", 4536, 6157), ("nummultirange", 4532, 6151),
           ("datemultirange", 4535, 6155), ("tsmultirange", 4533, 6152), ("tstzmultirange", 4534, 6153)),
    # By text: these tell OIDs of functions, tables …, a record those of its columns, XML its encoding; the
    # server sends an empty tsquery, and takes none.
    *_like("reg", ("regproc", 24, 1008), ("regprocedure", 2202, 2207), ("regoper", 2203, 2208),
           ("regoperator", 2204, 2209), ("regtype", 2206, 2211), ("regconfig", 3734, 3735),
           ("regdictionary", 3769, 3770), ("regnamespace", 4089, 4090), ("regrole", 4096, 4097),
           ("regcollation", 4191, 4192), text_only=True),
    Kind("regclass", 2205, 2210, "reg", casts={Integral}, text_only=True),
    *_like("other", ("record", 2249, 2287), ("aclitem", 1033, 1034), ("internal", 2281, 0),
           ("void", 2278, 0), ("unknown", 705, 0), text_only=True),
    Kind("xml", 142, 143, "xml", text_only=True, reads_all=True),
    Kind("tsquery", 3615, 3645, "other", text_only=True, reads_all=True),
    *_like("other", ("tsvector", 3614, 3643), ("jsonpath", 4072, 4073), reads_all=True),
)  # fmt: skip
#: The rows by name.
BY_NAME = {kind.name: kind for kind in KINDS}
#: The rows by OID, without that of arrays; and by an array's OID that of its elements.
BY_OID = {kind.oid: kind for kind in KINDS if kind.oid}
ELEMENTS = {kind.array_oid: kind.oid for kind in KINDS if kind.array_oid}
#: The rows by the type of Python's values that a new column is for.
BY_VALUES = {kind.values: kind for kind in KINDS if kind.values}


def of_family(*families: str) -> tuple[Kind, ...]:
    """The rows of these families."""
    return tuple(kind for kind in KINDS if kind.family in families)


def oids(*names: str) -> tuple[int, ...]:
    """The OIDs of types."""
    return tuple(BY_NAME[name].oid for name in names)


TEXTS = frozenset(kind.name for kind in of_family("text"))
JSONS = frozenset(kind.name for kind in of_family("json"))
FLOATS = frozenset(kind.name for kind in of_family("float"))
#: Bits of the integers.
INTEGERS = {kind.name: kind.width * 8 for kind in of_family("integer")}
#: Types of which Postgres has values beyond Python's: infinities, 24:00, years before 1 and after 9999.
TEMPORAL = frozenset(kind.name for kind in of_family("temporal", "interval"))


class ByName(dict[str, _Function]):
    """Functions by the name of the type that they are for."""

    def of(self, *names: str) -> Callable[[_Function], _Function]:
        """Register the decorated function for these types."""

        def register(function: _Function) -> _Function:
            self.update(dict.fromkeys(names, function))
            return function

        return register
