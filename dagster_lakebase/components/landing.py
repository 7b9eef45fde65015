"""Which files have landed."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from lakebase_provider.core.errors import ConfigError

_WILDCARD = re.compile(r"[*?\[]")
#: A name in braces, in a path or a load's id.
_FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class LandedFile:
    """A file that has landed.

    Attributes:
        name: What it is called in ids, logs and metadata: relative to the component's folder, if its source
            was given so, whichever machine that lies on.
        source: What a load takes.
    """

    name: str
    source: str | Path


def fields_of(text: str) -> list[str]:
    """The names in braces."""
    return _FIELD.findall(text)


def filled(text: str, values: Mapping[str, str]) -> str:
    """The text with values in the place of the names in braces."""
    return _FIELD.sub(lambda field: values[field[1]], text)


def landed_files(source: str, folder: Path, values: Mapping[str, str]) -> list[LandedFile]:
    """The files that a path stands for, in the order of their names.

    Of a pattern's matches those are left out that begin with a dot or an underscore, as what is still being
    written does by custom.

    Args:
        source: A local path, relative to the folder or not, or a URI; it may hold ``*``, ``?``, ``[…]`` and
            ``**``, and names in braces.
        folder: The component's folder.
        values: What stands for the names in braces.

    Raises:
        ConfigError: A value would lead out of its folder, or the path is none that may be read.
    """
    from lakebase_provider.core.bulk.locations import locate, protocol_of

    for name in fields_of(source):
        _require_plain(name, values[name])
    has_pattern = _WILDCARD.search(_FIELD.sub("", source)) is not None
    as_text = glob.escape if has_pattern else str
    text = filled(source, {name: as_text(value) for name, value in values.items()})
    if protocol_of(text, "source") not in ("", "file", "local"):
        if not has_pattern:
            return [LandedFile(text, text)]
        place = locate(text, "source")
        found = sorted(place.fs.unstrip_protocol(path) for path in place.fs.glob(place.path))
        return [LandedFile(uri, uri) for uri in found if _is_whole(PurePosixPath(uri), PurePosixPath(text))]
    path = Path(text.partition("://")[2] or text).expanduser()
    whole = path if path.is_absolute() else folder / path
    if not has_pattern:
        return [LandedFile(path.as_posix(), whole)]
    # Not Path.glob, which takes no absolute pattern.
    matches = sorted(map(Path, glob.glob(str(whole), recursive=True)))  # noqa: PTH207
    return [
        LandedFile((match if path.is_absolute() else match.relative_to(folder)).as_posix(), match)
        for match in matches
        if match.is_file() and _is_whole(match, whole)
    ]


def _is_whole(path: PurePath, pattern: PurePath) -> bool:
    fixed = next(i for i, part in enumerate(pattern.parts) if _WILDCARD.search(part))
    return not any(part.startswith((".", "_")) for part in path.parts[fixed:])


def _require_plain(name: str, value: Any) -> None:
    """Keys of partitions may come from whoever launches a run."""
    if any(part in ("", ".", "..") for part in re.split(r"[/\\]", value)):
        raise ConfigError(
            f"source holds {{{name}}}, which is {value!r}: it would lead to another folder.",
            remedy="Name partitions without '..', and without a slash at either end.",
        )
