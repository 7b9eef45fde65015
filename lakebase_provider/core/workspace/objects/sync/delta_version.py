"""The version of a Delta table: what a synced table is to have reached."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.config import arguments
from lakebase_provider.core.config.resource_names import UC_TABLE
from lakebase_provider.core.errors import ConfigError

if TYPE_CHECKING:
    from deltalake import DeltaTable

#: Operations whose commits change no row, as a history calls them: a sync does not always tell their version.
_WITHOUT_DATA = {
    *("OPTIMIZE", "VACUUM START", "VACUUM END", "REORG", "FSCK", "COMPUTE STATS", "CLUSTER BY"),
    *("SET TBLPROPERTIES", "UNSET TBLPROPERTIES", "ADD CONSTRAINT", "DROP CONSTRAINT", "UPGRADE PROTOCOL"),
}
#: Commits that are looked at. If all of them changed no row, it is the newest one's version.
_LOOK_BACK = 100


def delta_version(
    table: str | os.PathLike[str] | DeltaTable,
    connection: Any = None,
    *,
    storage_options: Mapping[str, str] | None = None,
) -> int:
    """The version of the newest commit to a Delta table that may have changed a row.

    Commits of maintenance, such as those of OPTIMIZE and VACUUM, are passed over: no row comes by them, and a
    sync may end before their version.

    Args:
        table: Name in the Unity Catalog, with a `connection`; without one its path or URI, or a `DeltaTable`,
            which the package deltalake reads.
        connection: A connection to a SQL warehouse (DB-API, as ``databricks.sql.connect`` returns), which is
            asked with ``DESCRIBE HISTORY``.
        storage_options: Credentials and settings for a path, as deltalake takes them.

    Raises:
        ConfigError: The name is none, or the package deltalake is missing.

    Example:
        >>> client.workspace.synced_tables.wait("main.pub.trips", version=delta_version("s3://lake/trips"))
    """
    if connection is not None:
        return _described(connection, str(table))
    if isinstance(table, (str, os.PathLike)):
        try:
            from deltalake import DeltaTable
        except ModuleNotFoundError:
            raise ConfigError(
                "A Delta table's version is read with the package deltalake, which is missing.",
                remedy="Run `pip install 'lakebase-provider[delta]'`, or give a connection or a number.",
            ) from None
        table = DeltaTable(os.fspath(table), storage_options=dict(storage_options or {}) or None)
    else:
        table.update_incremental()
    return _newest(table.history(_LOOK_BACK))


def _described(connection: Any, table: str) -> int:
    if not UC_TABLE.fullmatch(table):
        raise ConfigError(
            "The name of the Delta table is not in the form <catalog>.<schema>.<table>.",
            remedy="Give its full name in the Unity Catalog.",
        )
    name = ".".join(f"`{part}`" for part in table.split("."))
    cursor = connection.cursor()
    try:
        cursor.execute(f"DESCRIBE HISTORY {name} LIMIT {_LOOK_BACK}")
        columns = [str(column[0]).lower() for column in cursor.description]
        return _newest([dict(zip(columns, row, strict=True)) for row in cursor.fetchall()])
    finally:
        cursor.close()


def _newest(history: Iterable[Mapping[str, Any]]) -> int:
    commits = [(int(one["version"]), str(one.get("operation", "")).upper()) for one in history]
    if not commits:
        raise ConfigError("The Delta table has no history.", remedy="Check that it is a Delta table.")
    with_data = [version for version, operation in commits if operation not in _WITHOUT_DATA]
    return max(with_data or [version for version, _ in commits])


def wanted_version(version: Any) -> int | None:
    """The number that a `version` stands for; None for None.

    Raises:
        ConfigError: It is something else.
    """
    if version is None or isinstance(version, bool):
        return None if version is None else arguments.count("'version'", version)
    if hasattr(version, "update_incremental"):
        return delta_version(version)
    return arguments.count("'version'", version() if callable(version) else version)
