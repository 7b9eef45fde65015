"""The rows of a Delta table at one version as a source, read as they are sent."""

from __future__ import annotations

from collections.abc import Sequence

from lakebase_provider.core.bulk.sources.delta.opened import OpenDelta
from lakebase_provider.core.bulk.sources.source import Source, arrow_source, no_such_column


def open_snapshot(table: OpenDelta, columns: Sequence[str] | None = None) -> Source:
    """The rows, in no order, in constant memory; columns and files that are not needed are not read.

    Args:
        table: The table.
        columns: The columns to take; None for all.

    Raises:
        ConfigError: The filter is no condition on the table's columns.
        ColumnMismatchError: The table has no such column.
    """
    if missing := [name for name in columns or () if name not in table.columns]:
        raise no_such_column(table.name, missing[0], table.columns)
    reader = table.reader(columns)
    source = arrow_source(reader.schema, table.read_on(reader), table.name)
    version = table.version
    source.row_name = lambda index: (
        f"row {index + 1:,} as read of {table.name}, version {version}" if index >= 0 else table.name
    )
    return source
