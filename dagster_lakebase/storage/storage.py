"""Dagster's own runs, events and schedules in Lakebase: :class:`LakebaseStorage`.

Needs the extra ``lakebase-provider[dagster-storage]``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dagster import Field, IntSource, StringSource
from dagster._core.storage.base_storage import DagsterStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from dagster_lakebase.resource.step_name import current_process, with_storage_name
from dagster_lakebase.resource.variables import variable_not_set
from dagster_lakebase.storage.engine import SharedEngine
from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.config import LakebaseConfig, setting, settings
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.errors.tracebacks import without_frames

try:
    from dagster_postgres import PostgresEventLogStorage, PostgresRunStorage, PostgresScheduleStorage
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "LakebaseStorage builds on dagster-postgres, which is not installed.\n"
        "Remedy: pip install 'lakebase-provider[dagster-storage]'.",
        name=error.name,
    ) from error

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

#: dagster-postgres makes an engine from this that is never used; the shared engine knows the real address.
_UNUSED_URL = "postgresql+psycopg://"
#: Maximum number of connections of a process, unless the configuration sets another.
_POOL_SIZE = 5
#: The tables by which dagster-postgres knows that a storage has been set up.
_MAIN_TABLES = frozenset({"runs", "instance_info", "event_logs", "jobs"})
#: Held while tables are created, by whichever process comes first.
_CREATION_LOCK = 0x6C616B65_64616773


class _OnSharedEngine:
    """Makes one of dagster-postgres's storages use an engine that it shares with the other two."""

    def __init__(self, shared: SharedEngine, **arguments: Any) -> None:
        self._shared = shared
        super().__init__(_UNUSED_URL, **arguments)  # type: ignore[call-arg] # dagster-postgres's comes next

    @property
    def _engine(self) -> Engine:
        return self._shared.engine

    @_engine.setter
    def _engine(self, _own: Engine) -> None:
        """Dagster-postgres's own engine: it has not connected yet, and never will."""

    def optimize_for_webserver(self, statement_timeout: int, pool_recycle: int, max_overflow: int) -> None:
        """Limit how long the web server's queries may take.

        Args:
            statement_timeout: Milliseconds for one statement.
            pool_recycle: Seconds after which a connection is replaced.
            max_overflow: Connections beyond the pool's size.
        """
        self._shared.optimize_for_webserver(statement_timeout, pool_recycle, max_overflow)


class LakebaseRunStorage(_OnSharedEngine, PostgresRunStorage):
    """Runs, part of :class:`LakebaseStorage`."""


class LakebaseEventLogStorage(_OnSharedEngine, PostgresEventLogStorage):
    """Events, part of :class:`LakebaseStorage`."""

    _released = False

    def dispose(self) -> None:
        """Close the connections that no other instance in this process uses.

        Of the three, it is the one that an instance disposes of last.
        """
        super().dispose()
        # Using an instance after its end and disposing of it again does not count as another user.
        self._shared.release(users=0 if self._released else 1)
        self._released = True


class LakebaseScheduleStorage(_OnSharedEngine, PostgresScheduleStorage):
    """Schedules and sensors, part of :class:`LakebaseStorage`."""


class LakebaseStorage(DagsterStorage[Any], ConfigurableClass):
    """Keeps Dagster's runs, events and schedules in a Lakebase database, with OAuth.

    All three share one small pool for each process and configuration, of five connections unless `max_size`
    says otherwise; dagster-postgres opens a connection for each statement instead. Tables are created at the
    first use and migrated by ``dagster instance migrate``, as with dagster-postgres.

    Every setting of :class:`~lakebase_provider.core.LakebaseConfig` may be given under ``config``, as a value
    or as ``{env: VARIABLE}``; what is left out is read from its environment variable. Secrets are accepted
    only as ``{env: VARIABLE}``, since Dagster passes the configuration to run processes as an argument.

    In ``pg_stat_activity``, sessions show their process as the application name (``dagster:storage:daemon``,
    ``…:webserver``, ``…:code-server``, ``…:run:1f0c62d1``), unless `application_name` is set.

    Give Dagster its own database, so that its tables do not mix with yours.

    Raises:
        ConfigError: A setting is missing, malformed or contradicts another.

    Example:
        .. code-block:: yaml

            # dagster.yaml
            storage:
              custom:
                module: dagster_lakebase.storage
                class: LakebaseStorage
                config:
                  endpoint: projects/shop/branches/production/endpoints/primary
                  database: dagster
                  client_id: {env: DATABRICKS_CLIENT_ID}
                  client_secret: {env: DATABRICKS_CLIENT_SECRET}
    """

    def __init__(
        self,
        config: LakebaseConfig,
        should_autocreate_tables: bool = True,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        self._inst_data = inst_data
        shared = SharedEngine.acquire(config)
        arguments: dict[str, Any] = {"should_autocreate_tables": should_autocreate_tables}
        try:
            with _alone_if_tables_are_missing(shared.engine, should_autocreate_tables):
                self._run_storage = LakebaseRunStorage(shared, **arguments)
                self._event_log_storage = LakebaseEventLogStorage(shared, **arguments)
                self._schedule_storage = LakebaseScheduleStorage(shared, **arguments)
        except BaseException:
            shared.release()
            raise
        super().__init__()  # type: ignore[no-untyped-call] # Dagster's own has no annotations

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """A field for each setting, all optional."""
        kinds: dict[str, Any] = {
            "string": StringSource,
            "integer": IntSource,
            "number": float,
            "secret": {"env": str},
        }
        return {
            "should_autocreate_tables": Field(bool, is_required=False, default_value=True),
            **{
                row.name: Field(kinds[row.kind], is_required=False, description=row.description)
                for row in settings()
            },
        }

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> LakebaseStorage:
        """Created by Dagster from ``dagster.yaml``.

        Raises:
            ConfigError: A setting is missing, malformed or contradicts another.
        """
        try:
            config = _config(config_value)
        except ConfigError as error:
            # What was given is in this frame and those below: a secret too, where none belongs.
            del inst_data, config_value
            raise without_frames(error) from error.__cause__
        return cls(config, config_value["should_autocreate_tables"], inst_data)

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """The part of ``dagster.yaml`` that this was made from."""
        return self._inst_data

    @property
    def run_storage(self) -> LakebaseRunStorage:
        """Where runs are kept."""
        return self._run_storage

    @property
    def event_log_storage(self) -> LakebaseEventLogStorage:
        """Where events are kept."""
        return self._event_log_storage

    @property
    def schedule_storage(self) -> LakebaseScheduleStorage:
        """Where the states of schedules and sensors are kept."""
        return self._schedule_storage


def _config(given: Mapping[str, Any]) -> LakebaseConfig:
    fields = {name: value for name, value in given.items() if name != "should_autocreate_tables"}
    for name, value in fields.items():
        if setting(name).kind == "secret":
            fields[name] = _secret_from_environment(name, value["env"])
    fields.setdefault("max_size", _POOL_SIZE)
    return with_storage_name(LakebaseConfig.from_env(**fields), current_process())


def _secret_from_environment(name: str, variable: str) -> Secret:
    value = os.environ.get(variable)
    if not value:
        raise variable_not_set(name, variable)
    return Secret(value)


@contextmanager
def _alone_if_tables_are_missing(engine: Engine, create: bool) -> Iterator[None]:
    """One process at a time creates tables: dagster-postgres sees a lost race only in psycopg2's errors."""
    from sqlalchemy import inspect, text

    if not create or set(inspect(engine).get_table_names()) >= _MAIN_TABLES:
        yield
        return
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _CREATION_LOCK})
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _CREATION_LOCK})
