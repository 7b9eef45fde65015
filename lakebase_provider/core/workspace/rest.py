"""Requests to the workspace over plain HTTPS, with a service principal's secret or a workspace token.

These are the REST calls in the Lakebase documentation for languages without an SDK. They take milliseconds,
while importing databricks-sdk takes seconds of CPU; anything that they do not cover, and any surprise in
discovery, is left to the SDK (:class:`NotForRest`).
"""

from __future__ import annotations

import base64
import json
import os
import threading
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import certifi

from lakebase_provider.core.base.clock import SYSTEM_CLOCK, Clock
from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.base.single_flight import MOST_ABANDONED
from lakebase_provider.core.config import LakebaseConfig, setting
from lakebase_provider.core.config.allowed_hosts import (
    HostRefusedError,
    Origin,
    allowed_origin,
    is_on_this_machine,
)
from lakebase_provider.core.errors import (
    ControlPlaneError,
    ControlPlaneTimeoutError,
    LakebaseError,
    NotAuthenticatedError,
)
from lakebase_provider.core.errors.texts import classify_control_plane
from lakebase_provider.core.errors.tracebacks import without_frames, without_locals
from lakebase_provider.core.workspace.answers import Answer, parse_json, said_in, shown, token_text
from lakebase_provider.core.workspace.http_limits import (
    CONNECT_SECONDS,
    Limit,
    at_most,
    current_limit,
    limit_sockets,
    within,
)
from lakebase_provider.version import __version__

#: Seconds for one call of :meth:`RestTransport.send`, from discovery to the answer's last byte. A workspace
#: takes milliseconds. Callers have their own deadlines, and do not wait longer.
_TIMEOUT = 20.0
#: Concurrent requests: one that mints and one that looks up the database's host, plus abandoned ones of each
#: kind that have not ended.
_MOST_AT_ONCE = 2 * (1 + MOST_ABANDONED)
#: A workspace token with fewer seconds left is no longer used.
_LEAST_LIFE = 60.0
#: Where the library requests, used by databricks-sdk, looks for trusted certificates.
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class NotForRest(Exception):  # noqa: N818 # no error: it says to go another way
    """The workspace is not as the documentation describes it; databricks-sdk may know what to do."""


