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


def bound(statement: str, parameters: Any) -> tuple[bytes, Any]:
    """A statement and its parameters as psycopg takes them, by the hook's rules for placeholders.

    Args:
        statement: Of the DAG author's own making; values belong into the parameters.
        parameters: Values by position or by name, or none.

    Raises:
        psycopg.ProgrammingError: They do not fit the placeholders.
    """
    from lakebase_provider.hooks.placeholders import parse

    if not parameters:
        return statement.encode(), None
    text, values = parse(statement).bind(parameters)
    return text.encode(), values
