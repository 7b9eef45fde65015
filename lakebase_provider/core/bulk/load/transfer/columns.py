"""How a column of a query on one server gets into a column of a table on another, its value unchanged.

Between equal built-in types the bytes go as they are. Where the table's type is another one, or a narrower
one, the query's server converts, as ``INSERT … SELECT`` would, and refuses the value that comes back changed.
A type of an extension or of a user's own has another OID on each server: its text goes, which its input
function reads.
"""

from __future__ import annotations

from dataclasses import dataclass

from lakebase_provider.core.bulk.types.postgres_types import BY_NAME, KINDS, of_family, oids
from lakebase_provider.core.errors import ColumnMismatchError

#: OIDs below are the same on every server; those from here on each server gives out itself.
FIRST_OWN_OID = 10_000

#: Types, and their arrays, whose binary form says something of the server that sent it, or is no input.
_TEXT_ONLY = frozenset(oid for kind in KINDS if kind.text_only for oid in (kind.oid, kind.array_oid) if oid)
#: OIDs of arrays with those of their elements, where rules differ by the element.
_ELEMENTS = {
    kind.array_oid: kind.oid for kind in KINDS if kind.family not in ("reg", "shape", "range", "other")
}


def _of(*families: str) -> frozenset[int]:
    return frozenset(kind.oid for kind in of_family(*families) if kind.oid)


_TEXTS, _JSONS = _of("text"), _of("json")
_INTEGERS = _of("integer")
#: oid and the reg* types: casts between them and int4 take the bits for a number of the other kind.
_OIDS = _of("oid", "reg")
#: Shapes: of those that a cast makes of each other two are equal whose areas are.
_SHAPES = _of("shape")
_RECORDS = frozenset({BY_NAME["record"].oid, BY_NAME["record"].array_oid})
#: The first server that tells itself whether keys of JSON are unique.
_KNOWS_JSON = 160_000
#: "char", one byte, is cast to a number as its code.
_TEXT, _BPCHAR, _VARCHAR, _NAME, _CHAR = oids("text", "bpchar", "varchar", "name", "char")
_NAMES = frozenset({_CHAR, _NAME})
_JSON, _JSONB = oids("json", "jsonb")
_FLOAT4, _FLOAT8, _NUMERIC, _MONEY = oids("float4", "float8", "numeric", "money")
_DATE, _TIME, _TIMETZ = oids("date", "time", "timetz")
_TIMESTAMP, _TIMESTAMPTZ = oids("timestamp", "timestamptz")
_BIT, _INET, _INTERVAL = oids("bit", "inet", "interval")
#: Ranges of days and of times, whose texts would need a look at each bound.
_OF_TIMES = frozenset(
    oid
    for kind in of_family("range")
    if kind.name.startswith(("ts", "tstz", "date"))
    for oid in (kind.oid, kind.array_oid)
)
#: Texts of intervals of which digits may be lost.
_MANY_DIGITS = "[.,][0-9]{6}[0-9]*[1-9]|[.,][0-9]+\\s*(u|mic|mil|ms|y|d?ec|c)"
_ZONED = frozenset(kind.oid for kind in of_family("temporal") if kind.zoned)
_UNZONED = _of("temporal") - _ZONED

# ISO 8601, and what Postgres itself writes: other texts may lose a part of them.
_DAY = r"([0-9]{4,7}-[0-9]{2}-[0-9]{2}|-?infinity)"
_CLOCK = r"[0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,6})?)?"
_ZONE = r"(Z|[+-][0-9]{2}(:?[0-9]{2}){0,2})"
_ISO = {
    _DATE: f"^{_DAY}( BC)?$",
    _TIME: f"^{_CLOCK}$",
    _TIMETZ: f"^{_CLOCK}{_ZONE}$",
    _TIMESTAMP: f"^{_DAY}([ T]{_CLOCK})?( BC)?$",
    _TIMESTAMPTZ: f"^{_DAY}([ T]{_CLOCK}{_ZONE}?)?( BC)?$",
}
_HAS_ZONE = f"[0-9]{_ZONE}( BC)?$"


@dataclass(frozen=True)
class Typed:
    """A type with its modifier.

    Attributes:
        oid: OID of the type, of the one below it where it is a domain.
        typmod: Its modifier, -1 for none or an unknown one.
        name: As SQL writes it.
        cuts: Whether a part of it, such as a range's bound, may be read from a text that says more.
    """

    oid: int
    typmod: int
    name: str
    cuts: bool = False

    @property
    def built_in(self) -> bool:
        """Whether every server knows it by this OID."""
        return 0 < self.oid < FIRST_OWN_OID

    @property
    def element(self) -> int:
        """OID of an array's elements, or of the type itself."""
        return _ELEMENTS.get(self.oid, self.oid)

    @property
    def plain_name(self) -> str:
        """Its name without the modifier."""
        if self.element == _INTERVAL:
            return "interval" if self.oid == _INTERVAL else "interval[]"
        head, bracket, rest = self.name.partition("(")
        return head + rest.partition(")")[2] if bracket else self.name


