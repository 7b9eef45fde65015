"""Requests to the workspace by plain HTTPS, for a service principal's secret or a workspace token.

These are the REST calls that the Lakebase documentation gives for languages without an SDK. They take
milliseconds, where importing databricks-sdk takes seconds of CPU; anything that they do not cover, and any
surprise in discovery, is left to the SDK (:class:`NotForRest`).
"""

from __future__ import annotations

import json
import os
import threading
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import certifi
import urllib3

from lakebase_provider import __version__
from lakebase_provider.core.clock import SYSTEM_CLOCK, Clock
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.error_patterns import classify_control_plane
from lakebase_provider.core.errors import LakebaseError, NotAuthenticatedError
from lakebase_provider.core.tracebacks import without_locals

#: Seconds to connect, and to wait for an answer.
_TIMEOUT = urllib3.Timeout(connect=5.0, read=20.0)
#: A workspace token with fewer seconds to live is not used any more.
_LEAST_LIFE = 60.0
#: Where requests, which databricks-sdk builds on, looks for the trusted certificates.
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class NotForRest(Exception):  # noqa: N818 # no error: it says to go another way
    """The workspace is not as the documentation describes it; databricks-sdk may know what to do."""


class RestTransport:
    """Sends requests over urllib3.

    Args:
        config: One that :meth:`can_serve` accepts.
        clock: Where the time comes from.
    """

    def __init__(self, config: LakebaseConfig, clock: Clock = SYSTEM_CLOCK) -> None:
        assert config.workspace_host is not None
        self._config = config
        self._base = config.workspace_host
        self._clock = clock
        self._reset_process_state()

    @staticmethod
    def can_serve(config: LakebaseConfig) -> bool:
        """Whether the credentials are of the two kinds, and nothing stands between here and the workspace."""
        kind = (
            "pat" if config.token is not None else "oauth-m2m" if config.client_secret is not None else None
        )
        host = config.workspace_host
        return (
            kind is not None
            and host is not None
            and config.auth_type in (None, kind)
            and config.profile is None
            # Proxies, and their credentials, are read by the SDK.
            and (urlsplit(host).scheme not in urllib.request.getproxies() or bool(_bypasses_proxy(host)))
        )

    def _reset_process_state(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._http = urllib3.PoolManager(
            timeout=_TIMEOUT,
            retries=False,
            cert_reqs="CERT_REQUIRED",
            ca_certs=next(
                (os.environ[name] for name in _CA_VARIABLES if os.environ.get(name)), certifi.where()
            ),
            headers={"User-Agent": f"lakebase-provider/{__version__}", "Accept": "application/json"},
        )
        self._token_endpoint: str | None = None
        self._workspace_id: str | None = None
        self._access_token: str | None = None
        self._access_token_until = float("-inf")

    def send(self, what: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The decoded answer to a request.

        Args:
            what: What is asked for, as an error names it.
            method: HTTP method.
            path: Path below the workspace's URL.
            body: What to send as JSON.

        Raises:
            LakebaseError: The workspace refused or was not reached.
            NotForRest: Discovery did not go as documented.
        """
        if self._pid != os.getpid():
            # Sockets of the parent are not for a forked child.
            self._reset_process_state()
        try:
            return self._send(what, method, path, body)
        except NotAuthenticatedError:
            with self._lock:
                cached, self._access_token = self._access_token, None
            if cached is None:
                raise
            # The workspace token was revoked before its time: once more with a new one.
            return self._send(what, method, path, body)

    def _send(self, what: str, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        headers = {"Authorization": f"Bearer {self._workspace_token()}"}
        if self._workspace_id:
            headers["X-Databricks-Workspace-Id"] = self._workspace_id
        return self._request(what, method, self._base + path, headers, json.dumps(body) if body else None)

    def _workspace_token(self) -> str:
        if self._config.token is not None:
            return self._config.token.reveal()
        with self._lock:
            if self._access_token and self._clock.elapsed() < self._access_token_until:
                return self._access_token
        # Without the lock, for it is I/O; two threads at once ask twice, which does no harm.
        endpoint = self._discover_token_endpoint()
        assert self._config.client_id is not None
        assert self._config.client_secret is not None
        basic = urllib3.make_headers(
            basic_auth=f"{self._config.client_id}:{self._config.client_secret.reveal()}"
        )
        answer = self._request(
            "a workspace token",
            "POST",
            endpoint,
            {**basic, "Content-Type": "application/x-www-form-urlencoded"},
            urlencode({"grant_type": "client_credentials", "scope": "all-apis"}),
        )
        try:
            access_token, lifetime = str(answer["access_token"]), float(answer["expires_in"])
        except (KeyError, TypeError, ValueError):
            raise NotForRest("the token endpoint's answer has no access_token and expires_in") from None
        with self._lock:
            self._access_token = access_token
            self._access_token_until = self._clock.elapsed() + lifetime - min(_LEAST_LIFE, lifetime / 4)
        return access_token

    def _discover_token_endpoint(self) -> str:
        if self._token_endpoint is None:
            oidc = self._base + "/oidc"
            found = self._discover(self._base + "/.well-known/databricks-config")
            if found is not None:
                oidc = str(found.get("oidc_endpoint", oidc))
                self._workspace_id = str(found["workspace_id"]) if found.get("workspace_id") else None
            server = self._discover(oidc + "/.well-known/oauth-authorization-server")
            endpoint = str((server or {}).get("token_endpoint", ""))
            for url in (oidc, endpoint):
                if urlsplit(url)[:2] != urlsplit(self._base)[:2]:
                    raise NotForRest("discovery names an OAuth server elsewhere than in the workspace")
            self._token_endpoint = endpoint
        return self._token_endpoint

    def _discover(self, url: str) -> Mapping[str, Any] | None:
        try:
            answer = self._request("its OAuth server", "GET", url, {}, None)
        except LakebaseError as error:
            if error.retryable:
                raise
            raise NotForRest("discovery was refused") from None
        if not isinstance(answer, dict):
            raise NotForRest("discovery answered with something else than an object")
        return answer

    def _request(self, what: str, method: str, url: str, headers: Mapping[str, str], body: str | None) -> Any:
        more = {"Content-Type": "application/json"} if body and "Content-Type" not in headers else {}
        try:
            response = self._http.request(
                method, url, headers={**self._http.headers, **more, **headers}, body=body, redirect=False
            )
        except urllib3.exceptions.HTTPError as error:
            # Its frames hold the headers.
            cause = without_locals(error)
            raise classify_control_plane(
                f"{type(error).__name__}: {error}", status=None, what=what
            ) from cause
        try:
            answer = json.loads(response.data)
        except ValueError:
            answer = None
        if response.status == 200 and answer is not None:
            return answer
        retry_after = response.headers.get("Retry-After", "")
        raise classify_control_plane(
            _error_text(response.status, answer),
            status=response.status,
            what=what,
            retry_after=float(retry_after) if retry_after.isdecimal() else None,
        )


def _bypasses_proxy(url: str) -> Any:
    return urllib.request.proxy_bypass(urlsplit(url).netloc)


def _error_text(status: int, answer: Any) -> str:
    """Code and message of an error body: the API's, or OAuth's (RFC 6749, section 5.2)."""
    if isinstance(answer, dict):
        code = answer.get("error_code") or answer.get("error")
        message = answer.get("message") or answer.get("error_description")
        if code or message:
            return ": ".join(str(part) for part in (code, message) if part)
    return f"HTTP status {status}"
