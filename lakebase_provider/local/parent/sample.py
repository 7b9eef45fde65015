"""The command `lakebase local delta`: a Delta table to synchronize, and more rows for it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

from lakebase_provider.local.contract.errors import LocalLakebaseError
from lakebase_provider.local.contract.lakehouse import table_path
from lakebase_provider.local.contract.options import Running

_SAMPLE = "main.samples.trips"
_FIRST = datetime(2026, 1, 1, tzinfo=timezone.utc)


def add_parser(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    find: Callable[[argparse.Namespace], Running],
) -> None:
    """Add the command to `lakebase local`.

    Args:
        actions: Of `lakebase local`.
        find: Returns the running one that the arguments name.
    """
    parser = actions.add_parser("delta", help="write a Delta table with sample rows, or more rows into it")
    parser.add_argument("table", nargs="?", default=_SAMPLE, help=f"its name; default: {_SAMPLE}")
    parser.add_argument("--rows", type=int, default=1000, metavar="N", help="how many to add; default: 1000")
    parser.set_defaults(run=lambda arguments: _write(arguments, find(arguments)))
    parser.add_argument("--name", default="default", help="distinguishes several instances of one user")


def _write(arguments: argparse.Namespace, running: Running) -> int:
    """Add rows, and print the table's name, version and folder."""
    if not running.lakehouse:
        raise LocalLakebaseError(
            "The running local Lakebase is of an earlier version.", remedy="Start it again."
        )
    if arguments.rows < 1:
        raise LocalLakebaseError(f"--rows is {arguments.rows}.", remedy="Add at least one.")
    path = table_path(Path(running.lakehouse), arguments.table)
    try:
        import pyarrow as pa
        from deltalake import DeltaTable, write_deltalake
    except ModuleNotFoundError as error:
        raise LocalLakebaseError(
            f"Delta tables need the package {error.name}.",
            remedy="Run `pip install 'lakebase-provider[delta]'`.",
        ) from None
    there = DeltaTable(path).count() if DeltaTable.is_deltatable(str(path)) else 0
    numbers = range(there + 1, there + arguments.rows + 1)
    rows = pa.table(
        {
            "id": pa.array(numbers, pa.int64()),
            "pickup_at": [_FIRST + timedelta(minutes=number) for number in numbers],
            "fare": [round(2.5 + number % 60 * 0.75, 2) for number in numbers],
            "stops": [[f"stop-{number % 7}"] for number in numbers],
        }
    )
    write_deltalake(path, rows, mode="append", configuration={"delta.enableChangeDataFeed": "true"})
    version = DeltaTable(path).version()
    sys.stdout.write(f"{arguments.table} has {there + arguments.rows} rows at version {version}: {path}\n")
    return 0
