"""Requests to the workspace by databricks-sdk: every authentication that it knows.

It costs about two seconds of CPU to import, so it is imported at the first request. It is asked by path
(`ApiClient.do`) because ``WorkspaceClient.postgres`` does not exist below 0.79, and dagster-databricks pins
an SDK below 0.61.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lakebase_provider import __version__
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.error_patterns import classify_control_plane
from lakebase_provider.core.errors import LakebaseError
from lakebase_provider.core.tracebacks import without_locals

if TYPE_CHECKING:
    from databricks.sdk.core import ApiClient

#: Seconds for one HTTP request; the SDK's own default of 60 would use up a whole connect budget.
_HTTP_TIMEOUT = 20
#: Seconds in which the SDK retries on its own. It reads 0 as 300; the TokenProvider does the retrying.
_SDK_RETRY_SECONDS = 1

_STATUS_LINE = re.compile(r"< \d{3} ")


class SdkTransport:
    """Sends requests by databricks-sdk.

    Args:
        config: Where the workspace is and how to authenticate there.
    """

    def __init__(self, config: LakebaseConfig) -> None:
        self._config = config
        self._api: ApiClient | None = None
        self._pid = os.getpid()

    def send(self, what: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The decoded answer to a request.

        Args:
            what: What is asked for, as an error names it.
            method: HTTP method.
            path: Path below the workspace's URL.
            body: What to send as JSON.

        Raises:
            LakebaseError: The workspace refused or was not reached.
        """
        with _classified(what):
            return self._api_client().do(method, path, body=dict(body) if body else None)

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
                    product="lakebase-provider",
                    product_version=__version__,
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