class RestTransport:
    """Sends requests over urllib3.

    Args:
        config: One that :meth:`can_serve` accepts.
        clock: Where the time comes from.
        timeout: Seconds that a call of :meth:`send` may take, connecting and the whole answer included.

    Raises:
        ConfigError: No secret may be sent to the workspace's host.
    """

    def __init__(
        self, config: LakebaseConfig, clock: Clock = SYSTEM_CLOCK, *, timeout: float = _TIMEOUT
    ) -> None:
        assert config.workspace_host is not None
        self._config = config
        self._origin = _origin(config.workspace_host)
        self._clock = clock
        self._timeout = timeout
        self._reset_process_state()

    @staticmethod
    def can_serve(config: LakebaseConfig) -> bool:
        """Whether the credentials are of the two kinds, and no proxy is in between."""
        kind = (
            "pat" if config.token is not None else "oauth-m2m" if config.client_secret is not None else None
        )
        host = config.workspace_host
        return (
            kind is not None
            and host is not None
            and config.auth_type in (None, kind)
            and config.profile is None
            # The SDK handles proxies and their credentials. None of them is used for this machine.
            and (
                is_on_this_machine(host)
                or urlsplit(host).scheme not in urllib.request.getproxies()
                or bool(_bypasses_proxy(host))
            )
        )

    def _reset_process_state(self) -> None:
        import urllib3

        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._http = limit_sockets(
            urllib3.PoolManager(
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=self._timeout),
                retries=False,
                # The maximum number of concurrent requests; one more would be closed after use, with a
                # warning.
                maxsize=_MOST_AT_ONCE,
                cert_reqs="CERT_REQUIRED",
                ca_certs=next(
                    (os.environ[name] for name in _CA_VARIABLES if os.environ.get(name)), certifi.where()
                ),
                headers={
                    "User-Agent": f"lakebase-provider/{__version__}",
                    "Accept": "application/json",
                    # An uncompressed answer cannot expand a thousandfold.
                    "Accept-Encoding": "identity",
                },
            )
        )
        self._token_endpoint: str | None = None
        self._workspace_id: str | None = None
        self._access_token: Secret | None = None
        self._access_token_until = float("-inf")

    def send(
        self,
        what: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        verb: str = "return",
    ) -> Any:
        """The decoded answer to a request; an object without fields if it has no content.

        Args:
            what: What is requested, for errors.
            method: HTTP method.
            path: Path below the workspace's URL.
            body: What to send as JSON.
            query: What follows the path, not quoted.
            verb: What the workspace is to do with it, for errors.

        Raises:
            LakebaseError: The workspace refused or could not be reached.
            NotForRest: Discovery did not work as documented.
        """
        if self._pid != os.getpid():
            # A forked child must not use its parent's sockets.
            self._reset_process_state()
        try:
            with within(Limit(at_most(self._timeout))):
                return self._send_again_if_revoked(
                    _Wish(what, method, f"{path}?{urlencode(query)}" if query else path, body, verb)
                )
        except LakebaseError as error:
            # The frames below hold the headers.
            raise without_locals(error) from error.__cause__
        except BaseException as error:
            # Such as a task's timeout, in the middle of it.
            raise without_frames(error) from error.__cause__

    def _send_again_if_revoked(self, wish: _Wish) -> Any:
        try:
            return self._send(wish)
        except NotAuthenticatedError:
            with self._lock:
                cached, self._access_token = self._access_token, None
            if cached is None:
                raise
            # The workspace token was revoked early: try once more with a new one.
            return self._send(wish)

    def _send(self, wish: _Wish) -> Any:
        headers = {"Authorization": f"Bearer {self._workspace_token()}"}
        if self._workspace_id:
            headers["X-Databricks-Workspace-Id"] = self._workspace_id
        content = None if wish.body is None else json.dumps(wish.body)
        reply = self._exchange(wish.what, wish.method, f"{self._origin}{wish.path}", headers, content)
        if 200 <= reply.status < 300 and reply.content is not None:
            return reply.content
        raise reply.error(wish.what, wish.verb)

    def _workspace_token(self) -> str:
        if self._config.token is not None:
            token = token_text(self._config.token.reveal())
            if token is None:
                raise setting("token").error("has a character that tokens cannot have, such as a line break")
            return token
        with self._lock:
            if self._access_token and self._clock.elapsed() < self._access_token_until:
                return self._access_token.reveal()
        # Without the lock, since it is I/O; two threads may ask at the same time, which is harmless.
        return self._sign_in(self._discover_token_endpoint())

    def _sign_in(self, endpoint: str) -> str:
        assert self._config.client_id is not None
        assert self._config.client_secret is not None
        what = "a workspace token"
        basic = f"{self._config.client_id}:{self._config.client_secret.reveal()}".encode()
        reply = self._exchange(
            what,
            "POST",
            endpoint,
            {
                "Authorization": f"Basic {base64.b64encode(basic).decode()}",
                "Content-Type": "application/x-www-form-urlencoded",
            },
            urlencode({"grant_type": "client_credentials", "scope": "all-apis"}),
        )
        if reply.status != 200 or reply.content is None:
            raise reply.error(what)
        answer = _as_answer(reply.content, what)
        access_token, lifetime = answer.token("access_token"), answer.seconds("expires_in")
        with self._lock:
            self._access_token = Secret(access_token)
            self._access_token_until = self._clock.elapsed() + lifetime - min(_LEAST_LIFE, lifetime / 4)
        return access_token

    def _discover_token_endpoint(self) -> str:
        """Where the client secret goes: a URL at the workspace's own origin, whatever discovery says."""
        if self._token_endpoint is None:
            found = self._discover(f"{self._origin}/.well-known/databricks-config")
            oidc = found.url_at(self._origin, "oidc_endpoint") or f"{self._origin}/oidc"
            self._workspace_id = found.workspace_id("workspace_id")
            if "{account_id}" in oidc:
                raise NotForRest("the OAuth server belongs to an account")
            server = self._discover(f"{oidc}/.well-known/oauth-authorization-server")
            endpoint = server.url_at(self._origin, "token_endpoint")
            if endpoint is None:
                raise NotForRest("discovery returned no token endpoint")
            self._token_endpoint = endpoint
        return self._token_endpoint

    def _discover(self, url: str) -> Answer:
        what = "its OAuth server"
        reply = self._exchange(what, "GET", url, {}, None)
        if reply.status == 200 and isinstance(reply.content, dict):
            return Answer(reply.content, what)
        error = reply.error(what)
        if error.retryable:
            raise error
        if 300 <= reply.status < 400:
            # databricks-sdk would follow it to any host.
            raise ControlPlaneError(
                f"The workspace redirects elsewhere for {what} (HTTP status {reply.status}).",
                remedy="Set 'workspace_host' to the workspace's own URL.",
            )
        raise NotForRest("discovery was refused, or did not return an object")

    def _exchange(
        self, what: str, method: str, url: str, headers: Mapping[str, str], body: str | None
    ) -> _Reply:
        from urllib3.exceptions import HTTPError

        limit = current_limit() or Limit(self._timeout)
        limit.begin_answer()
        more = {"Content-Type": "application/json"} if body and "Content-Type" not in headers else {}
        try:
            with within(limit):
                response = self._http.request(
                    method,
                    url,
                    headers={**self._http.headers, **more, **headers},
                    body=body,
                    redirect=False,
                    decode_content=False,
                )
        except (HTTPError, OSError) as error:
            # Its frames hold the headers.
            cause = without_locals(error)
            raise _broken_off(what, limit, error) from cause
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise ControlPlaneError(f"The workspace compressed {what} although it was not asked to.")
        empty = response.status != 200 and not response.data
        content = {} if empty else _content(response.data)
        return _Reply(response.status, content, response.headers.get("Retry-After", ""))


