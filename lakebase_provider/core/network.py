"""How the database is reached: TLS parameters and the host's address."""

from __future__ import annotations

import certifi

from lakebase_provider.core.config import LakebaseConfig


def tls_parameters(config: LakebaseConfig) -> dict[str, str]:
    """libpq's TLS parameters.

    Without `sslrootcert` the public CAs of certifi's bundle are trusted: ``sslrootcert=system`` is unusable
    in psycopg's binary wheel. ``require`` alone verifies nothing, as libpq documents.
    """
    parameters: dict[str, str] = {"sslmode": config.sslmode}
    if config.sslrootcert is not None:
        parameters["sslrootcert"] = config.sslrootcert
    elif config.sslmode != "require":
        parameters["sslrootcert"] = certifi.where()
    return parameters
