"""Which rows of a table belong to which partitions, as a condition in SQL."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timezone
from typing import Any

import dagster as dg
import psycopg
from psycopg import sql

from lakebase_provider.core.bulk.types.postgres_types import KINDS
from lakebase_provider.core.database.catalog import Table
from lakebase_provider.core.errors import ConfigError

#: How the bounds of a time window are written, by the type that they are compared with.
_TIME_TYPES = {kind.name for kind in KINDS if kind.takes & {date, datetime}}
_NAME = re.compile(r"[^\W\d]\w*")

#: What `partition_expr` may be: an expression, or one for each dimension.
PartitionExpression = str | Mapping[str, str]


def rows_of_partitions(
    connection: psycopg.Connection[Any],
    table: Table,
    definition: dg.PartitionsDefinition[Any],
    keys: Sequence[str],
    expression: PartitionExpression | None,
) -> sql.Composable:
    """The condition that holds for exactly the rows of these partitions.

    Time windows are compared in the type of the column: as points in time with timestamptz, whatever the time
    zone of partitions and session; as the wall clock of the partitions' time zone with timestamp and date.
    Several keys of a multi-partitioned asset are taken one by one, not as a range.

    Args:
        connection: Used to look up the expressions' types.
        table: The table.
        definition: How the asset is partitioned.
        keys: The partitions; if there are none, no rows match.
        expression: The asset's `partition_expr`: a column's exact name, or an SQL expression; for a
            multi-partitioned asset, one for each dimension.

    Raises:
        ConfigError: `partition_expr` is missing, is not a column of the table, or is not a time although the
            partitions are time windows.
    """
    dimensions = _dimensions(definition, expression)
    if not keys:
        return sql.SQL("false")
    sides = [_Side(connection, table, name, part, text) for name, part, text in dimensions]
    if len(sides) == 1:
        return sides[0].condition(keys)
    alternatives = [
        sql.SQL("({})").format(
            sql.SQL(" AND ").join(side.condition(chosen) for side, chosen in zip(sides, block, strict=True))
        )
        for block in _blocks([_coordinates(key, definition, dimensions) for key in keys])
    ]
    return sql.SQL("({})").format(sql.SQL(" OR ").join(alternatives))


def _dimensions(
    definition: dg.PartitionsDefinition[Any], expression: PartitionExpression | None
) -> list[tuple[str, dg.PartitionsDefinition[Any], str]]:
    if isinstance(definition, dg.MultiPartitionsDefinition):
        given = expression if isinstance(expression, Mapping) else {}
        missing = [part.name for part in definition.partitions_defs if not given.get(part.name)]
        if missing:
            raise ConfigError(
                f"partition_expr names no column for dimension {', '.join(map(repr, missing))}.",
                remedy='Set the asset\'s metadata, such as {"partition_expr": {"day": "ordered_at", '
                '"region": "region"}}.',
            )
        return [(part.name, part.partitions_def, given[part.name]) for part in definition.partitions_defs]
    if not isinstance(expression, str) or not expression:
        raise ConfigError(
            "The asset has partitions, but its metadata has no partition_expr.",
            remedy='Name the column that holds the partition: metadata={"partition_expr": "ordered_at"}.',
        )
    return [("", definition, expression)]


def _coordinates(
    key: str,
    definition: dg.PartitionsDefinition[Any],
    dimensions: Sequence[tuple[str, dg.PartitionsDefinition[Any], str]],
) -> tuple[str, ...]:
    assert isinstance(definition, dg.MultiPartitionsDefinition)
    if not isinstance(key, dg.MultiPartitionKey):
        key = definition.get_partition_key_from_str(key)
    return tuple(key.keys_by_dimension[name] for name, _, _ in dimensions)


def _blocks(cells: Iterable[tuple[str, ...]]) -> list[tuple[list[str], list[str]]]:
    """Cells of a grid as few blocks of rows × columns that cover exactly them."""
    columns_of: dict[str, list[str]] = {}
    for row, column in cells:
        columns_of.setdefault(row, []).append(column)
    rows_with: dict[tuple[str, ...], list[str]] = {}
    for row, columns in columns_of.items():
        rows_with.setdefault(tuple(sorted(set(columns))), []).append(row)
    return [(rows, list(columns)) for columns, rows in rows_with.items()]


class _Side:
    """One dimension: what is compared, in which type, with which keys."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        table: Table,
        name: str,
        definition: dg.PartitionsDefinition[Any],
        text: str,
    ) -> None:
        self._where = f"partition_expr of dimension {name!r}" if name else "partition_expr"
        self._definition = definition
        self._expression: sql.Composable
        if table.column(text) is not None:
            self._expression = sql.Identifier(text)
        elif _NAME.fullmatch(text):
            raise ConfigError(
                f"{self._where} is {text!r}, which is not a column of table {table.name}.",
                remedy="Give a column's exact name (it is case-sensitive), or an expression.",
            )
        else:
            # An expression is the author's own SQL, like the body of the asset.
            self._expression = sql.SQL("({})").format(sql.SQL(text))
        self._type = ""
        if isinstance(definition, dg.TimeWindowPartitionsDefinition):
            self._type = self._time_type(connection, table)

    def condition(self, keys: Sequence[str]) -> sql.Composable:
        if not isinstance(self._definition, dg.TimeWindowPartitionsDefinition):
            # Literals without a type: the server reads them as the column's own type, such as a number or an
            # enum.
            listed = sql.SQL(", ").join(sql.Literal(str(key)) for key in dict.fromkeys(keys))
            return sql.SQL("{} IN ({})").format(self._expression, listed)
        ranges = [
            sql.SQL("({0} >= {1} AND {0} < {2})").format(
                self._expression, self._bound(start, first=True), self._bound(end)
            )
            for start, end in _merged(self._definition, keys)
        ]
        return ranges[0] if len(ranges) == 1 else sql.SQL("({})").format(sql.SQL(" OR ").join(ranges))

    def _time_type(self, connection: psycopg.Connection[Any], table: Table) -> str:
        query = sql.SQL("SELECT {} FROM {} LIMIT 0").format(self._expression, table.name.sql())
        description = connection.execute(query).description
        assert description is not None
        info = psycopg.adapters.types.get(description[0].type_code)
        found = "unknown" if info is None else info.name
        if found not in _TIME_TYPES:
            raise ConfigError(
                f"{self._where} is of type {found}, but the partitions are time windows.",
                remedy="Give an expression that is a time, such as \"to_timestamp(day, 'YYYY-MM-DD')\".",
            )
        return found

    def _bound(self, moment: datetime, *, first: bool = False) -> sql.Literal:
        if self._type == "timestamptz":
            return sql.Literal(moment.astimezone(timezone.utc))
        wall = moment.replace(tzinfo=None, fold=0)
        if first and _is_repeated(moment):
            raise ConfigError(
                f"{self._where} is a {self._type}, which cannot distinguish the hours before and after the "
                f"clock is turned back, and a partition begins at {wall}.",
                remedy="Partition on a column of type timestamptz.",
            )
        if self._type == "timestamp":
            return sql.Literal(wall)
        if wall != datetime(wall.year, wall.month, wall.day):
            raise ConfigError(
                f"{self._where} is a date, but a partition begins or ends within a day.",
                remedy="Partition on a column of type timestamptz.",
            )
        return sql.Literal(date(wall.year, wall.month, wall.day))


def _is_repeated(moment: datetime) -> bool:
    before, after = moment.replace(fold=0).utcoffset(), moment.replace(fold=1).utcoffset()
    return before is not None and after is not None and before > after


def _merged(
    definition: dg.TimeWindowPartitionsDefinition, keys: Iterable[str]
) -> list[tuple[datetime, datetime]]:
    """The keys' windows in order, adjacent ones merged, in the partitions' time zone."""
    windows = [definition.time_window_for_partition_key(key) for key in keys]
    zone = windows[0].start.tzinfo
    # In UTC, since times of one zone compare by wall clock, which repeats an hour every year.
    spans = sorted({(w.start.astimezone(timezone.utc), w.end.astimezone(timezone.utc)) for w in windows})
    merged: list[tuple[datetime, datetime]] = []
    for start, end in spans:
        if merged and merged[-1][1] >= start:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return [(start.astimezone(zone), end.astimezone(zone)) for start, end in merged]
