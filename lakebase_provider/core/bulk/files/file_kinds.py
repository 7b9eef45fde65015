"""What kind of file a path means, by how its name ends; a DAG file asks too, without any library."""

from __future__ import annotations

import re

from lakebase_provider.core.errors import ConfigError

_PACKINGS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_CSV = (".csv", ".tsv")
_JSON = (".jsonl", ".ndjson")
_TEXTS = (*_CSV, *_JSON)
PACKED = {kind + end: packing for kind in _TEXTS for end, packing in _PACKINGS.items()}
KINDS = {
    **{suffix: "CSV" for suffix in (*_CSV, *PACKED) if suffix.startswith(_CSV)},
    **{suffix: "JSON lines" for suffix in (*_JSON, *PACKED) if suffix.startswith(_JSON)},
    ".parquet": "Parquet",
    ".pq": "Parquet",
    ".arrow": "Arrow",
}
#: How names of files end, rather than of folders.
_FILE_ENDING = re.compile(r"[^/*?\[]\.[a-z]{3,7}$")


def suffix_of(name: str) -> str:
    """The known suffix of a file's name or URI.

    Raises:
        ConfigError: It has none.
    """
    found = _found(name)
    if found is None:
        raise ConfigError(
            f"The file {name!r} has no known suffix.",
            remedy=f"Give a path that ends in {', '.join(KINDS)}; of a folder's files, name those that are"
            " meant by a pattern, such as 'folder/*.csv'.",
        )
    return found


def kind_of(path: str) -> str | None:
    """The kind of the file, or of the files of a pattern; None for what may be a folder.

    Raises:
        ConfigError: It ends as no file does that can be loaded, and as no folder.
    """
    found = _found(path)
    if found is None and _FILE_ENDING.search(_plain(path)):
        suffix_of(path)
    return None if found is None else KINDS[found]


def _found(name: str) -> str | None:
    return next((suffix for suffix in KINDS if _plain(name).endswith(suffix)), None)


def _plain(name: str) -> str:
    return name.partition("?")[0].lower()
