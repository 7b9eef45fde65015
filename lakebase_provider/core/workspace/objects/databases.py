"""Databases and roles of a branch, and the catalogs of Unity Catalog by which databases are registered.

Databases and roles exist per branch, and a new branch has copies of its source's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypedDict

from lakebase_provider.core.base.clock import Deadline
from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.config.resource_names import Kind
from lakebase_provider.core.workspace.answers import Answer
from lakebase_provider.core.workspace.objects.object_kind import (
    DEFAULT_TIMEOUT,
    At,
    Named,
    Objects,
    Option,
    in_thread,
)
from lakebase_provider.core.workspace.objects.option_values import (
    flag,
    listed,
    text,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

AuthMethod = Literal["LAKEBASE_OAUTH_V1", "PG_PASSWORD_SCRAM_SHA_256", "NO_LOGIN"]
Identity = Literal["USER", "SERVICE_PRINCIPAL", "GROUP"]


@dataclass(frozen=True, kw_only=True)
class Role(Named):
    """A Postgres role of a branch.

    Attributes:
        name: Its full name, ``projects/<project>/branches/<branch>/roles/<role>``.
        parent: The branch's name.
        create_time: When it was created.
        update_time: When it was last changed.
        postgres_role: Its name in Postgres.
        identity_type: ``USER``, ``SERVICE_PRINCIPAL``, ``GROUP``, ``IDENTITY_TYPE_UNSPECIFIED`` for a plain
            role, or what else the workspace says.
        auth_method: ``LAKEBASE_OAUTH_V1``, ``PG_PASSWORD_SCRAM_SHA_256``, ``NO_LOGIN``, or what else the
            workspace says.
        createdb: Whether it may create databases.
        createrole: Whether it may create roles.
        bypassrls: Whether row security does not apply to it.
        membership_roles: Roles of Lakebase that it is a member of, such as ``DATABRICKS_SUPERUSER``.
    """

    parent: Annotated[str | None, At("parent", Answer.text)] = None
    create_time: Annotated[datetime | None, At("create_time", Answer.moment)] = None
    update_time: Annotated[datetime | None, At("update_time", Answer.moment)] = None
    postgres_role: Annotated[str | None, At("status.postgres_role", Answer.text)] = None
    identity_type: Annotated[str | None, At("status.identity_type", Answer.state)] = None
    auth_method: Annotated[str | None, At("status.auth_method", Answer.state)] = None
    createdb: Annotated[bool, At("status.attributes.createdb", Answer.flag)] = False
    createrole: Annotated[bool, At("status.attributes.createrole", Answer.flag)] = False
    bypassrls: Annotated[bool, At("status.attributes.bypassrls", Answer.flag)] = False
    membership_roles: Annotated[tuple[str, ...], At("status.membership_roles", Answer.names)] = ()


class RoleChanges(TypedDict, total=False):
    """What can be changed about a role.

    Attributes:
        createdb: Whether it may create databases.
        createrole: Whether it may create roles.
        bypassrls: Whether row security does not apply to it.
        membership_roles: Roles of Lakebase that it is a member of, in place of those before; ``[]`` for none.
    """

    createdb: bool
    createrole: bool
    bypassrls: bool
    membership_roles: list[str]


class RoleOptions(RoleChanges, total=False):
    """What describes a new role.

    Attributes:
        postgres_role: Its name in Postgres: a user's e-mail address, a service principal's client id, a
            group's name, or any for a plain role; required.
        identity_type: ``"USER"``, ``"SERVICE_PRINCIPAL"`` or ``"GROUP"``; a plain role has none.
        auth_method: How it logs in; follows from the identity by default.
    """

    postgres_role: str
    identity_type: Identity
    auth_method: AuthMethod


class Roles(Objects[Role]):
    """Roles of branches, as ``client.workspace.roles``; with twins for asyncio, such as ``acreate``."""

    kind: ClassVar[Kind] = "role"
    shape = Role
    known_as = "postgres_role"
    options: ClassVar[Mapping[str, Option]] = {
        "postgres_role": Option("spec.postgres_role", text, reads="postgres_role"),
        "identity_type": Option("spec.identity_type", text, reads="identity_type"),
        "auth_method": Option("spec.auth_method", text, reads="auth_method"),
        **{
            name: Option(f"spec.attributes.{name}", flag, f"spec.attributes.{name}", reads=name)
            for name in ("createdb", "createrole", "bypassrls")
        },
        "membership_roles": Option(
            "spec.membership_roles", listed, "spec.membership_roles", reads="membership_roles"
        ),
    }

    def list(self, branch: str | None = None) -> tuple[Role, ...]:
        """All roles of a branch.

        Args:
            branch: Its name; the configuration's by default.

        Raises:
            LakebaseError: The workspace refused or could not be reached.
        """
        return self._list(self._parent(branch))

    def create(self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[RoleOptions]) -> Role:
        """Create a role; returns when the operation is done.

        Args:
            name: Its name, or its id in the configuration's branch: 4 to 63 lower-case letters, digits and
                hyphens, first a letter.
            timeout: Seconds that it may take, waiting for other operations on the project included.
            options: The fields of :class:`RoleOptions`.

        Raises:
            AlreadyExistsError: The id or the Postgres role exists; a branch has those of its source.
            OperationFailedError: The workspace could not create it.
            OperationTimeoutError: It was not done in time, and goes on.
            LakebaseError: The workspace refused or could not be reached.
        """
        return self._create(name, options, timeout)

    def update(self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **changes: Unpack[RoleChanges]) -> Role:
        """Change a role; what is not given stays.

        Args:
            name: Its name, or its id in the configuration's branch.
            timeout: Seconds that it may take.
            changes: The fields of :class:`RoleChanges` that are to change.

        Raises:
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        return self._change(name, dict(changes), timeout)

    def _change(self, name: str, changes: Mapping[str, Any], timeout: float | Deadline) -> Role:
        # The API wants the Postgres name in each body.
        return self._update(name, changes, timeout, postgres_role=self.get(name).postgres_role)

    def delete(
        self,
        name: str,
        *,
        reassign_owned_to: str | None = None,
        missing_ok: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """Delete a role.

        Args:
            name: Its name, or its id in the configuration's branch.
            reassign_owned_to: Name of the role that gets what it owns; wakes the compute.
            missing_ok: True to accept that there is none.
            timeout: Seconds that it may take.

        Raises:
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        heir = None if reassign_owned_to is None else self.full_name(reassign_owned_to)
        self._delete(name, timeout, missing_ok=missing_ok, reassign_owned_to=heir)

    def ensure(self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[RoleOptions]) -> Role:
        """Create a role, or change what differs about the one that is there.

        If the Postgres role is there under another id, such as one that the workspace has made up, it is that
        role: its own name is what is returned.

        Raises:
            AlreadyExistsError: It is there, and differs in what cannot be changed.
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        return self._ensure(name, options, timeout)

    def reveal_password(self, name: str) -> Secret:
        """The native password of a role.

        Raises:
            LakebaseError: The workspace refused or could not be reached; or the role has none.
        """
        name = self.full_name(name)
        what = f"the password of role {name}"
        answer = self._control_plane.request(what, "POST", f"{name}/password", body={}, verb="reveal")
        return Secret(Answer(answer, what).token("password"))

    aget = in_thread(Objects.get)
    alist = in_thread(list)
    acreate = in_thread(create)
    aupdate = in_thread(update)
    adelete = in_thread(delete)
    aensure = in_thread(ensure)


@dataclass(frozen=True, kw_only=True)
class Database(Named):
    """A database of a branch.

    Attributes:
        name: Its full name, ``projects/<project>/branches/<branch>/databases/<database>``.
        parent: The branch's name.
        create_time: When it was created.
        update_time: When it was last changed.
        postgres_database: Its name in Postgres.
        role: Name of the role that owns it.
    """

    parent: Annotated[str | None, At("parent", Answer.text)] = None
    create_time: Annotated[datetime | None, At("create_time", Answer.moment)] = None
    update_time: Annotated[datetime | None, At("update_time", Answer.moment)] = None
    postgres_database: Annotated[str | None, At("status.postgres_database", Answer.text)] = None
    role: Annotated[str | None, At("status.role", Answer.text)] = None


class DatabaseOptions(TypedDict, total=False):
    """What describes a database, new or changed.

    Attributes:
        postgres_database: Its name in Postgres; another one renames it.
        role: Name of the role that owns it; required for a new one.
    """

    postgres_database: str
    role: str


class Databases(Objects[Database]):
    """Databases, as ``client.workspace.databases``; with twins for asyncio, such as ``acreate``."""

    kind: ClassVar[Kind] = "database"
    shape = Database
    known_as = "postgres_database"
    options: ClassVar[Mapping[str, Option]] = {
        "postgres_database": Option(
            "spec.postgres_database", text, "spec.postgres_database", reads="postgres_database"
        ),
        "role": Option("spec.role", text, "spec.role", is_name="role", reads="role"),
    }

    def list(self, branch: str | None = None) -> tuple[Database, ...]:
        """All databases of a branch.

        Args:
            branch: Its name; the configuration's by default.

        Raises:
            LakebaseError: The workspace refused or could not be reached.
        """
        return self._list(self._parent(branch))

    def create(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[DatabaseOptions]
    ) -> Database:
        """Create a database; returns when the operation is done.

        Args:
            name: Its name, or its id in the configuration's branch.
            timeout: Seconds that it may take, waiting for other operations on the project included.
            options: The fields of :class:`DatabaseOptions`.

        Raises:
            AlreadyExistsError: The id or the Postgres database exists; a branch has those of its source.
            NotFoundError: There is no such role.
            OperationFailedError: The workspace could not create it.
            OperationTimeoutError: It was not done in time, and goes on.
            LakebaseError: The workspace refused or could not be reached.
        """
        return self._create(name, options, timeout)

    def update(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **changes: Unpack[DatabaseOptions]
    ) -> Database:
        """Rename a database, or give it to another role.

        Args:
            name: Its name, or its id in the configuration's branch.
            timeout: Seconds that it may take.
            changes: The fields of :class:`DatabaseOptions` that are to change.

        Raises:
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        return self._update(name, dict(changes), timeout)

    def delete(self, name: str, *, missing_ok: bool = False, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Delete a database with everything in it.

        Args:
            name: Its name, or its id in the configuration's branch.
            missing_ok: True to accept that there is none.
            timeout: Seconds that it may take.

        Raises:
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        self._delete(name, timeout, missing_ok=missing_ok)

    def ensure(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[DatabaseOptions]
    ) -> Database:
        """Create a database, or give the one that is there to the role that is wanted.

        If the Postgres database is there under another id, such as one that the workspace has made up, it is
        that database: its own name is what is returned. None is ever renamed; :meth:`update` does that.

        Raises:
            AlreadyExistsError: There is one of that id, which Postgres knows by another name.
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        return self._ensure(name, options, timeout)

    aget = in_thread(Objects.get)
    alist = in_thread(list)
    acreate = in_thread(create)
    aupdate = in_thread(update)
    adelete = in_thread(delete)
    aensure = in_thread(ensure)


@dataclass(frozen=True, kw_only=True)
class Catalog(Named):
    """A catalog of Unity Catalog that is a database of a branch.

    Attributes:
        name: Its full name, ``catalogs/<catalog>``.
        uid: Its uid.
        create_time: When it was created.
        update_time: When it was last changed.
        project: Name of the project.
        branch: Name of the branch.
        postgres_database: Name of the database in Postgres.
    """

    uid: Annotated[str | None, At("uid", Answer.text)] = None
    create_time: Annotated[datetime | None, At("create_time", Answer.moment)] = None
    update_time: Annotated[datetime | None, At("update_time", Answer.moment)] = None
    project: Annotated[str | None, At("status.project", Answer.text)] = None
    branch: Annotated[str | None, At("status.branch", Answer.text)] = None
    postgres_database: Annotated[str | None, At("status.postgres_database", Answer.text)] = None


class CatalogOptions(TypedDict, total=False):
    """What describes a new catalog.

    Attributes:
        branch: Name of the branch; required.
        postgres_database: Name of the database in Postgres; required.
        create_database_if_missing: Whether to create it, False by default.
    """

    branch: str
    postgres_database: str
    create_database_if_missing: bool


class Catalogs(Objects[Catalog]):
    """Catalogs, as ``client.workspace.catalogs``; the API neither lists nor changes them."""

    kind: ClassVar[Kind] = "catalog"
    shape = Catalog
    options: ClassVar[Mapping[str, Option]] = {
        "branch": Option("spec.branch", text, is_name="branch", reads="branch"),
        "postgres_database": Option("spec.postgres_database", text, reads="postgres_database"),
        "create_database_if_missing": Option("spec.create_database_if_missing", flag),
    }

    def create(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[CatalogOptions]
    ) -> Catalog:
        """Register a database; returns when the operation is done. Needs CREATE CATALOG.

        A database has one catalog at a time, and a branch's database inherits its source's.

        Args:
            name: The catalog's name.
            timeout: Seconds that it may take.
            options: The fields of :class:`CatalogOptions`.

        Raises:
            AlreadyExistsError: A catalog of that name exists.
            OperationFailedError: The workspace could not create it.
            OperationTimeoutError: It was not done in time, and goes on.
            LakebaseError: The workspace refused or could not be reached.
        """
        return self._create(name, options, timeout)

    def delete(self, name: str, *, missing_ok: bool = False, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Remove a registration; the database stays.

        Args:
            name: The catalog's name.
            missing_ok: True to accept that there is none.
            timeout: Seconds that it may take.

        Raises:
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        self._delete(name, timeout, missing_ok=missing_ok)

    def ensure(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[CatalogOptions]
    ) -> Catalog:
        """Register a database, unless it is registered by that name.

        Raises:
            AlreadyExistsError: The catalog is another database's.
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        return self._ensure(name, options, timeout)

    aget = in_thread(Objects.get)
    acreate = in_thread(create)
    adelete = in_thread(delete)
    aensure = in_thread(ensure)
