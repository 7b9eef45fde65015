"""Handle on a running local Lakebase: expire tokens, suspend it, script faults, read counters."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lakebase_provider.local.errors import LocalLakebaseError

if TYPE_CHECKING:
    from lakebase_provider.local.principals import Principal
    from lakebase_provider.local.state import Counters, Request

#: Seconds. Nothing here takes long, except on a machine that is busy with a whole test run.
_TIMEOUT = 60.0


class Admin:
    """Controls one local Lakebase over its admin API; usable from any thread and any process.

    Args:
        port: Of the control plane.
        key: The run's admin key.
        superuser_dsn: For :meth:`execute`.
    """

    def __init__(self, port: int, key: str, superuser_dsn: str) -> None:
        self._port = port
        self._key = key
        self._superuser_dsn = superuser_dsn

    def set_token_lifetime(self, seconds: float) -> None:
        """Let database tokens minted from now on live this long at most."""
        self._call("set", name="token_lifetime", value=seconds)

    def set_clock_skew(self, seconds: float) -> None:
        """Set the workspace's clock wrong, ahead where positive."""
        self._call("set", name="clock_skew", value=seconds)

    def expire_tokens(self) -> None:
        """Let every database token minted so far count as expired at the next login."""
        self._call("expire_tokens")

    def revoke_tokens(self) -> None:
        """Refuse every database token minted so far, without saying that it expired."""
        self._call("revoke_tokens")

    def set_login_error_style(self, style: str) -> None:
        """Choose the text that refuses an expired token.

        Args:
            style: A key of :data:`lakebase_provider.local.login_errors.EXPIRED_STYLES`.
        """
        self._call("set", name="login_error_style", value=style)

    def suspend(self) -> None:
        """Scale to zero: close every session and let the next connection wake the endpoint."""
        self._call("suspend")

    def set_wake_delay(self, seconds: float) -> None:
        """Let a wake take this long; connections are held meanwhile."""
        self._call("set", name="wake_delay", value=seconds)

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
    ) -> None:
        """Let the control plane misbehave on a route; of several faults that fit, the first one counts.

        Args:
            method: HTTP method, or `*`.
            path: Path of the route; `*` and `?` as in file names.
            status: Answer with this status; None for the true answer, after `hang`.
            error_code: Code in the error's body.
            message: Text in the error's body.
            retry_after: Seconds for a Retry-After header.
            hang: Seconds to wait before answering, ended early by :meth:`clear_faults`.
            times: How many requests to spoil; None for all.
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
        )

    def clear_faults(self) -> None:
        """Forget all faults, and let requests that hang go on."""
        self._call("clear_faults")

    def requests(self) -> list[Request]:
        """Return the control plane's request log, oldest first."""
        from lakebase_provider.local.state import Request

        return [Request(**entry) for entry in self._call("requests")]

    def counters(self) -> Counters:
        """Return what was counted since the start or the last reset."""
        from lakebase_provider.local.state import Counters

        return Counters(**self._call("counters"))

    def reset_counters(self) -> None:
        """Set the counters to zero and empty the request log."""
        self._call("reset_counters")

    def reset(self) -> None:
        """Undo faults, settings, native passwords, counters and log; principals, data and sessions stay."""
        self._call("reset")

    def add_principal(
        self, name: str | None = None, type: str = "SERVICE_PRINCIPAL", create_role: bool = True
    ) -> Principal:
        """Add an identity with credentials of its own to the workspace.

        Args:
            name: Client id or e-mail address; None for a random one.
            type: `SERVICE_PRINCIPAL` or `USER`.
            create_role: True to create its Postgres role as well.
        """
        from lakebase_provider.local.principals import Principal

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
    ) -> list[tuple[Any, ...]]:
        """Run SQL as Postgres' superuser, past the front end, and return the rows.

        Args:
            statement: One statement with `%s` placeholders, or several without parameters.
            parameters: Values for the placeholders.
            database: Where to run it.
        """
        import psycopg

        with psycopg.connect(self._superuser_dsn, dbname=database, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def ping(self) -> int:
        """Return the server's process id."""
        return int(self._call("ping"))

    def stop_server(self) -> None:
        """Tell the server to end; returns before it has."""
        self._call("stop")

    def _call(self, command: str, **arguments: Any) -> Any:
        # http.client, for it knows nothing of the environment's proxies.
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT)
        try:
            headers = {"X-Local-Admin-Key": self._key, "Content-Type": "application/json"}
            connection.request("POST", f"/_local/{command}", json.dumps(arguments), headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise LocalLakebaseError(
                f"The local Lakebase on port {self._port} does not answer: {error}.",
                remedy="Start it again; it ends with the process that started it.",
            ) from error
        finally:
            connection.close()
        if response.status == 400:
            raise ValueError(answer["error"])
        if response.status != 200:
            raise LocalLakebaseError(f"The local Lakebase refused {command}: {answer.get('error')}.")
        return answer["result"]
