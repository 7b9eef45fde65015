"""Looks kept in a folder: a file for each, written whole, so that many processes may share it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from pathlib import Path

from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.upkeep.looking.look import Look

logger = logging.getLogger(__name__)

#: Looks that are kept of each database; the oldest go first.
KEPT = 100
_SUFFIX = ".json"


class KeptLooks:
    """The looks in a folder, which only its owner can read.

    Args:
        folder: Where; made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, name: str, look: Look) -> None:
        """Keep a look.

        Args:
            name: At what, such as the id of a connection.
            look: What it has seen.

        Raises:
            OSError: It could not be written.
        """
        place = self._place(name)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        stem = f"{look.moment().strftime('%Y%m%dT%H%M%S%f')}-{secrets.token_hex(4)}"
        fresh = place / f"{stem}.tmp"
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(look.to_dict(), file)
        fresh.replace(place / f"{stem}{_SUFFIX}")
        for old in self._files(name)[KEPT:]:
            old.unlink(missing_ok=True)

    def last(self, name: str) -> Look | None:
        """The latest look; None if there is none."""
        return next(iter(self.latest(name, 1)), None)

    def latest(self, name: str, most: int) -> list[Look]:
        """The latest looks, the newest first; what cannot be read is left out.

        Args:
            name: At what.
            most: How many.
        """
        return [look for look in map(_read, self._files(name)[:most]) if look is not None]

    def _files(self, name: str) -> list[Path]:
        try:
            return sorted(self._place(name).glob(f"*{_SUFFIX}"), reverse=True)
        except OSError:
            return []

    def _place(self, name: str) -> Path:
        # Of a name only its digest: it may hold what is no name of a folder.
        return self._folder / hashlib.sha256(name.encode()).hexdigest()[:32]


def _read(file: Path) -> Look | None:
    try:
        return Look.from_dict(json.loads(file.read_text()))
    except (OSError, ValueError, ConfigError) as error:
        logger.warning("A look that was kept cannot be read: %s", type(error).__name__)
        return None
