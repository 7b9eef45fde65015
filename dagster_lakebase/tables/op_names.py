"""What the steps that make assets are called."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import dagster as dg


def op_name(keys: Sequence[dg.AssetKey]) -> str:
    """The name of the op that makes these assets, in the form that Dagster uses for one asset.

    It is unique in the code location, since no other op makes the first of the assets.

    Args:
        keys: The assets.
    """
    first = min(keys, key=lambda key: list(key.path))
    plain = "__".join(first.path)
    name = re.sub(r"\W", "_", plain, flags=re.ASCII)
    if name != plain:
        # Two keys may differ only in characters that a name cannot hold.
        name = f"{name}_{hashlib.sha256(first.to_string().encode()).hexdigest()[:8]}"
    return name if len(keys) == 1 else f"{name}_and_{len(keys) - 1}_more"
