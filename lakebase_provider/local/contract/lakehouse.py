"""Where the Delta tables of the local Unity Catalog are, for whoever writes them and for the server."""

from __future__ import annotations

import re
from pathlib import Path

from lakebase_provider.local.contract.errors import LocalLakebaseError

#: A table of the Unity Catalog: its catalog, schema and own name, in which nothing leads elsewhere on a disk.
UC_TABLE = re.compile(r"[A-Za-z0-9_-]{1,255}(\.[A-Za-z0-9_-]{1,255}){2}")


def table_path(lakehouse: Path, name: str) -> Path:
    """The folder of a table.

    Args:
        lakehouse: Folder of all of them.
        name: Such as ``"main.src.trips"``.

    Raises:
        LocalLakebaseError: That is no name of one.
    """
    if not UC_TABLE.fullmatch(name):
        raise LocalLakebaseError(
            f"{name!r} is no name of a table.", remedy="Use the form <catalog>.<schema>.<table>."
        )
    return lakehouse.joinpath(*name.split("."))
