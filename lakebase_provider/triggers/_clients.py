"""A client inside the triggerer: blocking work happens off the event loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lakebase_provider.core.client import LakebaseClient


async def client_of(conn_id: str, settings: Mapping[str, Any]) -> LakebaseClient:
    """The triggerer's only client for a connection, shared by all triggers that use it alike.

    Args:
        conn_id: Id of the Airflow connection.
        settings: Settings that take precedence over the connection's. Leave out what differs between tasks,
            such as a name or a timeout, since each combination gets its own pool.

    Raises:
        LakebaseError: A setting is wrong.
    """
    # The hook brings the driver; making a trigger must not.
    from lakebase_provider.hooks.lakebase import LakebaseHook

    return await LakebaseHook(conn_id, **settings).aclient()
