"""What connecting asks the workspace, and how: plain REST if possible, otherwise databricks-sdk."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.config.resource_names import (
    ENDPOINT_FORMAT,
    Kind,
    NameRefusedError,
    endpoint_path,
    instance_path,
    resource_path,
)
from lakebase_provider.core.errors import ConfigError, ControlPlaneError, EndpointNotFoundError
from lakebase_provider.core.errors.client_names import Names
from lakebase_provider.core.workspace.answers import Answer, shown
from lakebase_provider.core.workspace.rest import NotForRest, RestTransport
from lakebase_provider.core.workspace.sdk import SdkTransport
from lakebase_provider.core.workspace.surroundings import config_file, require_own_workspace

logger = logging.getLogger(__name__)

#: databricks-sdk's variables that say where, not who.
_NO_CREDENTIALS = {"DATABRICKS_HOST", "DATABRICKS_CONFIG_FILE", "DATABRICKS_WORKSPACE_ID"}

#: Objects that are asked for at once.
_PAGE = 100

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
        names: What errors about objects call whoever asks. Those about credentials do not say it here, for
            clients of other names may share a token.

    Raises:
        ConfigError: There are no workspace credentials anywhere. No network call has been made.
    """

    def __init__(self, config: LakebaseConfig, names: Names | None = None) -> None:
        require_workspace_credentials(config)
        self._config = config
        self._whose = Names() if names is None else names
        self._endpoint_names: dict[str, str] = {}
        self._api = "2.0/postgres"
        self._transport: Transport = (
            RestTransport(config) if RestTransport.can_serve(config) else SdkTransport(config)
        )

    def of_api(self, api: str, *, version: str = "2.0") -> ControlPlane:
        """The same, whose :meth:`request` and :meth:`pages` are of another API than Lakebase Autoscaling's.

        Args:
            api: ``"database"``, Lakebase Provisioned's, ``"pipelines"`` or ``"unity-catalog"``.
            version: Its version.
        """
        other = copy.copy(self)
        other._api = f"{version}/{api}"
        return other

    def endpoint_credential(self, endpoint: str, **wishes: Any) -> Mapping[str, Any]:
        """``{"token", "expire_time"}`` for an Autoscaling endpoint; options are `ttl` and `claims`."""
        body = {"endpoint": self._endpoint_path(endpoint), **wishes}
        return self._do("a database credential", "POST", f"{_POSTGRES}/credentials", body=body)

    def _endpoint_path(self, endpoint: str) -> str:
        name = self._endpoint_name(endpoint, self._config.project, self._config.branch)
        return _path("endpoint", name, endpoint_path)

    def instance_credential(self, instance: str, request_id: str, **wishes: Any) -> Mapping[str, Any]:
        """``{"token", "expiration_time"}`` for a Provisioned instance; an option is `claims`."""
        body = {"instance_names": [instance], "request_id": request_id, **wishes}
        return self._do("a database credential", "POST", f"{_DATABASE}/credentials", body=body)

    def endpoint(self, endpoint: str) -> Mapping[str, Any]:
        """The endpoint's resource, hosts in ``status.hosts``."""
        path, what = self._endpoint_path(endpoint), f"endpoint {endpoint}"
        answer = self.request(what, "GET", path)
        Answer(answer, what).require_name(path)
        return answer

    def instance(self, instance: str) -> Mapping[str, Any]:
        """The instance's resource, host in ``read_write_dns``."""
        path, what = _path("instance", instance, instance_path), f"instance {instance}"
        answer = self._do(what, "GET", f"{_DATABASE}/instances/{path}")
        Answer(answer, what).require_name(path)
        return answer

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
        with self._whose.told():
            return self._request(what, method, path, body, query, verb)

    def _request(
        self,
        what: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        verb: str = "return",
    ) -> Mapping[str, Any]:
        texts = {name: _as_text(value) for name, value in (query or {}).items() if value is not None}
        return self._do(what, method, f"/api/{self._api}/{path}", body, query=texts, verb=verb)

    def pages(
        self,
        what: str,
        path: str,
        key: str,
        query: Mapping[str, Any] | None = None,
        *,
        require: Callable[[Answer], None] | None = None,
    ) -> Iterator[Answer]:
        """The objects of a list, page by page.

        Args:
            what: What is requested, for errors.
            path: The list's path, checked.
            key: The field of a page that holds its objects.
            query: As in :meth:`request`.
            require: Refuses an object that is none of the list; by default one that is not below `path`.

        Raises:
            LakebaseError: The workspace refused or could not be reached.
            ControlPlaneError: Its pages do not end.
        """
        with self._whose.told():
            yield from self._pages(what, path, key, query, require=require)

    def _pages(
        self,
        what: str,
        path: str,
        key: str,
        query: Mapping[str, Any] | None = None,
        *,
        require: Callable[[Answer], None] | None = None,
    ) -> Iterator[Answer]:
        require = require or (lambda one: one.require_below(path))
        seen: set[str | None] = {None}
        token: str | None = None
        while True:
            more = {"page_size": _PAGE, **(query or {}), "page_token": token}
            page = Answer(self._request(what, "GET", path, query=more), what)
            for one in page.objects(key):
                # Else what is done to each of a list would be done to objects of others.
                require(one)
                yield one
            token = page.text("next_page_token")
            if token is None:
                return
            if token in seen:
                raise page.error("next_page_token", "repeats, so that the list does not end")
            seen.add(token)

    def endpoint_name(self, text: str, project: str | None = None, branch: str | None = None) -> str:
        """The name of the endpoint with that uid or host; a name as it is.

        Args:
            text: An endpoint's name, its uid, or one of its hosts.
            project: Id of the project to look in; all that the principal can see by default.
            branch: Id of the branch of that project to look in; all by default.

        Raises:
            EndpointNotFoundError: There is none that the principal can see.
            LakebaseError: The workspace refused or could not be reached.
        """
        with self._whose.told():
            return self._endpoint_name(text, project, branch)

    def _endpoint_name(self, text: str, project: str | None, branch: str | None) -> str:
        if "/" in text:
            return text
        if text not in self._endpoint_names:
            for endpoint in self._endpoints(project, branch):
                hosts = endpoint.object("status").object("hosts")
                names = {endpoint.text("uid"), *(hosts.text(name) for name in hosts.fields)}
                if text in names or text.lower() in names:
                    name = _path("endpoint", endpoint.text("name") or "", endpoint_path)
                    self._endpoint_names[text] = name
                    break
            else:
                raise EndpointNotFoundError(
                    f"No endpoint that the principal can see has the uid or the host {shown(text)!r}.",
                    remedy=f"Set endpoint to {ENDPOINT_FORMAT}, or project and branch.",
                )
        return self._endpoint_names[text]

    def _endpoints(self, project: str | None, branch: str | None) -> Iterator[Answer]:
        projects = (f"projects/{project}",) if project else self._names("the projects", "projects", "project")
        for one in projects:
            branches = (
                (f"{one}/branches/{branch}",)
                if project and branch
                else self._names(f"the branches of {one}", f"{one}/branches", "branch")
            )
            for place in branches:
                yield from self._pages(f"the endpoints of {place}", f"{place}/endpoints", "endpoints")

    def _names(self, what: str, path: str, kind: Kind) -> Iterator[str]:
        for one in self._pages(what, path, path.rpartition("/")[2]):
            yield _path(kind, one.text("name") or "", lambda name: resource_path(kind, name))

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
