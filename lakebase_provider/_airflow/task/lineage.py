"""What OpenLineage learns about the tables, files and queries between which rows move."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.openlineage.facet import (
    Dataset,
    OutputDataset,
    OutputStatisticsOutputDatasetFacet,
)

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook
    from airflow.providers.openlineage.extractors import OperatorLineage

    from lakebase_provider.core.bulk.load.result import LoadResult
    from lakebase_provider.core.client import LakebaseClient
    from lakebase_provider.core.connect.target import Target


def table_dataset(
    target: Target, default_schema: Callable[[], str | None], table: str, result: LoadResult | None = None
) -> OutputDataset:
    """A table that is written, named as in SQL lineage.

    Args:
        target: Where the database is.
        default_schema: Returns the schema for a name without one.
        table: Its name, with its schema or found in the search path.
        result: What was loaded, if known: its row count is reported too.
    """
    from lakebase_provider.core.database.catalog import TableName

    name = TableName.parse(table if result is None else result.table)
    schema = name.schema or default_schema()
    return OutputDataset(
        namespace=f"postgres://{target.host}:{target.port}",
        name=f"{target.database}.{schema}.{name.table}",
        outputFacets={}
        if result is None
        else {"outputStatistics": OutputStatisticsOutputDatasetFacet(rowCount=result.rows)},
    )


def file_dataset(path: str) -> Dataset:
    """A file as OpenLineage names it: ``s3://bucket`` and the key, ``file`` and the path.

    Args:
        path: A local path or a URI; an Airflow connection's name in it is left out.
    """
    parts = urlsplit(path) if "://" in path else None
    if parts is None or parts.scheme in ("", "file"):
        return Dataset(namespace="file", name=str(Path(path if parts is None else parts.path).absolute()))
    return Dataset(
        namespace=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", name=parts.path.lstrip("/") or "/"
    )


def synced_table_lineage(
    client: LakebaseClient, table: str, source: str | None, rows: int | None = None
) -> OperatorLineage[Any, Any]:
    """The Delta table that a sync reads, named as in lineage of Databricks' SQL, and the one that it writes.

    Args:
        client: The connection's client.
        table: Name of the synced table in the Unity Catalog.
        source: Name of the Delta table there, if it is known.
        rows: How many were copied, if that is known.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage

    target, (_, schema, name) = client.target(), table.split(".")
    workspace = urlsplit(client.config.workspace_host or "").netloc
    return OperatorLineage(
        inputs=[Dataset(namespace=f"databricks://{workspace}", name=source)] if source and workspace else [],
        outputs=[
            OutputDataset(
                namespace=f"postgres://{target.host}:{target.port}",
                name=f"{target.database}.{schema}.{name}",
                outputFacets={}
                if rows is None
                else {"outputStatistics": OutputStatisticsOutputDatasetFacet(rowCount=rows)},
            )
        ],
    )


def query_lineage(hook: DbApiHook, conn_id: str, sql: str) -> OperatorLineage[Any, Any]:
    """What a query reads, if its hook tells OpenLineage its database; otherwise nothing.

    Args:
        hook: The hook of the connection that the query runs on.
        conn_id: Id of that connection.
        sql: The query.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.providers.openlineage.sqlparser import get_openlineage_facets_with_sql

    return get_openlineage_facets_with_sql(hook, sql, conn_id, None) or OperatorLineage()
