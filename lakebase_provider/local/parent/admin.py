"""Handle on a running local Lakebase: expire tokens, suspend it, script faults, read counters."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.errors.tracebacks import without_locals
from lakebase_provider.local.contract import superuser
from lakebase_provider.local.contract.errors import LocalLakebaseError

if TYPE_CHECKING:
    from lakebase_provider.local.contract.records import Counters, Principal, Request

#: Seconds. Nothing here takes long, except on a machine busy with a whole test run.
_TIMEOUT = 60.0


class Admin:
    """Controls one local Lakebase over its admin API; usable from any thread and any process.

    Args:
        port: The control plane's port.
        key: The run's admin key.
        superuser_dsn: For :meth:`execute`.
    """

    def __init__(self, port: int, key: str, superuser_dsn: str) -> None:
        self._port = port
        # Opaque, since these errors appear in the tracebacks of tests and of tools around them.
        self._key = Secret(key)
        self._superuser_dsn = Secret(superuser_dsn, pieces=False)

    def set_token_lifetime(self, seconds: float) -> None:
        """Limit the lifetime of database tokens minted from now on."""
        self._call("set", name="token_lifetime", value=seconds)

    def set_clock_skew(self, seconds: float) -> None:
        """Offset the workspace's clock; positive values set it ahead."""
        self._call("set", name="clock_skew", value=seconds)

    def set(self, **settings: Any) -> None:
        """Change how the workspace behaves where real ones differ, or where nobody knows.

        Args:
            **settings: Attributes of ``lakebase_provider.local.workspace.settings.Settings``, such as
                `operation_seconds`, `auth_delay` and `unarchived_branch_limit`.

        Raises:
            ValueError: There is no such setting, or the value is of another type.
        """
        for name, value in settings.items():
            self._call("set", name=name, value=value)

    def set_error(
        self,
        name: str,
        *,
        status: int | None = None,
        error_code: str | None = None,
        message: str | None = None,
    ) -> None:
        """Let an error of the control plane say something else.

        Args:
            name: A key of ``lakebase_provider.local.workspace.settings.ERRORS``.
            status: Of HTTP; None to leave it.
            error_code: In the error's body; None to leave it.
            message: In the error's body, with the placeholders of the present one; None to leave it.

        Raises:
            ValueError: There is no such error.
        """
        self._call("set_error", name=name, status=status, error_code=error_code, message=message)

    def advance(self, seconds: float) -> None:
        """Let time pass by the workspace's clock: what is due then is done when this returns."""
        self._call("advance", seconds=seconds)

    def operation_fault(
        self,
        kind: str = "*",
        *,
        error_code: str = "INTERNAL_ERROR",
        message: str = "the operation failed",
        never_ends: bool = False,
        lands: bool = False,
        times: int | None = 1,
    ) -> None:
        """Let long operations fail, or never end; if several faults match, the first one applies.

        Args:
            kind: Of which resource: `branch`, `endpoint`, `role` and so on; `pipeline_update` for an update
                of a synced table's pipeline, whose event then has the message, and which always ends; or `*`.
            error_code: In the operation's error.
            message: In the operation's error.
            never_ends: True for operations that run until :meth:`clear_faults`.
            lands: True for operations that do all that they should, and say all the same that they failed.
            times: How many operations to affect; None for all.
        """
        self._call(
            "operation_fault",
            kind=kind,
            error_code=error_code,
            message=message,
            never_ends=never_ends,
            lands=lands,
            times=times,
        )

    def expire_tokens(self) -> None:
        """Treat every database token minted so far as expired at the next login."""
        self._call("expire_tokens")

    def revoke_tokens(self) -> None:
        """Refuse every database token minted so far, without saying that it expired."""
        self._call("revoke_tokens")

    def set_login_error_style(self, style: str) -> None:
        """Choose the text that refuses an expired token.

        Args:
            style: A key of ``lakebase_provider.local.identity.login_errors.EXPIRED_STYLES``.
        """
        self._call("set", name="login_error_style", value=style)

    def suspend(self, endpoint: str | None = None) -> None:
        """Scale to zero: close every session; the next connection wakes the endpoint.

        Args:
            endpoint: Full name; None for the first one, whose Postgres runs on for :meth:`execute`.
        """
        self._call("suspend", endpoint=endpoint)

    def hold_replica(self, endpoint: str, held: bool = True) -> None:
        """Let a read replica lag until it is let go: what is written meanwhile shows only then.

        Args:
            endpoint: Full name of a READ_ONLY endpoint.
            held: False to let it go.
        """
        self._call("hold_replica", endpoint=endpoint, held=held)

    def set_wake_delay(self, seconds: float) -> None:
        """Set how long waking takes; connections are held meanwhile."""
        self._call("set", name="wake_delay", value=seconds)

    def set_wake_mode(self, mode: str) -> None:
        """Choose how logins are answered while the endpoint wakes.

        Args:
            mode: `hold` keeps them waiting; `starting` refuses them with "the database system is starting
                up"; `paused` with "External authorization failed … paused instances".
        """
        self._call("set", name="wake_mode", value=mode)

    def set_endpoint_state(self, state: str) -> None:
        """Put the endpoint into a state.

        Args:
            state: `ACTIVE`; `IDLE`, as by :meth:`suspend`; `DEGRADED`, which only the API shows; or `INIT`:
                it has no host yet, and logins are refused as for a paused one.
        """
        self._call("endpoint_state", state=state)

    def remove_endpoint(self) -> None:
        """Delete the endpoint: the API answers 404, sessions are closed, logins find no endpoint."""
        self._call("remove_endpoint")

    def restore_endpoint(self) -> None:
        """Undo :meth:`remove_endpoint`."""
        self._call("restore_endpoint")

    def set_branch_state(self, state: str) -> None:
        """Put the endpoint's branch into a state.

        Args:
            state: `READY`, `INIT`, `IMPORTING` or `RESETTING`, which only the API shows; `ARCHIVED`, whose
                endpoints are gone; or `DELETED`, which is gone itself.
        """
        self._call("branch_state", state=state)

    def move_endpoint(self, host: str, *, former_host_says: str = "endpoint_missing") -> None:
        """Give the endpoint another host name: sessions are closed, and logins at the old one are refused.

        The server learns the client's host from TLS (SNI), so `localhost` and the two loopback addresses
        together count as two hosts.

        Args:
            host: The new name, which the API returns from now on.
            former_host_says: Name of a refusal in ``lakebase_provider.local.identity.login_errors.REFUSALS``.
        """
        self._call("move_endpoint", host=host, former_host_says=former_host_says)

    def crash_postgres(self, *, downtime: float = 0.0, endpoint: str | None = None) -> None:
        """Stop Postgres as `pg_ctl stop -m immediate` does, and restart it: data is kept, sessions are not.

        Args:
            downtime: Seconds until it starts; returns when it is down. With 0 it returns when it is back.
                Logins are refused meanwhile.
            endpoint: Full name; None for the first one.
        """
        self._call("crash_postgres", downtime=downtime, endpoint=endpoint)

    def set_certificate(self, kind: str) -> None:
        """Choose the certificate that the next connections get.

        Args:
            kind: One of ``lakebase_provider.local.identity.certificates.KINDS``: `valid`, `expired`,
                `other_host` or `other_authority`.
        """
        self._call("set_certificate", kind=kind)

    def login_fault(self, text: str, *, times: int | None = None, before_password: bool = False) -> None:
        """Refuse logins, whatever their password.

        Args:
            text: The text for the client, or the name of a known text, one of
                ``lakebase_provider.local.identity.login_errors.NAMES``.
                Your own text may have a second line after `DETAIL:`.
            times: How many logins to refuse; None for all, until :meth:`clear_faults`.
            before_password: True to refuse before the client has sent its password.
        """
        self._call("login_fault", text=text, times=times, before_password=before_password)

    def disable_endpoint(self, disabled: bool = True) -> None:
        """Switch the endpoint off (or on again): sessions are closed and logins refused."""
        self._call("disable_endpoint", disabled=disabled)

    def fault(
        self,
        method: str,
        path: str,
        *,
        status: int | None = None,
        error_code: str = "TEMPORARILY_UNAVAILABLE",
        message: str = "scripted fault",
        retry_after: float | None = None,
        hang: float | None = None,
        times: int | None = None,
        lost: bool = False,
    ) -> None:
        """Make the control plane misbehave on a route; if several faults match, the first one applies.

        Args:
            method: HTTP method, or `*`.
            path: Path of the route; `*` and `?` as in file names.
            status: Answer with this status; None for the real answer, after `hang`.
            error_code: Code in the error's body.
            message: Text in the error's body.
            retry_after: Seconds for a Retry-After header.
            hang: Seconds to wait before answering, ended early by :meth:`clear_faults`.
            times: How many requests to affect; None for all.
            lost: True to carry the request out, and lose its real answer; takes a `status`.
        """
        self._call(
            "fault",
            method=method,
            path=path,
            status=status,
            error_code=error_code,
            message=message,
            retry_after=retry_after,
            hang=hang,
            times=times,
            lost=lost,
        )

    def clear_faults(self) -> None:
        """Clear all faults, and let hanging requests continue."""
        self._call("clear_faults")

    def requests(self) -> list[Request]:
        """Return the control plane's request log, oldest first."""
        from lakebase_provider.local.contract.records import Request

        return [Request(**entry) for entry in self._call("requests")]

    def counters(self) -> Counters:
        """Return what was counted since the start or the last reset."""
        from lakebase_provider.local.contract.records import Counters

        return Counters(**self._call("counters"))

    def reset_counters(self) -> None:
        """Set the counters to zero and empty the request log."""
        self._call("reset_counters")

    def reset(self) -> None:
        """Undo faults, states, settings, native passwords, counters and log.

        Principals are kept, and so are the data and the roles of the first project's branch `production`; all
        other projects, branches, endpoints, snapshots and catalogs are removed.
        """
        self._call("reset")

    def add_principal(
        self, name: str | None = None, type: str = "SERVICE_PRINCIPAL", create_role: bool = True
    ) -> Principal:
        """Add an identity with its own credentials to the workspace.

        Args:
            name: Client id or e-mail address; None for a random one.
            type: `SERVICE_PRINCIPAL` or `USER`.
            create_role: True to create its Postgres role as well.
        """
        from lakebase_provider.local.contract.records import Principal

        return Principal(**self._call("add_principal", name=name, type=type, create_role=create_role))

    def set_native_password(self, role: str, password: str) -> None:
        """Let a role log in with a password instead of a token; a missing role is created."""
        self._call("set_native_password", role=role, password=password)

    def execute(
        self,
        statement: str,
        parameters: Sequence[Any] | None = None,
        *,
        database: str = "databricks_postgres",
        endpoint: str | None = None,
    ) -> list[tuple[Any, ...]]:
        """Run SQL as Postgres' superuser, past the front end, and return the rows.

        Args:
            statement: One statement with `%s` placeholders, or several without parameters.
            parameters: Values for the placeholders.
            database: Where to run it.
            endpoint: Full name of another endpoint than the first, which must not be suspended.
        """
        dsn = self._call("superuser_dsn", endpoint=endpoint) if endpoint else self._superuser_dsn.reveal()
        return superuser.execute(dsn, statement, parameters, database=database)

    def ping(self) -> int:
        """Return the server's process id."""
        return int(self._call("ping"))

    def stop_server(self) -> None:
        """Tell the server to stop; returns before it has."""
        self._call("stop")

    def _headers(self) -> dict[str, str]:
        return {"X-Local-Admin-Key": self._key.reveal(), "Content-Type": "application/json"}

    def _call(self, command: str, **arguments: Any) -> Any:
        # http.client, since it ignores the environment's proxies.
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT)
        try:
            connection.request("POST", f"/_local/{command}", json.dumps(arguments), self._headers())
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise LocalLakebaseError(
                f"The local Lakebase on port {self._port} does not answer: {error}.",
                remedy="Start it again; it stops with the process that started it.",
            ) from without_locals(error)
        finally:
            connection.close()
        try:
            answer = json.loads(body)
        except ValueError:
            answer = {"error": body.decode(errors="replace")}
        if response.status == 400:
            raise ValueError(answer["error"])
        if response.status != 200:
            raise LocalLakebaseError(
                f"The local Lakebase failed to {command} (HTTP {response.status}): {answer.get('error')}"
            )
        return answer["result"]
