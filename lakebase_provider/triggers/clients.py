"""A client inside the triggerer: the connection is looked up beside the event loop, never on it."""

from __future__ import annotations

import asyncio
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

    connection = await _connection(conn_id)
    # In a thread: the settings' secrets are masked by a call to the supervisor, which would block the loop.
    return await asyncio.to_thread(lambda: LakebaseHook(conn_id, connection=connection, **settings).client)


async def _connection(conn_id: str) -> Any:
    try:
        from airflow.providers.common.compat.connection import get_async_connection
    except ImportError:  # an older common-compat
        from airflow.sdk import BaseHook

        return await asyncio.to_thread(BaseHook.get_connection, conn_id)
    return await get_async_connection(conn_id)
