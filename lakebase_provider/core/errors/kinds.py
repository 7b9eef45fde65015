"""What can go wrong, and what to do about it.

Every failure of a driver, a resolver or the control plane becomes one of these, once, in
:mod:`lakebase_provider.core.errors.texts`; the original error is its ``__cause__``::

    LakebaseError
    ├── ConfigError                      what the caller wrote cannot work
    │   └── ForkedPoolError              an inherited pool was used in a forked child
    ├── ControlPlaneError                the workspace refused a request, or did not answer it
    │   ├── NotAuthenticatedError        it does not accept the credentials
    │   ├── PermissionDeniedError        it knows the caller but refuses the request
    │   ├── NotFoundError                no such object in the workspace
    │   │   └── EndpointNotFoundError    no such project, branch, endpoint or instance
    │   ├── AlreadyExistsError           an object of that name exists, which may be another one
    │   ├── ProjectBusyError             another operation on the project is still running
    │   ├── LimitError                   the workspace or the project has as many of these as it may have
    │   ├── ObjectStateError             the object's state or place does not allow the request
    │   │   └── ManagedByParentError     it exists and goes with its parent
    │   ├── OperationFailedError         a long-running operation ended with an error
    │   ├── ControlPlaneThrottledError   429
    │   ├── ControlPlaneUnavailableError 5xx, or not reachable
    │   └── ControlPlaneTimeoutError     no answer within the caller's deadline
    │       └── OperationTimeoutError    a long-running operation did not end within it
    ├── LakebaseConnectionError          the database could not be reached
    │   ├── DnsError                     its name does not resolve
    │   ├── TlsError                     its certificate is not trusted, or it does not speak TLS
    │   ├── EndpointWakingError          the compute is starting, or did not answer
    │   ├── EndpointDisabledError        the endpoint is switched off
    │   ├── LoginRejectedError           it refuses the role or the password
    │   ├── DatabaseMissingError         no such database
    │   ├── SessionSettingError          it refuses a setting with which the session starts
    │   └── TooManyConnectionsError      the server is full
    ├── WrongBranchError                 the session is not on the branch that it is meant to be on
    ├── LeaseLostError                   a leased branch is gone, or another one has its name
    ├── PoolExhaustedError               no pooled connection became free in time
    ├── ClockSkewError                   this host's clock disagrees with the workspace's
    ├── HealthCheckError                 a health report has a failed stage
    ├── StatementError                   a statement failed on the server
    │   ├── LockTimeoutError             a lock was not acquired in time
    │   ├── StatementTimeoutError        the server ended what took longer than its timeout
    │   ├── SessionEndedError            the server ended the session: idle, restart, or an administrator
    │   ├── IdleInTransactionError       the server ended a session that idled in a transaction
    │   └── TransactionConflictError     each attempt was undone by a conflict with another transaction
    ├── FenceError                       another session is working on the same key, and did not end
    ├── ResultTooLargeError              a statement returned more rows than were allowed
    ├── MigrationError                   files of migrations were refused, or one failed
    ├── RehearsalError                   a rehearsal failed, so nothing ran on the parent
    └── LoadError                        data was not moved
        ├── TableNotFoundError           no such table
        ├── ColumnMismatchError          the source's columns do not match the table's
        ├── BadRowError                  a row holds a value that its column cannot hold
        ├── ChangesUnavailableError      what has changed in the source cannot be told
        ├── LoadInterruptedError         it was cancelled, or lost its connection; nothing was written
        └── CommitUnknownError           it is unknown whether the commit took place
"""

from __future__ import annotations

from typing import Any, ClassVar

from lakebase_provider.core.errors.redaction import redacted
from lakebase_provider.core.errors.remedy import Remedy, offered


