"""How a table's columns may change; also for DAG files and code locations, without the driver."""

from __future__ import annotations

from typing import Literal, get_args

#: What may happen to a table whose columns differ from the rows'.
SchemaEvolution = Literal["error", "add", "widen", "recreate"]
SCHEMA_EVOLUTIONS: tuple[str, ...] = get_args(SchemaEvolution)
