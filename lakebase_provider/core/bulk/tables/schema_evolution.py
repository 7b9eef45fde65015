"""What may become of a table's columns; a DAG file and a code location ask too, without the driver."""

from __future__ import annotations

from typing import Literal, get_args

#: What may happen to a table with other columns than the rows have.
SchemaEvolution = Literal["error", "add", "widen", "recreate"]
SCHEMA_EVOLUTIONS: tuple[str, ...] = get_args(SchemaEvolution)
