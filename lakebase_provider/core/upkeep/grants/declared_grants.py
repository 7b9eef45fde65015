"""A declaration of roles and grants, as code or a file has it, checked before anything is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lakebase_provider.core.base.choices import require_choice
from lakebase_provider.core.base.sql.names import identifier, split_name
from lakebase_provider.core.config import arguments
from lakebase_provider.core.errors import ConfigError

#: Everybody, instead of a role.
PUBLIC = "PUBLIC"
#: All that is of a kind in a schema, instead of a name.
EVERY = "*"
#: What is declared of a role; ``ROLE`` is a plain one that cannot log in, for others to be members of.
ROLE_TYPES = ("USER", "SERVICE_PRINCIPAL", "GROUP", "ROLE")


@dataclass(frozen=True)
class ObjectKind:
    """A kind of object.

    Attributes:
        word: How SQL calls it in GRANT.
        plural: How ALTER DEFAULT PRIVILEGES calls it; None if it knows none of this kind.
        letter: What the catalog calls it in default privileges, and ``acldefault`` in lower case.
        privileges: Those that there are.
    """

    word: str
    plural: str | None
    letter: str
    privileges: tuple[str, ...]


_OF_TABLES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN")
#: By the key of a declaration.
KINDS: Mapping[str, ObjectKind] = {
    "database": ObjectKind("DATABASE", None, "d", ("CONNECT", "CREATE", "TEMPORARY")),
    "schemas": ObjectKind("SCHEMA", None, "n", ("USAGE", "CREATE")),
    "tables": ObjectKind("TABLE", "TABLES", "r", _OF_TABLES),
    "sequences": ObjectKind("SEQUENCE", "SEQUENCES", "S", ("USAGE", "SELECT", "UPDATE")),
    "functions": ObjectKind("ROUTINE", "ROUTINES", "f", ("EXECUTE",)),
}
_KEYS = ("to", "privileges", "future", *KINDS)
_ROW = 'Give grants such as {"to": "analysts", "privileges": "SELECT", "tables": "sales.*"}.'
_GROUPS = "'member_of'"
_ROLE = 'Give roles such as {"analysts": {"type": "GROUP"}}.'


@dataclass(frozen=True)
class DeclaredRole:
    """A role that there is to be.

    Attributes:
        name: Its name.
        type: One of :data:`ROLE_TYPES`; None for one that others make.
        member_of: Roles that it is a member of.
    """

    name: str
    type: str | None
    member_of: tuple[str, ...]


@dataclass(frozen=True)
class DeclaredGrant:
    """A row of a declaration.

    Attributes:
        to: The roles, or :data:`PUBLIC`.
        privileges: What they may; those of a newer server are left out where ``all_of_them``.
        all_of_them: Whether all privileges were asked for.
        kind: The key of :data:`KINDS`.
        objects: Schema and name of each; a schema's or the database's own have no schema.
        future: Roles whose objects of later get the privileges too; None for the one that is connected.
    """

    to: tuple[str, ...]
    privileges: tuple[str, ...]
    all_of_them: bool
    kind: str
    objects: tuple[tuple[str | None, str], ...]
    future: tuple[str | None, ...]

    @property
    def schemas(self) -> tuple[str, ...]:
        """The schemas that it speaks of."""
        if self.kind == "schemas":
            return tuple(name for _, name in self.objects)
        return tuple(dict.fromkeys(schema for schema, _ in self.objects if schema is not None))


def declared_roles(roles: Any) -> tuple[DeclaredRole, ...]:
    """The roles of a declaration.

    Raises:
        ConfigError: They are not well formed.
    """
    if not isinstance(roles, Mapping):
        raise arguments.wrong("'roles'", roles, "be a mapping", _ROLE)
    return tuple(_role(name, {} if said is None else said) for name, said in roles.items())


def _role(name: Any, said: Any) -> DeclaredRole:
    named = _names("a role's name", name)[0]
    if not isinstance(said, Mapping):
        raise arguments.wrong(f"The role {named!r}", said, "be described by a mapping", _ROLE)
    _known_keys(f"The role {named!r}", said, ("type", "member_of"))
    require_choice(f"The type of the role {named!r}", said.get("type"), (*ROLE_TYPES, None))
    return DeclaredRole(named, said.get("type"), _names(_GROUPS, said.get("member_of") or ()))


def declared_grants(grants: Any) -> tuple[DeclaredGrant, ...]:
    """The rows of a declaration.

    Raises:
        ConfigError: They are not well formed.
    """
    if isinstance(grants, (str, bytes, Mapping)) or not isinstance(grants, Sequence):
        raise arguments.wrong("'grants'", grants, "be a list", _ROW)
    return tuple(_grant(number, row) for number, row in enumerate(grants, 1))


def _grant(number: int, row: Any) -> DeclaredGrant:
    which = f"grant {number}"
    if not isinstance(row, Mapping):
        raise arguments.wrong(which.capitalize(), row, "be a mapping", _ROW)
    _known_keys(which.capitalize(), row, _KEYS)
    kinds = [kind for kind in KINDS if row.get(kind) not in (None, False)]
    if len(kinds) != 1:
        raise ConfigError(
            f"{which.capitalize()} is on {' and '.join(kinds) or 'nothing'}.",
            remedy=f"Give one of: {', '.join(KINDS)}.",
        )
    [kind] = kinds
    to = _names(f"'to' of {which}", row.get("to"))
    objects = _objects(which, kind, row[kind])
    return DeclaredGrant(
        to,
        *_privileges(which, kind, row.get("privileges")),
        kind,
        objects,
        _future(which, kind, row, objects),
    )


def _privileges(which: str, kind: str, given: Any) -> tuple[tuple[str, ...], bool]:
    known = KINDS[kind].privileges
    words = tuple(word.upper() for word in _names(f"'privileges' of {which}", given))
    if words == ("ALL",):
        return known, True
    for word in words:
        require_choice(f"A privilege on {kind} of {which}", word, (*known, "ALL"))
    return words, False


def _objects(which: str, kind: str, given: Any) -> tuple[tuple[str | None, str], ...]:
    if kind == "database":
        if given is not True:
            raise arguments.wrong(f"'database' of {which}", given, "be true", "It is the one connected to.")
        return ((None, ""),)
    names = _names(f"'{kind}' of {which}", given)
    if kind == "schemas":
        return tuple((None, identifier(name, what="schema")) for name in names)
    return tuple(_in_a_schema(kind, name) for name in names)


def _in_a_schema(kind: str, name: str) -> tuple[str, str]:
    parts = split_name(name)
    if len(parts) != 2:
        raise ConfigError(
            f"{name!r} of {kind} has no schema.",
            remedy="Give it with its schema, such as sales.orders or sales.*.",
        )
    return parts[0], parts[1]


def _future(
    which: str, kind: str, row: Mapping[str, Any], objects: Iterable[tuple[str | None, str]]
) -> tuple[str | None, ...]:
    given = row.get("future") or ()
    if not given:
        return ()
    if KINDS[kind].plural is None or not all(name == EVERY for _, name in objects):
        raise ConfigError(
            f"{which.capitalize()} says 'future' of what is not all of a schema.",
            remedy="Say it of tables, sequences or functions such as sales.*.",
        )
    return (None,) if given is True else _names(f"'future' of {which}", given)


def _names(argument: str, given: Any) -> tuple[str, ...]:
    """One name or several."""
    remedy = 'Give a name, or a list such as ["analysts"].'
    several = [given] if isinstance(given, str) else given
    if isinstance(several, (bytes, Mapping)) or not isinstance(several, Sequence):
        raise arguments.wrong(argument[0].upper() + argument[1:], given, "be a name or a list", remedy)
    if not several and argument != _GROUPS:
        raise ConfigError(f"{argument[0].upper()}{argument[1:]} names nothing.", remedy=remedy)
    return tuple(dict.fromkeys(arguments.text(f"A name in {argument}", one, remedy) for one in several))


def _known_keys(what: str, given: Mapping[Any, Any], known: Iterable[str]) -> None:
    for key in given:
        if key not in tuple(known):
            raise ConfigError(f"{what} has no {key!r}.", remedy=f"The keys are: {', '.join(known)}.")
