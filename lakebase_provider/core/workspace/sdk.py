"""Requests to the workspace through databricks-sdk, with every authentication that it supports.

It costs about two seconds of CPU to import, so it is imported at the first request. It is called by path
(`ApiClient.do`) because ``WorkspaceClient.postgres`` does not exist below 0.79, and dagster-databricks pins
an SDK below 0.61.

What it finds by itself is checked before a secret is sent: its host, which may come from a profile, the
environment or a notebook, must be one to which a secret may be sent; the OAuth server from discovery must be
at that host (a client secret, an id token and a browser's sign-in go there). Answers are subject to the
limits of :mod:`.http_limits`, and no redirect is followed, since it would move the request, and trust in its
answer, elsewhere.

Not in our hands is what some authentications send to servers of others, whose addresses are built into the
SDK or set by the deployment (azure-client-secret, azure-cli, google-id, metadata-service, databricks-cli);
the limits hold for it, too.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.config import LakebaseConfig, setting
from lakebase_provider.core.config.allowed_hosts import HostRefusedError, allowed_origin, is_on_this_machine
from lakebase_provider.core.errors import (
    ConfigError,
    ControlPlaneError,
    ControlPlaneTimeoutError,
    LakebaseError,
    NotAuthenticatedError,
)
from lakebase_provider.core.errors.redaction import redacted
from lakebase_provider.core.errors.texts import classify_control_plane
from lakebase_provider.core.errors.tracebacks import without_frames, without_locals
from lakebase_provider.core.workspace.answers import Answer, said_in, shown
from lakebase_provider.core.workspace.http_limits import Limit, at_most, limit_sockets, within
from lakebase_provider.core.workspace.limited_requests import limited_requests
from lakebase_provider.core.workspace.surroundings import (
    BY_WORKSPACE,
    environment_is_for,
    names_a_profile,
)
from lakebase_provider.version import __version__

if TYPE_CHECKING:
    import requests
    from databricks.sdk.core import ApiClient, Config
    from databricks.sdk.oauth import OidcEndpoints
    from requests.adapters import HTTPAdapter

#: Seconds for one HTTP request; the SDK's own default of 60 would use up a whole connect budget.
_HTTP_TIMEOUT = 20
#: Seconds for the SDK's own retries. It reads 0 as 300; the TokenProvider does the retrying.
_SDK_RETRY_SECONDS = 1

#: What the SDK says if no authentication has everything that it needs.
_NO_CREDENTIALS = re.compile("cannot configure default credentials", re.IGNORECASE)
_STATUS_LINE = re.compile(r"< \d{3} ")


class SdkTransport:
    """Sends requests through databricks-sdk.

    Args:
        config: Where the workspace is and how to authenticate there.
        timeout: Seconds for one HTTP request, connecting and the whole answer included.
    """

    def __init__(self, config: LakebaseConfig, *, timeout: float = _HTTP_TIMEOUT) -> None:
        self._config = config
        self._timeout = timeout
        self._api: ApiClient | None = None
        self._pid = os.getpid()

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
        """
        try:
            with limited_requests(_limited_adapter()(at_most(self._timeout))):
                return self._api_client().do(
                    method,
                    path,
                    query=dict(query) if query else None,
                    body=None if body is None else dict(body),
                )
        # Here and in no context manager, at whose end contextlib would put the frames back.
        except LakebaseError as error:
            # The SDK's frames hold its arguments.
            raise without_locals(error) from error.__cause__
        except Exception as error:
            told = _ours(error) or _missing(error, self._config) or _classify(error, what, verb)
            raise told from without_locals(error)
        except BaseException as error:
            # Such as a task's timeout, in the middle of it.
            raise without_frames(error) from error.__cause__

    def _api_client(self) -> ApiClient:
        # The SDK's token refresher does not survive a fork: a child builds its own client.
        if self._api is None or self._pid != os.getpid():
            from databricks.sdk.core import ApiClient

            _filter_logs()
            checked = _checked_config(self._config)
            # In a thread of the SDK's own, signing in again would be held to nothing.
            sync: dict[str, Any] = {}
            if hasattr(checked, "disable_async_token_refresh"):
                sync["disable_async_token_refresh"] = True
            fresh = ApiClient(
                checked(
                    **_sdk_arguments(self._config),
                    **sync,
                    http_timeout_seconds=self._timeout,
                    retry_timeout_seconds=_SDK_RETRY_SECONDS,
                    product="lakebase-provider",
                    product_version=__version__,
                )
            )
            self._api, self._pid = fresh, os.getpid()
        return self._api