@dataclass(frozen=True)
class Passage:
    """How one column goes.

    Attributes:
        binary: Whether its bytes mean the same on both sides.
        value: What the query's server sends, of the column given as ``{c}``; None for the column itself.
        guard: When that is the same value; None for always.
    """

    binary: bool = True
    value: str | None = None
    guard: str | None = None


def passage(column: str, source: Typed, target: Typed, version: int = _KNOWS_JSON) -> Passage:
    """How a value of one type gets into a column of another.

    Args:
        column: The column's name, for the error.
        source: The type of the query's column.
        target: The type of the table's.
        version: Of the query's server, as libpq gives it.

    Raises:
        ColumnMismatchError: It would have to be changed.
    """
    if target.built_in and target.element == _JSONB and source.element != _JSONB:
        return _to_jsonb(column, source, target, version)
    if not source.built_in or not target.built_in:
        return _by_text(column, source, target)
    if source.oid == target.oid:
        return Passage(source.oid not in _TEXT_ONLY, guard=_fits(source, target))
    if source.oid in _TEXTS and target.oid in _TEXTS:
        # One form of bytes, and blanks stay where they are.
        return Passage(guard=_fits(source, target))
    return _converted(column, source, target)


def mismatch(column: str, source: Typed, target: Typed) -> ColumnMismatchError:
    """The error of two types between which no value goes unchanged."""
    return ColumnMismatchError(
        f"Column {column!r} is of type {source.name} in the query, and of type {target.name} in the table.",
        remedy=f"Convert it in the query, such as {column}::{target.name}, if that is intended.",
    )


def _to_jsonb(column: str, source: Typed, target: Typed, version: int) -> Passage:
    """jsonb keeps the last of several values of one key: JSON that has such is refused."""
    if target.oid != _JSONB:
        if source.element not in _TEXTS | {_JSON}:
            raise mismatch(column, source, target)
        each = _unique("e", version)
        guard = f"NOT EXISTS (SELECT FROM pg_catalog.unnest({{c}}::json[]) e WHERE NOT {each})"
        return Passage(value=f"{{c}}::{target.name}", guard=guard)
    if source.element == _MONEY:
        raise mismatch(column, source, target)
    if source.oid in _TEXTS or source.oid == _JSON:
        return Passage(value=f"{{c}}::{target.name}", guard=_unique("{c}::json", version))
    holds_json = not source.built_in or source.element == _JSON or source.oid in _RECORDS
    return Passage(
        value=_to_json(target), guard=_unique("pg_catalog.to_json({c})", version) if holds_json else None
    )


def _unique(json: str, version: int) -> str:
    """Whether no object within a value of json has a key twice."""
    if version >= _KNOWS_JSON:
        return f"({json} IS JSON WITH UNIQUE KEYS)"
    # Of what is no object, or no array, there is an empty one.
    pairs = "CASE pg_catalog.json_typeof(v) WHEN 'object' THEN v ELSE '{}' END"
    items = "CASE pg_catalog.json_typeof(v) WHEN 'array' THEN v ELSE '[]' END"
    return (
        f"(NOT EXISTS (WITH RECURSIVE w(v) AS (SELECT {json} UNION ALL SELECT e.value FROM w, LATERAL ("  # noqa: S608
        f"SELECT value FROM pg_catalog.json_each({pairs}) UNION ALL"
        f" SELECT value FROM pg_catalog.json_array_elements({items})) e)"
        f" SELECT FROM w, LATERAL (SELECT FROM pg_catalog.json_object_keys({pairs}) k"
        " GROUP BY k HAVING pg_catalog.count(*) > 1) twice))"
    )


def _by_text(column: str, source: Typed, target: Typed) -> Passage:
    if target.oid == _JSON:
        return Passage(value=_to_json(target))
    if target.built_in and target.oid not in _TEXTS:
        raise mismatch(column, source, target)
    if source.built_in and (source.element in (_TIMESTAMPTZ, _MONEY) or target.cuts):
        raise mismatch(column, source, target)  # what its text says depends on the session, or may be cut
    if target.built_in:
        text = Typed(_TEXT, -1, "text")
        return Passage(value="{c}::text", guard=_fits(text, target, "{c}::text"))
    return Passage(binary=False)


def _fits(source: Typed, target: Typed, value: str = "{c}") -> str | None:
    """When the table's type, narrower than the query's, holds a value as it is."""
    if target.oid == _NAME and source.oid != _NAME:
        return f"octet_length({value}) <= 63"
    if target.typmod == -1 or (source.oid, source.typmod) == (target.oid, target.typmod):
        return None
    if target.oid == _VARCHAR or (target.oid == _BPCHAR and source.oid != _BPCHAR):
        return f"char_length({value}) <= {target.typmod - 4}"
    if target.element == _INTERVAL:
        # Two that are equal may differ: a month has as many hours as 30 days.
        text = "text[]" if target.oid != target.element else "text"
        return f"{value}::{target.name}::{text} = {value}::{target.plain_name}::{text}"
    if target.oid == _BIT or (target.oid == _BPCHAR and value == "{c}"):
        return f"{{c}}::{target.name} = {{c}}"
    return f"{value}::{target.name} = {value}"


