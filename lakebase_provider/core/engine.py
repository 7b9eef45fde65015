"""SQLAlchemy engines that never see a password."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lakebase_provider.core.connector import Connector
from lakebase_provider.core.target import Target

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine

#: Seconds after which a connection is replaced, as the Lakebase documentation's sample has it.
_RECYCLE = 3600


def sqlalchemy_url(target: Target) -> URL:
    """The address of a target as SQLAlchemy writes it, without a password."""
    from sqlalchemy.engine import URL

    return URL.create(
        "postgresql+psycopg",
        username=target.user,
        host=target.host,
        port=target.port,
        database=target.database,
    )


def create_engine(connector: Connector, target: Target, **arguments: Any) -> Engine:
    """An engine whose physical connections are opened by `connector`, each with a token that is alive.

    Args:
        connector: Opens the connections.
        target: What the engine's URL shows.
        arguments: Further arguments of ``sqlalchemy.create_engine``.
    """
    from sqlalchemy import create_engine as sqlalchemy_create_engine
    from sqlalchemy import event

    engine = sqlalchemy_create_engine(
        sqlalchemy_url(target), **{"pool_recycle": _RECYCLE, "pool_pre_ping": True, **arguments}
    )

    # Returning a connection from this event replaces SQLAlchemy's own connect, so no password ever
    # enters its connection arguments.
    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Any, _record: Any, _args: Any, _parameters: Any) -> Any:
        return connector.connect()

    return engine
