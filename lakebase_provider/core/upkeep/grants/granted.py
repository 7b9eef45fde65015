"""What the catalog says of roles and privileges."""

# ruff: noqa: S608 # they are put together of constants alone

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from lakebase_provider.core.upkeep.grants.declared_grants import EVERY, KINDS, PUBLIC
from lakebase_provider.core.upkeep.maintenance.own_session import OwnSession

_ACL = """
    (SELECT coalesce(json_agg(json_build_array(
        CASE a.grantee WHEN 0 THEN %(public)s ELSE pg_catalog.pg_get_userbyid(a.grantee)::text END,
        a.privilege_type
    )), '[]') FROM pg_catalog.aclexplode(coalesce({acl}, pg_catalog.acldefault('{letter}', {owner}))) a)
"""
_OWN = """
    NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_catalog.{catalog}'::regclass AND d.objid = {oid} AND d.deptype = 'e')
"""
_RELATIONS = """
SELECT n.nspname, c.relname, pg_catalog.format('%%I.%%I', n.nspname, c.relname),
    pg_catalog.pg_get_userbyid(c.relowner), {acl}, {own}
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (%(schemas)s::text[]) AND c.relkind IN ({kinds}) ORDER BY 1, 2
"""


def _relations(letter: str, kinds: str) -> str:
    return _RELATIONS.format(
        acl=_ACL.format(acl="c.relacl", letter=letter, owner="c.relowner"),
        own=_OWN.format(catalog="pg_class", oid="c.oid"),
        kinds=kinds,
    )


#: By kind: schema, name, the name in SQL, owner, who has which privilege, whether it is no extension's.
_QUERIES = {
    "database": f"""
SELECT NULL, '', pg_catalog.format('%%I', d.datname), pg_catalog.pg_get_userbyid(d.datdba),
    {_ACL.format(acl="d.datacl", letter="d", owner="d.datdba")}, true
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
""",
    "schemas": f"""
SELECT NULL, n.nspname, pg_catalog.format('%%I', n.nspname), pg_catalog.pg_get_userbyid(n.nspowner),
    {_ACL.format(acl="n.nspacl", letter="n", owner="n.nspowner")}, true
FROM pg_catalog.pg_namespace n WHERE n.nspname = ANY (%(schemas)s::text[]) ORDER BY 2
""",
    "tables": _relations("r", "'r', 'p', 'v', 'm', 'f'"),
    "sequences": _relations("s", "'S'"),
    "functions": f"""
SELECT n.nspname, p.proname,
    pg_catalog.format('%%I.%%I(%%s)', n.nspname, p.proname,
        pg_catalog.pg_get_function_identity_arguments(p.oid)),
    pg_catalog.pg_get_userbyid(p.proowner), {_ACL.format(acl="p.proacl", letter="f", owner="p.proowner")},
    {_OWN.format(catalog="pg_proc", oid="p.oid")}
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = ANY (%(schemas)s::text[]) ORDER BY 1, 2, 3
""",
}
_FUTURE = """
SELECT pg_catalog.pg_get_userbyid(d.defaclrole), n.nspname, d.defaclobjtype::text,
    CASE a.grantee WHEN 0 THEN %(public)s ELSE pg_catalog.pg_get_userbyid(a.grantee)::text END,
    a.privilege_type
FROM pg_catalog.pg_default_acl d JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace
CROSS JOIN LATERAL pg_catalog.aclexplode(d.defaclacl) a
WHERE n.nspname = ANY (%(schemas)s::text[])
"""
_MEMBERS = """
SELECT m.rolname, g.rolname FROM pg_catalog.pg_auth_members x
JOIN pg_catalog.pg_roles m ON m.oid = x.member JOIN pg_catalog.pg_roles g ON g.oid = x.roleid
"""


@dataclass(frozen=True)
class Granted:
    """An object, and who may do what with it.

    Attributes:
        kind: The key of :data:`.KINDS`.
        schema: Its schema; None for a schema and the database.
        name: Its name; of functions several may have one.
        sql: Its name in SQL.
        owner: Whose it is; what the owner has is left alone.
        privileges: Pairs of role and privilege.
        is_own: Whether it belongs to no extension.
    """

    kind: str
    schema: str | None
    name: str
    sql: str
    owner: str
    privileges: frozenset[tuple[str, str]]
    is_own: bool

    def is_named(self, schema: str | None, name: str) -> bool:
        """Whether a declaration means it by that name; all of a schema are those of no extension."""
        return self.schema == schema and (self.is_own if name == EVERY and schema else self.name == name)


@dataclass(frozen=True)
class FutureGrant:
    """A privilege on what a role will make in a schema.

    Attributes:
        creator: The role that makes it.
        schema: Where.
        kind: The key of :data:`.KINDS`.
        role: Who gets the privilege.
        privilege: Which.
    """

    creator: str
    schema: str
    kind: str
    role: str
    privilege: str


def read_objects(session: OwnSession, kinds: Iterable[str], schemas: Collection[str]) -> list[Granted]:
    """All objects of some kinds in some schemas."""
    return [
        Granted(kind, schema, name, sql, owner, frozenset(map(tuple, acl)), is_own)
        for kind in kinds
        for schema, name, sql, owner, acl, is_own in session.ask(
            _QUERIES[kind], schemas=list(schemas), public=PUBLIC
        )
    ]


def read_future(session: OwnSession, schemas: Collection[str]) -> set[FutureGrant]:
    """The default privileges in some schemas."""
    kinds = {kind.letter: key for key, kind in KINDS.items() if kind.plural is not None}
    return {
        FutureGrant(creator, schema, kinds[letter], role, privilege)
        for creator, schema, letter, role, privilege in session.ask(
            _FUTURE, schemas=list(schemas), public=PUBLIC
        )
        if letter in kinds
    }


def read_schemas(session: OwnSession, schemas: Sequence[str]) -> set[str]:
    """Those of the schemas that there are."""
    query = "SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname = ANY (%s::text[])"
    return {name for (name,) in session.ask(query, list(schemas))}


def read_roles(session: OwnSession) -> set[str]:
    """The names of all roles."""
    return {name for (name,) in session.ask("SELECT rolname FROM pg_catalog.pg_roles")}


def read_members(session: OwnSession) -> set[tuple[str, str]]:
    """Pairs of a member and the role that it is a member of."""
    return {(member, of) for member, of in session.ask(_MEMBERS)}
