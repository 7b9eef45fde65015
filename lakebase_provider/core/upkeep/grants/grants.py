"""The way to a client's grants: ``client.grants``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from lakebase_provider.core.base.clock import Clock
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.fence import lock_number
from lakebase_provider.core.errors import StatementError
from lakebase_provider.core.upkeep.grants.declared_grants import declared_grants, declared_roles
from lakebase_provider.core.upkeep.grants.grant_plan import GrantPlan
from lakebase_provider.core.upkeep.maintenance.maintenance_options import (
    ATTEMPTS,
    LOCK_TIMEOUT,
    require_options,
)
from lakebase_provider.core.upkeep.maintenance.own_session import OwnSession, Patience, own_session
from lakebase_provider.core.workspace.operations import in_thread

logger = logging.getLogger(__name__)

#: Seconds that all of it may take, unless told otherwise.
_TIMEOUT = 300.0
_OWNER = "Run as the owner of what the message names, or as a role that may grant it."


@dataclass(frozen=True)
class GrantsReport:
    """What a declaration of grants needs, or has done.

    Attributes:
        statements: The statements, in their order; none if all was as it is declared.
        applied: Whether they were run; False for a plan.
    """

    statements: tuple[str, ...]
    applied: bool

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        return {"statements": list(self.statements), "applied": self.applied}

    def to_text(self) -> str:
        """The report for people: SQL that can be run."""
        if not self.statements:
            return "-- All is as it is declared."
        return "\n".join(f"{statement};" for statement in self.statements)


class Grants:
    """Has roles and privileges as they are declared.

    Each method has a twin for asyncio, such as ``aensure``, which runs in a thread.

    Args:
        connect: Opens a session as the client does.
        clock: Where the time comes from.
    """

    def __init__(self, connect: Callable[..., LakebaseConnection], clock: Clock) -> None:
        self._connect = connect
        self._clock = clock

    def plan(
        self,
        grants: Sequence[Mapping[str, Any]],
        *,
        roles: Mapping[str, Mapping[str, Any] | None] | None = None,
        revoke: bool = False,
        timeout: float = _TIMEOUT,
    ) -> GrantsReport:
        """Say what :meth:`ensure` would do; nothing changes.

        Args:
            grants: As for :meth:`ensure`.
            roles: As for :meth:`ensure`.
            revoke: As for :meth:`ensure`.
            timeout: Seconds that all of it may take.

        Raises:
            LakebaseError: As for :meth:`ensure`.

        Example:
            >>> grants = [{"to": "analysts", "privileges": "USAGE", "schemas": "sales"}]
            >>> print(client.grants.plan(grants).to_text())
        """
        return self._run(grants, roles, revoke, LOCK_TIMEOUT, ATTEMPTS, timeout, dry_run=True)

    def ensure(
        self,
        grants: Sequence[Mapping[str, Any]],
        *,
        roles: Mapping[str, Mapping[str, Any] | None] | None = None,
        revoke: bool = False,
        lock_timeout: float = LOCK_TIMEOUT,
        attempts: int = ATTEMPTS,
        timeout: float = _TIMEOUT,
    ) -> GrantsReport:
        """Have roles and privileges as they are declared, in one transaction; what is there is left alone.

        Args:
            grants: Rows with ``to``, a role, several, or ``"PUBLIC"``; ``privileges``, one, several or
                ``"ALL"``; and on what: ``tables`` (views too), ``sequences`` or ``functions`` as
                ``"schema.name"`` or ``"schema.*"``, ``schemas``, or ``"database": True``. With
                ``"future": True`` those on ``"schema.*"`` hold for what this role makes there later, too;
                with names of roles, for what these make.
            roles: Roles that there are to be, by name, each with ``type``: ``"USER"``,
                ``"SERVICE_PRINCIPAL"`` or ``"GROUP"`` of the workspace, or ``"ROLE"`` for a plain one that
                cannot log in; and ``member_of``, roles of which it is a member.
            revoke: Whether the roles that grants are to lose what is not declared, on the kinds of objects
                and in the schemas that grants are on. Owners, extensions' objects and members are left alone.
            lock_timeout: Seconds that a statement waits for a lock.
            attempts: How many times it is tried that gets none.
            timeout: Seconds that all of it may take.

        Raises:
            ConfigError: The declaration is not well formed, or a role or schema is not there.
            TableNotFoundError: A table, sequence or function is not there.
            LockTimeoutError: A lock was not acquired in any of the attempts; names its holder.
            StatementError: The server refused, or not all took effect. Nothing has changed.

        Example:
            >>> read = {"to": "analysts", "privileges": "SELECT", "tables": "sales.*", "future": True}
            >>> client.grants.ensure([read], roles={"analysts": {"type": "ROLE"}})
        """
        return self._run(grants, roles, revoke, lock_timeout, attempts, timeout, dry_run=False)

    aplan = in_thread(plan)
    aensure = in_thread(ensure)

    def _run(
        self,
        grants: Sequence[Mapping[str, Any]],
        roles: Mapping[str, Mapping[str, Any] | None] | None,
        revoke: bool,
        lock_timeout: float,
        attempts: int,
        timeout: float,
        *,
        dry_run: bool,
    ) -> GrantsReport:
        wanted = declared_roles({} if roles is None else roles), declared_grants(grants)
        require_options({"lock_timeout": lock_timeout, "attempts": attempts, "timeout": timeout})
        with own_session(
            "grants", self._connect, Patience(lock_timeout, attempts, timeout), self._clock
        ) as session:
            plan = GrantPlan(session, *wanted, revoke)
            if dry_run:
                return _report(session, plan.statements(), applied=False)
            return session.transaction("Granting what is declared", lambda: _apply(session, plan))[0]


def _apply(session: OwnSession, plan: GrantPlan) -> GrantsReport:
    # One after another: two that change one object's privileges at once fail ("tuple concurrently updated").
    cursor = plain_cursor(session.connection)
    cursor.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", (lock_number("grants", "lakebase-grants"),))
    statements = plan.statements()
    for statement in statements:
        told = statement.as_string(session.connection)
        try:
            cursor.execute(statement)
        except psycopg.errors.InsufficientPrivilege as error:
            raise StatementError(f"{told} failed: {error.diag.message_primary}.", remedy=_OWNER) from error
        logger.info("%s", told)
    # To grant without the right to is a warning to the server, and so is to revoke what somebody else gave.
    if left := plan.statements():
        raise StatementError(
            f"{left[0].as_string(session.connection)} had no effect. Nothing was changed.", remedy=_OWNER
        )
    return _report(session, statements, applied=True)


def _report(session: OwnSession, statements: Sequence[sql.Composed], *, applied: bool) -> GrantsReport:
    return GrantsReport(tuple(one.as_string(session.connection) for one in statements), applied)