class LakebaseError(Exception):
    """Base of every error that this package raises on purpose.

    Args:
        message: What happened, in one line and without secrets.
        remedy: What to do; defaults to the class's own remedy.
        retry_after: Seconds after which a retry may succeed, where the server said so.
        retryable: Whether a retry may succeed, where that depends on more than the kind.

    Attributes:
        code: Stable name of the error's kind, for logs and alerts.
        retryable: True if the same call may succeed later without anybody changing anything.
        remedy: One line that says what to do.
    """

    code: ClassVar[str] = "lakebase"
    retryable: bool = False
    default_remedy: ClassVar[str] = "See the cause below."

    def __init__(
        self,
        message: str,
        *,
        remedy: str | None = None,
        retry_after: float | None = None,
        retryable: bool | None = None,
    ) -> None:
        # Whatever of it a server or a library said may repeat a secret.
        message = redacted(message)
        super().__init__(message)
        if retryable is not None:
            self.retryable = retryable
        self.message = message
        self.remedy = offered(remedy or self.default_remedy)
        self.retry_after = retry_after

    def __str__(self) -> str:
        # On a line of its own: at the end of a long one it would be cut off where a log viewer ends.
        return f"{self.message} [{self.code}]\nRemedy: {self.remedy}"

    def again(self) -> LakebaseError:
        """A copy to raise in another thread: one exception object must not collect many tracebacks."""
        copy = rebuild(type(self), self.message, self.remedy, self.retry_after, self.retryable)
        copy.__dict__.update(self.details())
        return copy

    def details(self) -> dict[str, object]:
        """Its further attributes, by name, which a copy in another process must be given too."""
        return {}

    def __reduce__(self) -> tuple[object, ...]:
        values = (type(self), self.message, self.remedy, self.retry_after, self.retryable)
        return (rebuild, values, self.details())


def rebuild(
    kind: type[LakebaseError], message: str, remedy: str, retry_after: float | None, retryable: bool
) -> LakebaseError:
    """The error restored, without its :meth:`LakebaseError.details`."""
    return kind(message, remedy=remedy, retry_after=retry_after, retryable=retryable)


class ConfigError(LakebaseError):
    """A setting is missing, malformed or contradicts another; raised before any network call."""

    code = "config"
    default_remedy = "Correct the setting that the message names."


class ForkedPoolError(ConfigError):
    """A pool opened in a parent process was used in its forked child."""

    code = "forked_pool"
    default_remedy = "Open connections in the process that uses them."


class ControlPlaneError(LakebaseError):
    """The workspace answered with an error that has no class of its own."""

    code = "control_plane"
    default_remedy = "Compare the settings with what the workspace's message says."


class NotAuthenticatedError(ControlPlaneError):
    """The workspace does not accept the credentials."""

    code = "not_authenticated"
    default_remedy = "Check the client id and secret (or the token), and that the secret has not expired."


class PermissionDeniedError(ControlPlaneError):
    """The workspace knows the principal and refuses the request."""

    code = "permission_denied"
    default_remedy = "Grant the principal CAN USE on the Lakebase project, in the workspace's settings."


class NotFoundError(ControlPlaneError):
    """No object of that name exists in the workspace, or the principal cannot see it."""

    code = "not_found"
    default_remedy = "Check the name that the message shows: it holds ids, not display names or uids."


class EndpointNotFoundError(NotFoundError):
    """The project, branch, endpoint or instance does not exist, or the principal cannot see it."""

    code = "endpoint_not_found"
    default_remedy = (
        "Use endpoint = projects/<project>/branches/<branch>/endpoints/<endpoint>, "
        "with ids and not display names."
    )


class AlreadyExistsError(ControlPlaneError):
    """An object of that name exists, or one that differs from what was asked for."""

    code = "already_exists"
    default_remedy = Remedy(
        "Use another name, or ensure(), which compares what is there with what you want.",
        options=("ensure",),
        otherwise="Use another name, or delete it first.",
    )


class ProjectBusyError(ControlPlaneError):
    """Another operation on the project is still running; the request was not accepted."""

    code = "project_busy"
    retryable = True
    default_remedy = "Retry later; change a project from one place at a time."


class LimitError(ControlPlaneError):
    """The workspace, the project or the branch has as many objects of the kind as it may have."""

    code = "limit"
    default_remedy = "Delete what is no longer needed (purge branches), or create fewer at once."


