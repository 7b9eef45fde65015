"""What the workspace is asked, by databricks-sdk.

The SDK costs about two seconds of CPU to import, so it is imported at the first call. It is asked by path
(`api_client.do`) because ``WorkspaceClient.postgres`` does not exist below 0.79, and dagster-databricks
pins an SDK below 0.61.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.errors import ConfigError, LakebaseError, classify_control_plane

if TYPE_CHECKING:
    from databricks.sdk.core import ApiClient

logger = logging.getLogger(__name__)

_STATUS_LINE = re.compile(r"< \d{3} ")

#: Seconds for one HTTP request; the SDK's own default of 60 would use up a whole connect budget.
_HTTP_TIMEOUT = 20
#: Seconds in which the SDK retries on its own. It reads 0 as 300; the TokenProvider does the retrying.
_SDK_RETRY_SECONDS = 1

#: Variables of databricks-sdk that say where, not who.
_NO_CREDENTIALS = {"DATABRICKS_HOST", "DATABRICKS_CONFIG_FILE", "DATABRICKS_WORKSPACE_ID"}

_POSTGRES = "/api/2.0/postgres"
_DATABASE = "/api/2.0/database"


class ControlPlane:
    """The requests that connecting needs, as whatever the configuration says.

    Args:
        config: Where the workspace is and how to authenticate there.

    Raises:
        ConfigError: There are no workspace credentials anywhere. No network call has been made.
    """

    def __init__(self, config: LakebaseConfig) -> None:
        require_workspace_credentials(config)
        self._config = config
        self._api: ApiClient | None = None
        self._pid = os.getpid()

    def endpoint_credential(self, endpoint: str) -> Mapping[str, Any]:
        """``{"token", "expire_time"}`` for a Lakebase Autoscaling endpoint."""
        return self._do(
            "a database credential", "POST", f"{_POSTGRES}/credentials", body={"endpoint": endpoint}
        )

    def instance_credential(self, instance: str, request_id: str) -> Mapping[str, Any]:
        """``{"token", "expiration_time"}`` for a Lakebase Provisioned instance."""
        body = {"instance_names": [instance], "request_id": request_id}
        return self._do("a database credential", "POST", f"{_DATABASE}/credentials", body=body)

    def endpoint(self, endpoint: str) -> Mapping[str, Any]:
        """The endpoint's resource, hosts in ``status.hosts``."""
        return self._do(f"endpoint {endpoint}", "GET", f"{_POSTGRES}/{endpoint}")

    def instance(self, instance: str) -> Mapping[str, Any]:
        """The instance's resource, host in ``read_write_dns``."""
        return self._do(f"instance {instance}", "GET", f"{_DATABASE}/instances/{instance}")

    def current_user_name(self) -> str:
        """The user name of the workspace principal: an e-mail address, or a service principal's client id."""
        answer = self._do("the current user", "GET", "/api/2.0/preview/scim/v2/Me")
        return str(answer["userName"])

    def _do(
        self, what: str, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        with _classified(what):
            answer = self._api_client().do(method, path, body=dict(body) if body else None)
        if not isinstance(answer, dict):
            raise classify_control_plane(f"an answer of type {type(answer).__name__}", status=None, what=what)
        return answer

    def _api_client(self) -> ApiClient:
        # The SDK's token refresher does not survive a fork: a child builds a client of its own.
        if self._api is None or self._pid != os.getpid():
            from databricks.sdk.core import ApiClient, Config

            # Adding it again does nothing.
            logging.getLogger("databricks.sdk").addFilter(_without_bodies)
            fresh = ApiClient(
                Config(
                    **_sdk_arguments(self._config),
                    http_timeout_seconds=_HTTP_TIMEOUT,
                    retry_timeout_seconds=_SDK_RETRY_SECONDS,
                )
            )
            self._api, self._pid = fresh, os.getpid()
        return self._api


def _without_bodies(record: logging.LogRecord) -> bool:
    """Keep bodies out of the SDK's DEBUG log: it cuts a token off only after its first 96 bytes."""
    lines = record.getMessage().splitlines()
    kept = [line for line in lines if not line.startswith(("> ", "< ")) or _STATUS_LINE.match(line)]
    if len(kept) < len(lines):
        record.msg, record.args = "\n".join(kept), ()
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
    # The SDK reads the environment too and refuses two methods at once: what was given explicitly wins.
    if "auth_type" not in found and "token" in found:
        found["auth_type"] = "pat"
    elif "auth_type" not in found and "client_secret" in found:
        found["auth_type"] = "oauth-m2m"
    return {name: value.reveal() if name in secrets else value for name, value in found.items()}


def require_workspace_credentials(config: LakebaseConfig) -> None:
    """Raise a ConfigError when neither the configuration nor the surroundings hold workspace credentials."""
    if any(
        (config.client_secret, config.token, config.profile, config.auth_type, config.azure_client_secret)
    ):
        return
    ambient = any(name.startswith(("DATABRICKS_", "ARM_")) for name in os.environ.keys() - _NO_CREDENTIALS)
    config_file = Path(os.environ.get("DATABRICKS_CONFIG_FILE", "~/.databrickscfg")).expanduser()
    if not ambient and not config_file.is_file():
        raise ConfigError(
            "There are no workspace credentials: 'client_id' and 'client_secret' are missing.",
            remedy="Set client_id and client_secret of a service principal, or token, or profile.",
        )


@contextmanager
def _classified(what: str) -> Iterator[None]:
    try:
        yield
    except LakebaseError:
        raise
    except Exception as error:
        raise _classify(error, what) from without_locals(error)


def _classify(error: Exception, what: str) -> LakebaseError:
    # The SDK gives up its own retries with a TimeoutError that hides the answer in its cause.
    answer = error.__cause__ if isinstance(error, TimeoutError) and error.__cause__ else error
    code = getattr(answer, "error_code", None)
    text = str(answer).split("Config: ")[0].strip()
    retry_after = getattr(answer, "retry_after_secs", None)
    return classify_control_plane(
        f"{code}: {text}" if code else text, status=_status(answer), what=what, retry_after=retry_after
    )


def _status(error: BaseException) -> int | None:
    """The HTTP status behind an error of the SDK, as far as it can be told."""
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


def without_locals(error: BaseException) -> BaseException:
    """The error without its frames, whose local variables hold secrets that a traceback could print."""
    seen: set[int] = set()
    step: BaseException | None = error
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        step.__traceback__ = None
        step = step.__cause__ or step.__context__
    return error
