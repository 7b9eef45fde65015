"""Whether a secret got into anything that the runs left behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Search:
    """What was searched and found.

    Attributes:
        files: How many files were read: logs at DEBUG, Airflow's metadata database (XCom and rendered
            templates included), Dagster's home.
        bytes: How much they hold.
        leaks: ``"<file>: <which secret>"`` for each secret found.
    """

    files: int
    bytes: int
    leaks: tuple[str, ...]


def search_for_secrets(folder: Path, secrets: Mapping[str, str]) -> Search:
    """Look for secrets in all files below a folder.

    Args:
        folder: Where to look.
        secrets: Texts to look for, by a name that may be shown.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    contents = {path: path.read_bytes() for path in files}
    leaks = tuple(
        f"{path.relative_to(folder)}: {name}"
        for path, content in contents.items()
        for name, secret in secrets.items()
        if secret.encode() in content
    )
    return Search(len(files), sum(map(len, contents.values())), leaks)
