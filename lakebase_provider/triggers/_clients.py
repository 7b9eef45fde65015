"""A client inside the triggerer: whatever takes time happens beside the event loop, never on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lakebase_provider.core.client import LakebaseClient


async def client_of(conn_id: str, settings: Mapping[str, Any]) -> LakebaseClient:
    """The triggerer's one client for a connection, shared by all triggers that use it alike.

    Args:
        conn_id: Id of the Airflow connection.
        settings: Settings that go before the connection's. What differs from task to task, such as a name
            or a timeout, is not for here, since each combination gets a pool of its own.

    Raises:
        LakebaseError: A setting is wrong.
    """
    # The hook brings the driver; making a trigger must not.
    from lakebase_provider.hooks.lakebase import LakebaseHook

    return await LakebaseHook(conn_id, **settings).aclient()
