"""Rows of a query as a file, where they are too many for XCom: an unload, by the end of a path."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lakebase_provider.core.bulk.files.locations import protocol_of, shown
from lakebase_provider.core.errors import ConfigError

if TYPE_CHECKING:
    import psycopg

    from lakebase_provider.core.bulk.read.statement import Parameters
    from lakebase_provider.core.bulk.unload.destination import Format

_FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
}


def check_path(path: str) -> None:
    """Refuse a path whose format is unknown, or to which nothing may be written.

    Args:
        path: A path or URL; of a template of one it is the end that counts.

    Raises:
        ConfigError: The path ends in none of the known formats, or is of a protocol that is not allowed.
    """
    if "{{" not in path and "{%" not in path:
        protocol_of(path, "output_path")
    _format_of(path)


def write_rows(
    connection: psycopg.Connection[Any],
    query: Any,
    params: Parameters,
    path: str,
    *,
    commit: Callable[[], object],
) -> int:
    """Write what a query returns to a path that Airflow's object storage knows; return the number of rows.

    Args:
        connection: In whose transaction the query runs.
        query: The query.
        params: Its parameters.
        path: A local path, or a URL as ``s3://connection@bucket/key.csv``; its end says which format.
        commit: Ends the transaction, when the file is whole and has not its name yet.

    Raises:
        Exception: As :func:`.unload_within` does; what was there stays.
    """
    from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector
    from airflow.sdk import ObjectStoragePath

    from lakebase_provider.core.bulk.unload.destination import Destination
    from lakebase_provider.core.bulk.unload.unload import unload_within

    protocol_of(path, "output_path")  # before Airflow has it, whose object looks for a file system at once
    format = _format_of(path)
    told_as = ObjectStoragePath(path)
    destination = Destination(told_as, "output_path")
    rows = unload_within(connection, query, destination, format=format, params=params, commit=commit)
    # As Airflow tells of a file that is written through its object storage.
    collector: Any = get_hook_lineage_collector()  # type: ignore[no-untyped-call] # not annotated
    collector.add_output_asset(context=told_as, uri=str(told_as))
    return rows


def _format_of(path: str) -> Format:
    name = urlsplit(path).path if "://" in path else path
    for suffix, format in _FORMATS.items():
        if name.endswith(suffix):
            return format
    raise ConfigError(
        f"output_path {shown(path)!r} does not end in a known format.",
        remedy=f"End it in one of: {', '.join(_FORMATS)}.",
    )
