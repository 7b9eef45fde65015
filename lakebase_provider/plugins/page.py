"""The plugin by which Airflow shows the page.

Airflow imports it in each of its processes, so nothing but Airflow's own plugin module, which is there
already, is imported here; the page itself is made when somebody first asks for it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow import __version__ as _airflow
from airflow.configuration import conf

_MANAGERS = ("airflow.plugins_manager", "airflow.sdk.plugins_manager")
if TYPE_CHECKING:
    from airflow.plugins_manager import AirflowPlugin
else:
    # A worker has another module for plugins than the rest, and either takes the other's class.
    _LOADED = next((name for name in _MANAGERS if name in sys.modules), _MANAGERS[0])
    AirflowPlugin = import_module(_LOADED).AirflowPlugin

#: Below the API server's own path.
PREFIX = "/lakebase"
#: Before it a plugin gets neither the user from the cookie, nor a connection's password.
_OLDEST = (3, 1, 2)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _LatePage:
    """The page as an ASGI application, imported at the first request."""

    _page: Callable[[Scope, Receive, Send], Awaitable[None]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._page is None:
            # In a thread: the API server has others to answer, and it takes a second.
            self._page = await asyncio.to_thread(_made)
        await self._page(scope, receive, send)


def _made() -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    from lakebase_provider.plugins._app import app

    return app()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in version.split(".")[:3])


class LakebasePlugin(AirflowPlugin):
    """A page below Browse, behind Airflow's own permissions; see the guide to the page."""

    name = "lakebase"

    def __init__(self) -> None:
        if _numbers(_airflow) < _OLDEST or not conf.getboolean("lakebase", "page", fallback=True):
            return
        path = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
        self.fastapi_apps = [{"name": "Lakebase", "app": _LatePage(), "url_prefix": PREFIX}]
        self.external_views = [
            {
                "name": "Lakebase",
                "href": f"{path}{PREFIX}/",
                "destination": "nav",
                "category": "browse",
                "url_route": "lakebase",
            }
        ]