class ObjectStateError(ControlPlaneError):
    """The object's state or its place does not allow it: protected, a root, expiring, with children."""

    code = "object_state"
    default_remedy = "Change what the message names first, or use another object."


class ManagedByParentError(ObjectStateError):
    """The object exists and goes with its parent, such as a branch's read-write endpoint."""

    code = "managed_by_parent"
    default_remedy = "Delete the parent instead, if it is to go."


class OperationFailedError(ControlPlaneError):
    """A long-running operation of the workspace ended with an error.

    Attributes:
        name: The operation's name.
    """

    code = "operation_failed"
    default_remedy = "See what the workspace's message says; the object may be there in part, or unchanged."
    name: str = ""

    def details(self) -> dict[str, object]:
        """The operation's name."""
        return {**super().details(), "name": self.name}


class ControlPlaneThrottledError(ControlPlaneError):
    """The workspace limits the rate of requests (429)."""

    code = "control_plane_throttled"
    retryable = True
    default_remedy = "Retry later; start fewer processes at the same moment."


class ControlPlaneUnavailableError(ControlPlaneError):
    """The workspace failed (5xx) or could not be reached."""

    code = "control_plane_unavailable"
    retryable = True
    default_remedy = "Retry; if it persists, check the workspace's URL, the network path and the status page."


class ControlPlaneTimeoutError(ControlPlaneError):
    """The workspace did not answer before the caller's deadline."""

    code = "control_plane_timeout"
    retryable = True
    default_remedy: ClassVar[str] = Remedy(
        "Retry; if it persists, check the network path to the workspace, or raise connect_budget.",
        options=("connect_budget",),
        otherwise="Retry; if it persists, check the network path to the workspace.",
    )


class OperationTimeoutError(ControlPlaneTimeoutError):
    """A long-running operation, or what follows it, did not end before the caller's deadline; it goes on.

    Attributes:
        name: The operation's name, by which it can be waited for again; else the name of the object.
    """

    code = "operation_timeout"
    default_remedy = "Wait for it again, by the operation's name or with wait_ready; or raise timeout."
    name: str = ""

    def details(self) -> dict[str, object]:
        """The operation's name."""
        return {**super().details(), "name": self.name}


class WrongBranchError(LakebaseError):
    """The session is not on the branch that it is meant to be on, or is on the project's default branch."""

    code = "wrong_branch"
    default_remedy = "Nothing was written. Make the client from LakebaseConfig.on_branch, and set no host."


class LeaseLostError(LakebaseError):
    """A leased branch has expired, was deleted, or has given its name to another one: its data are lost."""

    code = "lease_lost"
    retryable = True
    default_remedy = "Run the work again, on a new lease: a longer one, or with a heartbeat, if it expired."


class LakebaseConnectionError(LakebaseError):
    """The database could not be reached, for a reason that has no class of its own."""

    code = "connection"
    retryable = True
    default_remedy: ClassVar[str] = Remedy(
        "Retry; if it persists, run `lakebase doctor` to see which stage fails.",
        options=("doctor",),
        otherwise="Retry; if it persists, check host and port, and the network path to them.",
    )


class DnsError(LakebaseConnectionError):
    """The database's host name does not resolve."""

    code = "dns"
    default_remedy = "Check the host; on a private link, check that this machine uses its DNS zone."


class TlsError(LakebaseConnectionError):
    """The server's certificate is not trusted, or TLS is missing."""

    code = "tls"
    retryable = False
    default_remedy = "Check host and sslrootcert; if a proxy intercepts TLS, add its CA to sslrootcert."


class EndpointWakingError(LakebaseConnectionError):
    """The compute is starting after scaling to zero, or does not answer yet."""

    code = "endpoint_waking"
    default_remedy: ClassVar[str] = Remedy(
        "Retry; raise connect_budget if the compute needs longer to start.",
        options=("connect_budget",),
        otherwise="Retry: a suspended compute takes seconds to start; if it persists, check host and port.",
    )


