"""SQLAlchemy engines that never see a password."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.connect.connector import Connector
from lakebase_provider.core.connect.pools.engine_reset import reset_on_return
from lakebase_provider.core.connect.target import Target
from lakebase_provider.core.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

#: As in the Lakebase documentation's sample: a connection is replaced after that many seconds.
_ARGUMENTS: dict[str, Any] = {"pool_recycle": 3600, "pool_pre_ping": True}


def sqlalchemy_url(target: Target | LakebaseConfig) -> URL:
    """The address of a target in SQLAlchemy's form, without a password."""
    from sqlalchemy.engine import URL

    return URL.create(
        "postgresql+psycopg",
        username=target.user,
        host=target.host,
        port=target.port,
        database=target.database,
    )


def create_engine(connector: Connector, target: Target, **arguments: Any) -> Engine:
    """An engine whose physical connections are opened by `connector`, each with a valid token.

    Args:
        connector: Opens the connections.
        target: What the engine's URL shows.
        arguments: Further arguments of ``sqlalchemy.create_engine``. psycopg gets those of ``connect_args``
            and of a ``do_connect`` listener's additions that the configuration does not set. A ``pool`` or a
            ``creator`` opens its connections itself. With ``pool_reset_on_return=None`` borrowers find the
            session as the previous one left it. Otherwise it is reset to what ``connect`` listeners set; set
            a custom setting, with a dot in its name, in a ``checkout`` listener.

    Raises:
        ConfigError: An argument contradicts the configuration.
    """
    from sqlalchemy import create_engine as sqlalchemy_create_engine

    engine = sqlalchemy_create_engine(sqlalchemy_url(target), **_checked(connector, arguments))
    further = _Further(connector, engine)

    def connect(*_args: Any, **parameters: Any) -> Any:
        return connector.connect(**further.of(parameters))

    _opened_by(connect, engine)
    reset_on_return(engine)
    return engine


def create_async_engine(connector: Connector, config: LakebaseConfig, **arguments: Any) -> AsyncEngine:
    """Like :func:`create_engine`, for asyncio: neither this call nor connecting blocks the event loop.

    Args:
        connector: Opens the connections.
        config: What the engine's URL shows; asking the workspace for what it leaves out would block.
        arguments: Further arguments of ``sqlalchemy.ext.asyncio.create_async_engine`` (SQLAlchemy 2.0.16 or
            newer, with greenlet: ``sqlalchemy[asyncio]``), as for :func:`create_engine`.

    Raises:
        ConfigError: An argument contradicts the configuration.
    """
    from sqlalchemy.ext.asyncio import create_async_engine as sqlalchemy_create_async_engine

    engine = sqlalchemy_create_async_engine(sqlalchemy_url(config), **_checked(connector, arguments))
    dialect: Any = engine.sync_engine.dialect
    further = _Further(connector, engine.sync_engine)

    def connect(*_args: Any, **parameters: Any) -> Any:
        open_one = parameters.pop("async_creator_fn", connector.aconnect)
        return dialect.loaded_dbapi.connect(async_creator_fn=open_one, **further.of(parameters))

    _opened_by(connect, engine.sync_engine)
    reset_on_return(engine.sync_engine)
    return engine


def _opened_by(connect: Any, engine: Engine) -> None:
    # SQLAlchemy calls this if no do_connect listener has returned a connection. A listener of ours would keep
    # users' listeners from being called.
    engine.dialect.connect = connect  # type: ignore[method-assign]


def _checked(connector: Connector, arguments: dict[str, Any]) -> dict[str, Any]:
    refused = connector.settled & (arguments.get("connect_args") or {}).keys()
    if refused:
        raise ConfigError(
            f"The connection's {', '.join(sorted(refused))} cannot be set through connect_args.",
            remedy="Set it in the configuration.",
        )
    encoding = arguments.get("client_encoding")
    if encoding is not None and not _is_utf8(encoding):
        raise ConfigError(
            f"client_encoding={encoding!r} is not UTF8, which all connections use.",
            remedy="Leave it out; the server converts data stored in another encoding.",
        )
    # A given pool already has its own settings for keeping connections.
    return arguments if arguments.get("pool") is not None else {**_ARGUMENTS, **arguments}


def _is_utf8(encoding: object) -> bool:
    return str(encoding).lower().replace("-", "").replace("_", "") in ("utf8", "unicode")


class _Further:
    """The connection arguments that belong to SQLAlchemy and its users, not to the configuration."""

    def __init__(self, connector: Connector, engine: Engine) -> None:
        self._connector = connector
        self._of_url: dict[str, Any] = {
            name: value
            for name, value in engine.dialect.create_connect_args(engine.url)[1].items()
            if name in connector.settled
        }

    def of(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The arguments for the connector.

        Raises:
            ConfigError: A listener has changed what the configuration sets.
        """
        settled = self._connector.settled & parameters.keys()
        changed = [name for name in settled if parameters[name] != self._of_url.get(name)]
        if changed:
            raise ConfigError(
                f"The connection's {', '.join(sorted(changed))} cannot be set by a do_connect listener.",
                remedy="Set it in the configuration, or return a connection from the listener.",
            )
        return {name: value for name, value in parameters.items() if name not in settled}
