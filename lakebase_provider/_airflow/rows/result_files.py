"""Rows of a query as a file, if they are too many for XCom: an unload in the format of the path's suffix."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lakebase_provider.core.bulk.files.locations import protocol_of
from lakebase_provider.core.bulk.unload.destination import format_of, unknown_format

if TYPE_CHECKING:
    import psycopg

    from lakebase_provider.core.bulk.read.statement import Parameters
    from lakebase_provider.core.bulk.unload.destination import Format


def check_path(path: str) -> None:
    """Refuse a path whose format is unknown, or that cannot be written.

    Args:
        path: A path or URL, or a template of one, whose suffix decides.

    Raises:
        ConfigError: The path's suffix is unknown, or its protocol is not allowed.
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
        connection: The connection in whose transaction the query runs.
        query: The query.
        params: Its parameters.
        path: A local path, or a URL such as ``s3://connection@bucket/key.csv``; its suffix decides the
            format.
        commit: Ends the transaction once the file is complete but not yet renamed.

    Raises:
        Exception: As :func:`.unload_within` does; an existing file stays.
    """
    from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector
    from airflow.sdk import ObjectStoragePath

    from lakebase_provider.core.bulk.unload.destination import Destination
    from lakebase_provider.core.bulk.unload.unload import unload_within

    protocol_of(path, "output_path")  # before Airflow gets it, whose object looks up a file system at once
    format = _format_of(path)
    told_as = ObjectStoragePath(path)
    destination = Destination(told_as, "output_path")
    rows = unload_within(connection, query, destination, format=format, params=params, commit=commit)
    # As Airflow reports a file that is written through its object storage.
    collector: Any = get_hook_lineage_collector()  # type: ignore[no-untyped-call] # not annotated
    collector.add_output_asset(context=told_as, uri=str(told_as))
    return rows


def _format_of(path: str) -> Format:
    found = format_of(urlsplit(path).path if "://" in path else path, "output_path")
    if found is None:
        raise unknown_format(path, "output_path")
    return found