class EndpointDisabledError(LakebaseConnectionError):
    """The endpoint is switched off."""

    code = "endpoint_disabled"
    retryable = False
    default_remedy = (
        "Enable the endpoint: run `lakebase endpoints enable`, or call client.workspace.endpoints.enable()."
    )


class LoginRejectedError(LakebaseConnectionError):
    """The server refuses the role or the password."""

    code = "login_rejected"
    retryable = False
    default_remedy = (
        "Use the service principal's client id as user, and create its role in SQL: "
        "SELECT databricks_create_role('<client id>', 'SERVICE_PRINCIPAL')."
    )


class DatabaseMissingError(LakebaseConnectionError):
    """The server has no database of that name."""

    code = "database_missing"
    retryable = False
    default_remedy = "Check the database's name; Lakebase creates `databricks_postgres`."


class SessionSettingError(LakebaseConnectionError):
    """The server, or a pooler in front of it, refuses a setting with which the session was to start."""

    code = "session_setting"
    retryable = False
    default_remedy = "Remove the setting that the message names, or set it in SQL once connected."


class TooManyConnectionsError(LakebaseConnectionError):
    """The endpoint's connection limit is reached."""

    code = "too_many_connections"
    default_remedy: ClassVar[str] = Remedy(
        "Retry; lower max_size, run fewer tasks at once (an Airflow or Dagster pool), "
        "or use a larger endpoint.",
        options=("max_size",),
        otherwise="Retry; run fewer tasks at once, or use a larger endpoint.",
    )


class PoolExhaustedError(LakebaseError):
    """No connection of the pool became free before the deadline."""

    code = "pool_exhausted"
    retryable = True
    default_remedy = "Return connections sooner (use `with`), or raise max_size."


class ClockSkewError(LakebaseError):
    """This host's clock disagrees with the workspace's, so a new token already looks expired."""

    code = "clock_skew"
    default_remedy = "Synchronise this host's clock (NTP)."


class StatementError(LakebaseError):
    """A statement failed on the server, for a reason that has no class of its own."""

    code = "statement"
    default_remedy = "Correct what the server's message names; retry if the server itself was at fault."


class LockTimeoutError(StatementError):
    """A lock was not acquired within `lock_timeout`; the message says who held it."""

    code = "lock_timeout"
    retryable = True
    default_remedy = "Retry; if it persists, end the session that the message names, or raise lock_timeout."


class IdleInTransactionError(StatementError):
    """The server ended a session that sat idle too long in a transaction, which is rolled back."""

    code = "idle_in_transaction"
    retryable = True
    default_remedy = (
        "Commit before work that needs no database, or raise the server's "
        "idle_in_transaction_session_timeout in SQL (SET, or ALTER ROLE ... SET)."
    )


class StatementTimeoutError(StatementError):
    """The server ended a statement, or a transaction, that took longer than its timeout allows."""

    code = "statement_timeout"
    default_remedy = "Do less in one statement, or raise statement_timeout, in the configuration or by SET."


class SessionEndedError(StatementError):
    """The server ended the session: it idled, the server restarted, or somebody ended it; work is undone."""

    code = "session_ended"
    retryable = True
    default_remedy = "Run the whole transaction again on a new connection; uncommitted work is undone."


class TransactionConflictError(StatementError):
    """Each attempt at a transaction was undone by another one: deadlock or serialization failure."""

    code = "transaction_conflict"
    retryable = True
    default_remedy = "Retry; make all transactions take their locks in the same order, or run fewer at once."


class FenceError(LakebaseError):
    """Another session is working on the same key, and could not be ended."""

    code = "fence"
    retryable = True
    default_remedy = "Retry; if it persists, end the session that the message names."


class ResultTooLargeError(LakebaseError):
    """A statement returned more rows than the caller allowed."""

    code = "result_too_large"
    default_remedy = "Select fewer rows, or write the rows to a file."


