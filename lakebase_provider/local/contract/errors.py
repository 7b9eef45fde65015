"""The one error of the local Lakebase."""

from __future__ import annotations

from lakebase_provider.core.errors import LakebaseError


class LocalLakebaseError(LakebaseError):
    """The local Lakebase cannot start, or no longer answers."""

    code = "local_lakebase"
    default_remedy = "Read the message: it names what is missing on this machine."
