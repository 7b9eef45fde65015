"""Catalogs: databases of branches, registered in Unity Catalog."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, ClassVar, TypedDict

from lakebase_provider.core.config.resource_names import Kind
from lakebase_provider.core.workspace.answers import Answer
from lakebase_provider.core.workspace.objects.object_kind import (
    DEFAULT_TIMEOUT,
    At,
    Named,
    Objects,
    Option,
    flag,
    in_thread,
    text,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


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