def _checked_config(config: LakebaseConfig) -> type[Config]:
    """The SDK's configuration, with its host checked before a secret is sent there."""
    from databricks.sdk.core import Config

    # The class collects its attributes once, and would find none in a class derived from it.
    credentials = {
        attribute.name: attribute.env
        for attribute in Config.attributes()
        if getattr(attribute, "auth", None) and attribute.env
    }
    # Names another workspace's secrets.
    credentials["profile"] = "DATABRICKS_CONFIG_PROFILE"
    # A profile that is named here has its own host.
    if config.workspace_host is None and names_a_profile(config):
        credentials["host"] = "DATABRICKS_HOST"
    # They are of another workspace, whatever this one is authenticated by.
    foreign = set() if environment_is_for(config) else credentials.keys() - _sdk_arguments(config).keys()
    if config.auth_type in BY_WORKSPACE:
        # They say which identity of this machine it is, and are no secret.
        foreign -= {"azure_use_msi", "azure_client_id", "azure_tenant_id"}

    class CheckedConfig(Config):
        def _load_from_env(self) -> None:
            # The SDK skips what is already set.
            self._inner.update(dict.fromkeys(foreign))
            super()._load_from_env()  # type: ignore[no-untyped-call] # the SDK gives it no types
            for name in foreign:
                del self._inner[name]

        def init_auth(self) -> None:
            for name in foreign:
                if self._inner.get(name) and self._inner[name] == os.environ.get(credentials[name] or ""):
                    raise ConfigError(
                        f"The environment's {credentials[name]} is for another workspace.",
                        remedy="Unset it, or set DATABRICKS_HOST to this workspace.",
                    )
            self._check_host()
            super().init_auth()  # type: ignore[no-untyped-call] # the SDK gives it no types
            # Only now do an Azure resource id and a notebook say where the workspace is.
            self._check_host()

        def _resolve_host_metadata(self) -> None:
            self._check_host()
            given = self.discovery_url
            super()._resolve_host_metadata()
            if self.host and self.discovery_url != given:
                # Nobody asks a server that another one names.
                url = {"oidc_endpoint": str(self.discovery_url).split("/.well-known/")[0]}
                Answer(url, "its OAuth server").url_at(allowed_origin(self.host), "oidc_endpoint")

        def _check_host(self) -> None:
            if self.host:
                self.host = _checked_host(self.host)

        @property
        def databricks_oidc_endpoints(self) -> OidcEndpoints | None:
            return _checked_endpoints(self.host, super().databricks_oidc_endpoints)

        @property
        def oidc_endpoints(self) -> OidcEndpoints | None:
            # Below 0.102 the only one. With an Entra client id it points to Microsoft.
            found = super().oidc_endpoints
            if self.is_azure and self.azure_client_id and not self.client_secret:
                return found
            return _checked_endpoints(self.host, found)

    return CheckedConfig


def _checked_host(url: str) -> str:
    try:
        return str(allowed_origin(url))
    except HostRefusedError as refused:
        raise ConfigError(
            f"The workspace's URL that databricks-sdk found, in a profile, the environment or a notebook, "
            f"{refused.problem}.",
            remedy=refused.remedy or "Correct it there, or set 'workspace_host'.",
        ) from None


def _checked_endpoints(host: str, found: OidcEndpoints | None) -> OidcEndpoints | None:
    if found is None:
        return None
    origin = allowed_origin(host)
    answer = Answer(found.as_dict(), "its OAuth server")
    endpoints = type(found)(
        authorization_endpoint=answer.url_at(origin, "authorization_endpoint") or "",
        token_endpoint=answer.url_at(origin, "token_endpoint") or "",
    )
    if not endpoints.token_endpoint:
        raise answer.error("token_endpoint", "is missing")
    return endpoints


def _limited_adapter() -> Callable[[float], HTTPAdapter]:
    from requests.adapters import HTTPAdapter

    class LimitedAdapter(HTTPAdapter):
        def __init__(self, seconds: float) -> None:
            self._seconds = seconds
            super().__init__(pool_connections=20, pool_maxsize=20, pool_block=True)

        def init_poolmanager(self, *arguments: Any, **keywords: Any) -> None:
            super().init_poolmanager(*arguments, **keywords)
            limit_sockets(self.poolmanager)

        def proxy_manager_for(self, *arguments: Any, **keywords: Any) -> Any:
            return limit_sockets(super().proxy_manager_for(*arguments, **keywords))

        def send(
            self, request: requests.PreparedRequest, *arguments: Any, **keywords: Any
        ) -> requests.Response:
            # What is not compressed cannot be a thousand times as long as it came.
            request.headers["Accept-Encoding"] = "identity"
            if is_on_this_machine(request.url or ""):
                keywords["proxies"] = {}
            limit = Limit(self._seconds)
            try:
                with within(limit):
                    response = super().send(request, *arguments, **keywords)
                    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                        response.close()
                        raise ControlPlaneError(
                            "The workspace compressed its answer although it was not asked to."
                        )
                    # Read here, under the limits, and kept.
                    _ = response.content
                return response
            except OSError as error:
                if limit.is_full:
                    raise ControlPlaneError(
                        f"The workspace's answer was cut off after {limit.size} bytes."
                    ) from without_locals(error)
                if limit.is_over:
                    raise ControlPlaneTimeoutError(
                        f"The workspace did not answer in full within {limit.seconds:.1f} s."
                    ) from without_locals(error)
                raise

    return LimitedAdapter


