"""The process's clients: one for each configuration, shared by all callers."""

from __future__ import annotations

import atexit
import os
import threading

from lakebase_provider.core.client import LakebaseClient
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.errors.client_names import Names
from lakebase_provider.core.tokens.cache import TokenProvider

_shared: dict[LakebaseConfig, LakebaseClient] = {}
_shared_tokens: dict[tuple[object, ...], TokenProvider] = {}
_shared_lock = threading.Lock()


def shared_client(config: LakebaseConfig, name: str | None = None) -> LakebaseClient:
    """This process's only client for that configuration, and so one pool for all callers.

    Clients that differ only in what a token does not depend on, such as database or application name, share
    the token. The pool is closed when the interpreter ends, or earlier by :func:`close_shared_clients`.

    Args:
        config: What to connect to, and as whom.
        name: The caller's name for it, for errors: see :meth:`.LakebaseClient.known_as`.

    Raises:
        ConfigError: There are no workspace credentials. No network call has been made.
    """
    names = Names()
    if name is not None:
        names.add(name)
    with _shared_lock:
        client = _shared.get(config)
        if client is None:
            key = config.credential_key()
            with names.told():
                client = _shared[config] = LakebaseClient(config, tokens=_shared_tokens.get(key))
            _shared_tokens[key] = client.tokens
        if name is not None:
            client.known_as(name)
        return client


def shared_clients() -> tuple[LakebaseClient, ...]:
    """All clients that :func:`shared_client` has made in this process."""
    with _shared_lock:
        return tuple(_shared.values())


def close_shared_clients() -> None:
    """Close the pools of all shared clients; their tokens stay for the next use."""
    for client in shared_clients():
        client.close()


def _renew_lock_in_child() -> None:
    global _shared_lock
    _shared_lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock_in_child)
atexit.register(close_shared_clients)
