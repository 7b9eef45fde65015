"""What is rehearsed: statements, a function or migrations, run alike on a branch and on its parent."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg

from lakebase_provider.core.base.clock import Clock, Deadline
from lakebase_provider.core.config import LakebaseConfig, arguments
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.connect.target import Target
from lakebase_provider.core.database.blockers import naming_blockers
from lakebase_provider.core.database.catalog import TableName
from lakebase_provider.core.database.conflicts import again_without_lock
from lakebase_provider.core.errors import MigrationError, TransactionConflictError
from lakebase_provider.core.errors.sqlstates import meaning
from lakebase_provider.core.tokens.cache import TokenProvider
from lakebase_provider.core.upkeep.branches.branch_upkeep import BranchUpkeep
from lakebase_provider.core.upkeep.migrations.migration_ledger import MigrationLedger
from lakebase_provider.core.upkeep.migrations.migrations import Migrations
from lakebase_provider.core.upkeep.migrations.runs import MigrationRun, RunOptions
from lakebase_provider.core.upkeep.migrations.sql_folder import SqlFile, parsed, read_folder
from lakebase_provider.core.upkeep.rehearsal.recorder import checksum_of

#: What texts of statements are called in errors.
_NAME = "statements"
_CORRECT = "Correct the statement that the message names; what is one transaction has changed nothing."


class Client(Protocol):
    """What a rehearsal needs of a client."""

    config: LakebaseConfig
    tokens: TokenProvider

    def connect(self, timeout: float | None = None, **parameters: Any) -> LakebaseConnection:
        """One connection outside the pool."""

    def target(self) -> Target:
        """Where it connects."""

    @property
    def branches(self) -> BranchUpkeep[Any]:
        """What it does with branches."""


@dataclass(frozen=True)
class Place:
    """Where work runs, and how.

    Attributes:
        client: The client on the branch or on its parent.
        connect: Opens the sessions whose statements are noted; takes what ``client.connect`` does.
        options: Limits of the statements, and how often a transaction is tried.
        deadline: When all of it has to be done.
        clock: Where the time comes from.
        require_approved: Raises an error if the statements of a function are others than those approved.
    """

    client: Client
    connect: Callable[..., LakebaseConnection]
    options: RunOptions
    deadline: Deadline
    clock: Clock
    require_approved: Callable[[], None]


class Work(Protocol):
    """What is rehearsed."""

    @property
    def places(self) -> Mapping[str, str] | None:
        """The statements that are noted, by text, with file and line; None for all."""

    @property
    def checksum(self) -> str | None:
        """Of what runs; None if that is known only when it has been executed."""

    def run(self, place: Place) -> None:
        """Run it, and commit.

        Raises:
            LakebaseError: It failed; what could not be committed was undone.
        """


class _NoLedger(MigrationLedger):
    """A ledger that keeps nothing: statements run as often as they are asked for."""

    def enter(self, file: SqlFile, state: str = "done") -> None:
        pass

    def reached(self, file: SqlFile, statement: int, *, begun: bool, seconds: float) -> None:
        pass

    def took(self, file: SqlFile, seconds: float) -> None:
        pass


class Statements:
    """Statements, run as those of a file of migrations are: in one transaction where it can be.

    Args:
        given: A text, which may hold several; or a text for each.

    Raises:
        ConfigError: It is something else.
        MigrationError: They are not well formed, or hold what cannot be run.
    """

    def __init__(self, given: str | Sequence[str]) -> None:
        texts = [given] if isinstance(given, str) else list(given)
        for text in texts:
            arguments.text("A statement", text, "Give a text of SQL, or a list of them.")
        # On a line of its own: a statement may end in a comment.
        text = "\n;\n".join(texts)
        self._file = SqlFile(0, _NAME, Path(_NAME), text, parsed(_NAME, text))
        alone = len(self._file.statements) == 1
        self.places = {
            one.text: "" if alone else f"line {one.line}" for one in reversed(self._file.statements)
        }
        self.checksum = checksum_of(one.text for one in self._file.statements)

    def run(self, place: Place) -> None:
        """As :meth:`Work.run`."""
        with place.connect(autocommit=True) as connection:
            ledger = _NoLedger(connection, TableName(_NAME))
            run = MigrationRun(
                connection, ledger, place.options, place.client.connect, place.deadline, place.clock
            )
            try:
                run.apply(self._file, None)
            except MigrationError as error:
                copy = error.again()
                copy.remedy = _CORRECT
                raise copy from error.__cause__


class Call:
    """A function that works on a connection, as for ``client.run_transaction``; the commit follows."""

    places = checksum = None

    def __init__(self, function: Callable[[LakebaseConnection], object]) -> None:
        self._function = function

    def run(self, place: Place) -> None:
        """As :meth:`Work.run`."""
        again_without_lock(lambda: self._once(place), place.options.attempts, place.deadline, place.clock)

    def _once(self, place: Place) -> None:
        with place.connect(autocommit=True) as connection:
            left = place.deadline.remaining()
            limit = min(left, place.options.statement_timeout or left)
            for name, seconds in (("lock_timeout", place.options.lock_timeout), ("statement_timeout", limit)):
                query = "SELECT pg_catalog.set_config(%s, %s, false)"
                psycopg.Cursor(connection).execute(query, (name, str(max(1, round(seconds * 1000)))))
            connection.autocommit = False
            pid = connection.info.backend_pid
            try:
                with naming_blockers(place.client.connect, place.options.lock_timeout, lambda: [pid]):
                    self._function(connection)
                    place.require_approved()
                    connection.commit()
            except psycopg.Error as error:
                if not meaning(error.sqlstate).is_conflict:
                    raise
                said = str(error).partition("\n")[0]
                raise TransactionConflictError(f"It was undone by another transaction: {said}.") from error


class Files:
    """The files of migrations in a folder that have not run yet.

    Args:
        folder: The folder.
        options: What ``client.migrations.run`` takes beside it.
    """

    def __init__(self, folder: str | os.PathLike[str], options: Mapping[str, Any]) -> None:
        self._folder, self._options = folder, options
        files = read_folder(folder)
        self.places = {
            statement.text: f"{file.name}:{statement.line}"
            for file in reversed(files)
            for statement in reversed(file.statements)
        }
        self.checksum = checksum_of(f"{file.name} {file.checksum}" for file in files)

    def run(self, place: Place) -> None:
        """As :meth:`Work.run`."""
        client = place.client
        migrations = Migrations(client.config, place.connect, client.target, client.tokens, place.clock)
        limits: dict[str, Any] = {**asdict(place.options), "timeout": max(1.0, place.deadline.remaining())}
        migrations.run(self._folder, **{**limits, **self._options})