def _filter_logs() -> None:
    # A logger's filter does not see what its children are told. Adding it again does nothing.
    for name in ["databricks.sdk", *logging.root.manager.loggerDict]:
        if name == "databricks.sdk" or name.startswith("databricks.sdk."):
            logging.getLogger(name).addFilter(_told)


def _told(record: logging.LogRecord) -> bool:
    """Keep secrets out of the SDK's log, and bodies: it cuts a token off only after its first 96 bytes."""
    lines = record.getMessage().splitlines()
    kept = [line for line in lines if not line.startswith(("> ", "< ")) or _STATUS_LINE.match(line)]
    record.msg, record.args = redacted("\n".join(kept)), ()
    # The frames of its errors hold its arguments, and the errors what the workspace said.
    record.exc_info = record.exc_text = None
    return True


def _sdk_arguments(config: LakebaseConfig) -> dict[str, Any]:
    names = {
        "workspace_host": "host",
        "client_id": "client_id",
        "client_secret": "client_secret",
        "token": "token",
        "profile": "profile",
        "auth_type": "auth_type",
        "azure_client_id": "azure_client_id",
        "azure_client_secret": "azure_client_secret",
        "azure_tenant_id": "azure_tenant_id",
    }
    secrets = {"client_secret", "token", "azure_client_secret"}
    found = {sdk: getattr(config, ours) for ours, sdk in names.items() if getattr(config, ours) is not None}
    # The SDK reads the environment too and refuses two methods at once: explicit settings take precedence.
    if "auth_type" not in found and "token" in found:
        found["auth_type"] = "pat"
    elif "auth_type" not in found and "client_secret" in found:
        found["auth_type"] = "oauth-m2m"
    elif "auth_type" not in found and "azure_client_secret" in found:
        found["auth_type"] = "azure-client-secret"
    return {name: value.reveal() if name in secrets else value for name, value in found.items()}


def _ours(error: BaseException) -> LakebaseError | None:
    """This module's error that the SDK has wrapped in its own."""
    step: BaseException | None = error
    while step is not None and not isinstance(step, LakebaseError):
        step = step.__cause__
    return step.again() if isinstance(step, LakebaseError) else None


def _missing(error: Exception, config: LakebaseConfig) -> LakebaseError | None:
    """What to raise if the SDK has tried everything: which secret is missing."""
    if not _NO_CREDENTIALS.search(str(error)):
        return None
    for identity, secret in (("client_id", "client_secret"), ("azure_client_id", "azure_client_secret")):
        if getattr(config, identity) is not None and getattr(config, secret) is None:
            return NotAuthenticatedError(
                f"Setting '{secret}' is missing although '{identity}' is set, and databricks-sdk found no "
                "other credentials.",
                remedy=f"Set '{secret}', or the environment variable {setting(secret).env[0]}.",
            )
    return None


def _classify(error: Exception, what: str, verb: str) -> LakebaseError:
    # The SDK gives up its own retries with a TimeoutError that hides the answer in its cause.
    answer = error.__cause__ if isinstance(error, TimeoutError) and error.__cause__ else error
    code = getattr(answer, "error_code", None)
    text = shown(str(answer).split("Config: ")[0])
    text += said_in([vars(detail) for detail in getattr(answer, "details", None) or ()])
    retry_after = getattr(answer, "retry_after_secs", None)
    return classify_control_plane(
        f"{code}: {text}" if code else text,
        status=_status(answer),
        what=what,
        retry_after=retry_after,
        verb=verb,
    )


def _status(error: BaseException) -> int | None:
    """The HTTP status behind an SDK error, if known."""
    from databricks.sdk import errors as sdk
    from databricks.sdk.errors.base import DatabricksError

    by_class: tuple[tuple[type[BaseException], int], ...] = (
        (sdk.Unauthenticated, 401),
        (sdk.PermissionDenied, 403),
        (sdk.NotFound, 404),
        (sdk.TooManyRequests, 429),
        (sdk.InternalError, 500),
        (sdk.TemporarilyUnavailable, 503),
        (sdk.DeadlineExceeded, 504),
        (DatabricksError, 400),
        # Raised by the SDK's authentication, such as "oauth-m2m: invalid_client: …".
        (ValueError, 401),
    )
    return next((status for kind, status in by_class if isinstance(error, kind)), None)
