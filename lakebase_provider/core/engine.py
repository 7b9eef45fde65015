"""SQLAlchemy engines that never see a password."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.connector import Connector
from lakebase_provider.core.target import Target

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

#: As the Lakebase documentation's sample has it: a connection is replaced after that many seconds.
_ARGUMENTS: dict[str, Any] = {"pool_recycle": 3600, "pool_pre_ping": True}


def sqlalchemy_url(target: Target | LakebaseConfig) -> URL:
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

    engine = sqlalchemy_create_engine(sqlalchemy_url(target), **{**_ARGUMENTS, **arguments})

    # Returning a connection from this event replaces SQLAlchemy's own connect, so no password ever
    # enters its connection arguments.
    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Any, _record: Any, _args: Any, _parameters: Any) -> Any:
        return connector.connect()

    return engine


def create_async_engine(connector: Connector, config: LakebaseConfig, **arguments: Any) -> AsyncEngine:
    """As :func:`create_engine`, for asyncio: neither this call nor a connect blocks the event loop.

    Args:
        connector: Opens the connections.
        config: What the engine's URL shows; to ask the workspace for what it leaves out would block.
        arguments: Further arguments of ``sqlalchemy.ext.asyncio.create_async_engine`` (SQLAlchemy 2.0.16 or
            newer, with greenlet: ``sqlalchemy[asyncio]``).
    """
    from sqlalchemy.ext.asyncio import create_async_engine as sqlalchemy_create_async_engine

    return sqlalchemy_create_async_engine(
        sqlalchemy_url(config), **{**_ARGUMENTS, "async_creator": connector.aconnect, **arguments}
    )
