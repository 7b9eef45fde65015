"""Requests of a library that makes its sessions itself, held to an adapter of ours, and followed nowhere.

databricks-sdk asks for discovery and signs in by functions of ``requests`` and by clients that nobody hands
in. All of them come to ``Session.get_adapter``, which is told apart by thread: others in the process that use
``requests`` are not affected.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.errors import ControlPlaneError

if TYPE_CHECKING:
    from requests.adapters import HTTPAdapter

_current = threading.local()
_installing = threading.Lock()


@contextmanager
def limited_requests(adapter: HTTPAdapter) -> Iterator[None]:
    """Send what this thread sends by ``requests`` through an adapter; a redirect is an error.

    Args:
        adapter: Sends, whatever a session has mounted.
    """
    _install()
    before, _current.adapter = getattr(_current, "adapter", None), adapter
    try:
        yield
    finally:
        _current.adapter = before


def _install() -> None:
    from requests import Session

    with _installing:
        plain: Any = Session.get_adapter
        if getattr(plain, "is_of_lakebase", False):
            return

        def get_adapter(self: Session, url: str) -> Any:
            adapter = getattr(_current, "adapter", None)
            if adapter is None:
                return plain(self, url)
            # Whoever asks is send(), and who asks that is looked at.
            if sys._getframe(2).f_code is Session.resolve_redirects.__code__:
                raise ControlPlaneError(
                    "The workspace leads elsewhere, where nothing is sent.",
                    remedy="Set 'workspace_host' to the workspace's own URL.",
                )
            return adapter

        get_adapter.is_of_lakebase = True  # type: ignore[attr-defined]
        Session.get_adapter = get_adapter  # type: ignore[method-assign]