def _converted(column: str, source: Typed, target: Typed) -> Passage:
    """Between two built-in types."""
    of, to = source.element, target.element
    if (of in _ZONED and to in _UNZONED) or (_MONEY in (of, to) and not {of, to} <= {_MONEY, _NUMERIC}):
        raise mismatch(column, source, target)
    binary = target.oid not in _TEXT_ONLY
    if target.oid == _JSON:
        json = source.oid in _TEXTS | _JSONS
        return Passage(value=f"{{c}}::{target.name}" if json else _to_json(target))
    if {of, to} <= _SHAPES:
        raise mismatch(column, source, target)
    if _CHAR in (of, to) and not {source.oid, target.oid} & _TEXTS and not {of, to} <= _TEXTS | {_CHAR}:
        raise mismatch(column, source, target)
    arrays = (source.oid != of, target.oid != to)
    if arrays in ((True, False), (False, True)) and not {source.oid, target.oid} & _TEXTS:
        raise mismatch(column, source, target)
    if source.oid in _TEXTS:
        return _from_text(column, source, target, binary=binary)
    if target.oid in _TEXTS:
        # A cast adds a mask to an inet that has none.
        inet = "CASE WHEN {c} IS NOT NULL THEN pg_catalog.concat({c}) END"
        value = inet if source.oid == _INET else "{c}::text"
        return Passage(value=value, guard=_fits(Typed(_TEXT, -1, "text"), target, value))
    if (source.oid, to) in ((_TIMESTAMP, _TIMESTAMPTZ), (_DATE, _TIMESTAMPTZ)) and target.oid == to:
        value = "({c}::timestamp AT TIME ZONE 'UTC')"
        return Passage(value=value, guard=_fits(Typed(to, -1, ""), target, value))
    if to in _ZONED:
        raise mismatch(column, source, target)
    if (of in _INTEGERS and to in _OIDS) or (of in _OIDS and to in _INTEGERS):
        number = "int8[]" if source.oid != of else "int8"
        return Passage(binary, f"{{c}}::{target.name}", f"{{c}}::{target.name}::{number} = {{c}}::{number}")
    if {of, to} <= _JSONS:
        return Passage(binary, f"{{c}}::{target.name}")
    if of in (_FLOAT4, _FLOAT8) and to == _NUMERIC:
        # The cast keeps 15 digits, and the text as many as there are.
        text = "text[]" if source.oid != of else "text"
        value = f"{{c}}::{text}::{target.plain_name}"
        return Passage(binary, value, _fits(Typed(target.oid, -1, ""), target, value))
    return Passage(binary, f"{{c}}::{target.name}", f"{{c}}::{target.name}::{source.name} = {{c}}")


def _to_json(target: Typed) -> str:
    function = "to_json" if target.oid == _JSON else "to_jsonb"
    return f"pg_catalog.{function}({{c}})"


def _from_text(column: str, source: Typed, target: Typed, *, binary: bool) -> Passage:
    """A text is read as the type's input function reads it; what that would drop is refused."""
    plain, guards = target.plain_name, []
    if (target.oid != target.element and target.element in _ISO) or target.oid in _OF_TIMES:
        raise mismatch(column, source, target)
    iso = _ISO.get(target.oid)
    value = f"{{c}}::{target.name}"
    if iso is not None:
        guards.append(f"{{c}}::text ~ '{iso}'")
    if target.oid == _TIMESTAMPTZ:
        zoned = f"{{c}}::text ~ '{_HAS_ZONE}'"
        plain_value = f"CASE WHEN {zoned} AND {{c}}::text ~ ':' THEN {{c}}::timestamptz"
        plain_value += " ELSE {c}::timestamp AT TIME ZONE 'UTC' END"
        value = f"({plain_value})::{target.name}"
        if target.typmod != -1:
            guards.append(f"{value} = ({plain_value})")
    elif target.oid == _BIT:
        guards.append(f"{{c}}::varbit = {{c}}::varbit::{target.name}::varbit")
    elif target.element in _NAMES:
        text = "text[]" if target.oid != target.element else "text"
        guards.append(f"{value}::{text} = {{c}}::{text}")
    elif target.element in (_FLOAT4, _FLOAT8):
        text = "text[]" if target.oid != target.element else "text"
        numeric = "numeric[]" if target.oid != target.element else "numeric"
        guards.append(f"{value}::{text}::{numeric} = {{c}}::{numeric}")
    elif target.element == _INTERVAL:
        guards += filter(None, (f"{{c}}::text !~* '{_MANY_DIGITS}'", _fits(source, target)))
    elif target.typmod != -1:
        guards.append(f"{{c}}::{plain} = {value}")
    return Passage(binary, value, " AND ".join(guards) or None)
