"""The statements that make a declaration true, in their order; none where it is true already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from psycopg import sql

from lakebase_provider.core.errors import ConfigError, TableNotFoundError
from lakebase_provider.core.upkeep.grants.declared_grants import (
    EVERY,
    KINDS,
    PUBLIC,
    DeclaredGrant,
    DeclaredRole,
)
from lakebase_provider.core.upkeep.grants.granted import (
    FutureGrant,
    Granted,
    read_future,
    read_members,
    read_objects,
    read_roles,
    read_schemas,
)
from lakebase_provider.core.upkeep.maintenance.own_session import OwnSession

#: The version from which on tables have the privilege MAINTAIN.
_MAINTAIN = 170_000
#: Object, role and privilege.
_Triple = tuple[Granted, str, str]


class GrantPlan:
    """Compares a declaration with the catalog.

    Args:
        session: A session of its own.
        roles: Roles that there are to be.
        grants: What they are to be granted.
        revoke: Whether what is not declared is taken away: of the roles that grants are to, what they have on
            the kinds of objects and in the schemas that grants are on.
    """

    def __init__(
        self,
        session: OwnSession,
        roles: tuple[DeclaredRole, ...],
        grants: tuple[DeclaredGrant, ...],
        revoke: bool,
    ) -> None:
        self._session = session
        self._roles = roles
        self._grants = grants
        self._revoke = revoke
        self._me: str = session.ask("SELECT current_user::text")[0][0]

    def statements(self) -> list[sql.Composed]:
        """The statements, roles first, then what is taken away, then what is given.

        Raises:
            ConfigError: A role or a schema is not there.
            TableNotFoundError: A table, sequence or function is not there.
        """
        known = read_roles(self._session)
        self._require_roles(known)
        schemas = tuple(dict.fromkeys(name for grant in self._grants for name in grant.schemas))
        self._require_schemas(schemas)
        kinds = [kind for kind in KINDS if any(grant.kind == kind for grant in self._grants)]
        objects = read_objects(self._session, kinds, schemas)
        wanted, future = self._wanted(objects), self._wanted_future()
        there = {(one, role, privilege) for one in objects for role, privilege in one.privileges}
        there_future = read_future(self._session, schemas)
        found = [*self._role_statements(known)]
        if self._revoke:
            found += _changes("REVOKE", "FROM", self._superfluous(there, wanted))
            found += _future_changes("REVOKE", "FROM", self._superfluous_future(there_future, future))
        found += _changes("GRANT", "TO", wanted - there)
        found += _future_changes("GRANT", "TO", future - there_future)
        return found

    def _require_roles(self, known: set[str]) -> None:
        made = {role.name for role in self._roles if role.type is not None}
        named = {role for grant in self._grants for role in (*grant.to, *filter(None, grant.future))}
        named |= {name for role in self._roles for name in (role.name, *role.member_of)}
        missing = sorted(named - known - made - {PUBLIC})
        if missing:
            raise ConfigError(
                f"There is no role {', '.join(missing)}.",
                remedy="Correct its name, or declare it among the roles, with its type.",
            )

    def _require_schemas(self, schemas: tuple[str, ...]) -> None:
        missing = sorted({*schemas} - read_schemas(self._session, schemas))
        if missing:
            raise ConfigError(
                f"There is no schema {', '.join(missing)}.",
                remedy="Correct its name, or create it first, such as by a migration.",
            )

    def _wanted(self, objects: list[Granted]) -> set[_Triple]:
        return {
            (one, role, privilege)
            for grant in self._grants
            for schema, name in grant.objects
            for one in self._meant(objects, grant.kind, schema, name)
            for role in grant.to
            for privilege in self._privileges(grant)
        }

    def _meant(self, objects: list[Granted], kind: str, schema: str | None, name: str) -> list[Granted]:
        found = [one for one in objects if one.kind == kind and one.is_named(schema, name)]
        if not found and name != EVERY:
            raise TableNotFoundError(
                f"Of {kind} there is no {schema}.{name}.",
                remedy="Correct its name, or create it first, such as by a migration.",
            )
        return found

    def _privileges(self, grant: DeclaredGrant) -> tuple[str, ...]:
        new = self._session.connection.info.server_version >= _MAINTAIN
        return tuple(one for one in grant.privileges if new or not grant.all_of_them or one != "MAINTAIN")

    def _wanted_future(self) -> set[FutureGrant]:
        return {
            FutureGrant(creator or self._me, schema, grant.kind, role, privilege)
            for grant in self._grants
            for creator in grant.future
            for schema in grant.schemas
            for role in grant.to
            for privilege in self._privileges(grant)
        }

    def _superfluous(self, there: set[_Triple], wanted: set[_Triple]) -> set[_Triple]:
        named = {role for grant in self._grants for role in grant.to}
        places = {(grant.kind, schema) for grant in self._grants for schema in _places(grant)}
        return {
            (one, role, privilege)
            for one, role, privilege in there - wanted
            if role in named
            and role != one.owner
            and one.is_own
            and (one.kind, one.name if one.kind == "schemas" else one.schema) in places
        }

    def _superfluous_future(self, there: set[FutureGrant], wanted: set[FutureGrant]) -> set[FutureGrant]:
        named = {role for grant in self._grants for role in grant.to}
        creators = {self._me, *(creator for grant in self._grants for creator in grant.future if creator)}
        places = {(grant.kind, schema) for grant in self._grants for schema in _places(grant)}
        return {
            one
            for one in there - wanted
            if one.role in named and one.creator in creators and (one.kind, one.schema) in places
        }

    def _role_statements(self, known: set[str]) -> Iterator[sql.Composed]:
        new = [role for role in self._roles if role.name not in known and role.type is not None]
        if any(role.type != "ROLE" for role in new):
            yield sql.Composed([sql.SQL("CREATE EXTENSION IF NOT EXISTS databricks_auth")])
        for role in new:
            yield _made(role)
        members = read_members(self._session)
        for role in self._roles:
            for group in role.member_of:
                if (role.name, group) not in members:
                    yield sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(role.name))


def _places(grant: DeclaredGrant) -> tuple[str | None, ...]:
    return (None,) if grant.kind == "database" else grant.schemas


def _made(role: DeclaredRole) -> sql.Composed:
    if role.type == "ROLE":
        return sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role.name))
    return sql.SQL("SELECT databricks_create_role({}, {})").format(
        sql.Literal(role.name), sql.Literal(role.type)
    )


def _changes(verb: str, direction: str, triples: set[_Triple]) -> Iterator[sql.Composed]:
    """One statement for all objects of a kind of which a role gets, or loses, the same."""
    by_object: dict[tuple[str, str, str], list[str]] = {}
    for one, role, privilege in triples:
        by_object.setdefault((one.kind, role, one.sql), []).append(privilege)
    rows = sorted(
        (kind, role, _in_order(kind, found), name) for (kind, role, name), found in by_object.items()
    )
    for (kind, role, privileges), group in groupby(rows, key=lambda row: row[:3]):
        yield sql.SQL("{} {} ON {} {} {} {}").format(
            sql.SQL(verb),
            _listed(privileges),
            sql.SQL(KINDS[kind].word),
            # As the server writes the names, quoted.
            _listed(row[3] for row in group),
            sql.SQL(direction),
            _grantee(role),
        )


def _future_changes(verb: str, direction: str, grants: set[FutureGrant]) -> Iterator[sql.Composed]:
    by_place: dict[tuple[str, str, str, str], list[str]] = {}
    for one in grants:
        by_place.setdefault((one.kind, one.role, one.schema, one.creator), []).append(one.privilege)
    for (kind, role, schema, creator), privileges in sorted(by_place.items()):
        yield sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA {} {} {} ON {} {} {}").format(
            sql.Identifier(creator),
            sql.Identifier(schema),
            sql.SQL(verb),
            _listed(_in_order(kind, privileges)),
            sql.SQL(KINDS[kind].plural or ""),
            sql.SQL(direction),
            _grantee(role),
        )


def _in_order(kind: str, privileges: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(privileges, key=KINDS[kind].privileges.index))


def _listed(words: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL(word) for word in words)


def _grantee(role: str) -> sql.Composable:
    return sql.SQL(PUBLIC) if role == PUBLIC else sql.Identifier(role)