class _Wish(NamedTuple):
    """The arguments of :meth:`RestTransport.send`, the query within the path."""

    what: str
    method: str
    path: str
    body: Mapping[str, Any] | None
    verb: str


class _Reply(NamedTuple):
    """What was received.

    Attributes:
        status: HTTP status.
        content: The body's JSON; None if it is not JSON.
        retry_after: The header of that name.
    """

    status: int
    content: Any
    retry_after: str

    def error(self, what: str, verb: str = "return") -> LakebaseError:
        """The answer as an error."""
        seconds = float(self.retry_after[:10]) if self.retry_after.isdecimal() else None
        text = _error_text(self.status, self.content)
        return classify_control_plane(text, status=self.status, what=what, retry_after=seconds, verb=verb)


def _content(body: bytes) -> Any:
    try:
        return parse_json(body)
    except ValueError:
        return None


def _as_answer(content: Any, what: str) -> Answer:
    if not isinstance(content, dict):
        raise ControlPlaneError(f"The workspace's answer about {what} is not an object.")
    return Answer(content, what)


def _broken_off(what: str, limit: Limit, error: Exception) -> LakebaseError:
    if limit.is_over:
        return ControlPlaneTimeoutError(
            f"The workspace did not return all of {what} within {limit.seconds:.1f} s."
        )
    if limit.is_full:
        return ControlPlaneError(
            f"The workspace's answer about {what} was cut off after {limit.size} bytes.",
            remedy="Check that 'workspace_host' is a Databricks workspace.",
        )
    return classify_control_plane(f"{type(error).__name__}: {shown(error)}", status=None, what=what)


def _origin(url: str) -> Origin:
    try:
        return allowed_origin(url)
    except HostRefusedError as refused:
        raise setting("workspace_host").error(refused.problem, remedy=refused.remedy) from None


def _bypasses_proxy(url: str) -> Any:
    return urllib.request.proxy_bypass(urlsplit(url).netloc)


def _error_text(status: int, answer: Any) -> str:
    """Code and message of an error body: the API's, or OAuth's (RFC 6749, section 5.2)."""
    if isinstance(answer, dict):
        code = answer.get("error_code") or answer.get("error")
        message = answer.get("message") or answer.get("error_description")
        if code or message:
            return ": ".join(shown(part) for part in (code, message) if part) + said_in(answer.get("details"))
    return f"HTTP status {status}"