class MigrationError(LakebaseError):
    """Files of migrations were refused, a statement of one failed, or a command that migrates did.

    Attributes:
        file, line: Name of the file, and number of its line from 1, where it is about one.
        sqlstate: The server's code for what went wrong, where the server said so.
    """

    code = "migration"
    default_remedy = "Correct the file that the message names, and run again: what is applied is skipped."
    file: str | None = None
    line: int | None = None
    sqlstate: str | None = None

    def details(self) -> dict[str, object]:
        """The file, its line and the SQLSTATE."""
        return {**super().details(), "file": self.file, "line": self.line, "sqlstate": self.sqlstate}


class RehearsalError(LakebaseError):
    """A change or a check of it failed on a branch, so nothing ran on the parent; it carries the report."""

    code = "rehearsal"
    default_remedy = "Correct the change, or the checks that the message names, and rehearse again."
    report: Any = None  # a RehearsalReport

    def details(self) -> dict[str, object]:
        """The report."""
        return {**super().details(), "report": self.report}


class HealthCheckError(LakebaseError):
    """At least one stage of a health report failed, or one of its figures exceeds a limit."""

    code = "health_check"
    retryable = True
    default_remedy = "Follow the remedy of the failed stage."


class LoadError(LakebaseError):
    """Data was not moved, for a reason that has no class of its own.

    Attributes:
        sqlstate: The server's code, where it said one; its own error is the cause, unless it quotes values.
    """

    code = "load"
    default_remedy = "Correct what the server's message names; nothing of the load was written."
    sqlstate: str | None = None

    def details(self) -> dict[str, object]:
        """The SQLSTATE."""
        return {**super().details(), "sqlstate": self.sqlstate}


class TableNotFoundError(LoadError):
    """The table does not exist, or lies in a schema that the role may not use."""

    code = "table_not_found"
    default_remedy: ClassVar[str] = Remedy(
        "Check schema and name (they are case-sensitive), or load with create=True.",
        options=("create",),
        otherwise="Check schema and name (they are case-sensitive), or create the table first.",
    )


class ColumnMismatchError(LoadError):
    """The source's columns do not match the table's."""

    code = "column_mismatch"
    default_remedy: ClassVar[str] = Remedy(
        "Give the source's columns the table's names, or list the table's columns in columns=.",
        options=("columns",),
        otherwise="Give the source's columns the table's names.",
    )


class BadRowError(LoadError):
    """A row holds a value that its column cannot hold; nothing was written.

    Args:
        message: What happened, without the value.
        row: Number of the row in the source, from 1.
        column: Name of the column.
        kind: Kind of the value, such as ``"str"`` or ``"int64"``.
    """

    code = "bad_row"
    default_remedy: ClassVar[str] = Remedy(
        "Correct the row in the source, or load with on_error='reject'.",
        options=("on_error",),
        otherwise="Correct the row in the source.",
    )

    def __init__(
        self,
        message: str,
        *,
        row: int | None = None,
        column: str | None = None,
        kind: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(message, **common)
        self.row = row
        self.column = column
        self.kind = kind

    def details(self) -> dict[str, object]:
        """The SQLSTATE and where the value is."""
        return {**super().details(), "row": self.row, "column": self.column, "kind": self.kind}


class ChangesUnavailableError(LoadError):
    """What has changed in a source since its last load cannot be told; nothing was written."""

    code = "changes_unavailable"
    default_remedy = "Replace all rows of the table by those of the source."


class LoadInterruptedError(LoadError):
    """The load was cancelled, or lost its connection, before the commit; nothing was written."""

    code = "load_interrupted"
    retryable = True
    default_remedy: ClassVar[str] = Remedy(
        "Load again, with the same load_id if it has one.",
        options=("load_id",),
        otherwise="Run it again: the first attempt left nothing behind.",
    )


class CommitUnknownError(LoadError):
    """The connection was lost while the commit was under way, and it is unknown whether it took place."""

    code = "commit_unknown"
    default_remedy: ClassVar[str] = Remedy(
        "Check whether the rows are there before you load again; give loads a load_id.",
        options=("load_id",),
        otherwise="Check whether the rows are there before you run it again.",
    )
