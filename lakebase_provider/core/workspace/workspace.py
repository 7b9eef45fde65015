"""What connecting asks the workspace, and how: plain REST if possible, otherwise databricks-sdk."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.config.resource_names import NameRefusedError, endpoint_path, instance_path
from lakebase_provider.core.errors import ConfigError, ControlPlaneError
from lakebase_provider.core.workspace.answers import Answer
from lakebase_provider.core.workspace.rest import NotForRest, RestTransport
from lakebase_provider.core.workspace.sdk import SdkTransport
from lakebase_provider.core.workspace.surroundings import config_file, require_own_workspace

logger = logging.getLogger(__name__)

#: databricks-sdk's variables that say where, not who.
_NO_CREDENTIALS = {"DATABRICKS_HOST", "DATABRICKS_CONFIG_FILE", "DATABRICKS_WORKSPACE_ID"}

_POSTGRES = "/api/2.0/postgres"
_DATABASE = "/api/2.0/database"


class Transport(Protocol):
    """A way to send requests to the workspace."""

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
        """The decoded answer, or a :class:`~lakebase_provider.core.errors.LakebaseError` about `what`."""


class ControlPlane:
    """The requests that connecting needs, with the configuration's credentials.

    Args:
        config: Where the workspace is and how to authenticate there.

    Raises:
        ConfigError: There are no workspace credentials anywhere. No network call has been made.
    """

    def __init__(self, config: LakebaseConfig) -> None:
        require_workspace_credentials(config)
        self._config = config
        self._transport: Transport = (
            RestTransport(config) if RestTransport.can_serve(config) else SdkTransport(config)
        )

    def endpoint_credential(self, endpoint: str, **wishes: Any) -> Mapping[str, Any]:
        """``{"token", "expire_time"}`` for an Autoscaling endpoint; options are `ttl` and `claims`."""
        body = {"endpoint": endpoint, **wishes}
        return self._do("a database credential", "POST", f"{_POSTGRES}/credentials", body=body)

    def instance_credential(self, instance: str, request_id: str, **wishes: Any) -> Mapping[str, Any]:
        """``{"token", "expiration_time"}`` for a Provisioned instance; an option is `claims`."""
        body = {"instance_names": [instance], "request_id": request_id, **wishes}
        return self._do("a database credential", "POST", f"{_DATABASE}/credentials", body=body)

    def endpoint(self, endpoint: str) -> Mapping[str, Any]:
        """The endpoint's resource, hosts in ``status.hosts``."""
        path = _path("endpoint", endpoint, endpoint_path)
        return self._do(f"endpoint {endpoint}", "GET", f"{_POSTGRES}/{path}")

    def instance(self, instance: str) -> Mapping[str, Any]:
        """The instance's resource, host in ``read_write_dns``."""
        path = _path("instance", instance, instance_path)
        return self._do(f"instance {instance}", "GET", f"{_DATABASE}/instances/{path}")

    def current_user_name(self) -> str:
        """The user name of the workspace principal: an e-mail address, or a service principal's client id."""
        what = "the current user"
        return Answer(self._do(what, "GET", "/api/2.0/preview/scim/v2/Me"), what).user_name("userName")

    def request(
        self,
        what: str,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        verb: str = "return",
    ) -> Mapping[str, Any]:
        """The answer to a request about an object of Lakebase Autoscaling.

        Args:
            what: What is requested, for errors.
            method: HTTP method.
            path: The object's name, checked (:mod:`lakebase_provider.core.config.resource_names`).
            body: What to send as JSON.
            query: What follows the path: flags, numbers and text; what is None is left out.
            verb: What the workspace is to do with it, for errors.

        Raises:
            LakebaseError: The workspace refused or could not be reached.
        """
        texts = {name: _as_text(value) for name, value in (query or {}).items() if value is not None}
        return self._do(what, method, f"{_POSTGRES}/{path}", body, query=texts, verb=verb)

    def _do(
        self,
        what: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Mapping[str, Any]:
        try:
            answer = self._transport.send(what, method, path, body, **more)
        except NotForRest as reason:
            logger.info("Continuing with databricks-sdk: %s", reason)
            self._transport = SdkTransport(self._config)
            answer = self._transport.send(what, method, path, body, **more)
        if not isinstance(answer, dict):
            raise ControlPlaneError(
                f"The workspace's answer about {what} is a {type(answer).__name__}, not an object."
            )
        return answer


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _path(setting: str, name: str, checked: Callable[[str], str]) -> str:
    """The last check of a path, after the settings' own."""
    try:
        return checked(name)
    except NameRefusedError as refused:
        raise ConfigError(f"Setting '{setting}' {refused.problem}.", remedy=refused.remedy) from None


def require_workspace_credentials(config: LakebaseConfig) -> None:
    """Raise a ConfigError if neither the configuration nor the environment holds workspace credentials.

    The environment's do not count if they belong to another workspace: databricks-sdk would send the
    environment's secret to whatever host the configuration names.
    """
    require_own_workspace(config)
    if any(
        (config.client_secret, config.token, config.profile, config.auth_type, config.azure_client_secret)
    ):
        return
    ambient = any(name.startswith(("DATABRICKS_", "ARM_")) for name in os.environ.keys() - _NO_CREDENTIALS)
    if not ambient and not config_file().is_file():
        raise ConfigError(
            "There are no workspace credentials: 'client_id' and 'client_secret' are missing.",
            remedy="Set client_id and client_secret of a service principal, or token, or profile.",
        )
