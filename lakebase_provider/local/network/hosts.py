"""Addresses of this machine for endpoints: each has two of its own, for libpq names no host to an address.

The first one is even and the endpoint's, the next one is its pooler's. Names below `localhost` would not do:
glibc does not resolve them.
"""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import socket

from lakebase_provider.local.contract.errors import LocalLakebaseError
from lakebase_provider.local.network.ports import listen

#: On Linux all of 127/8 is this machine; what begins with 127.0 has other uses, and the last one is for all.
_FIRST, _LAST = (int(ipaddress.IPv4Address(address)) for address in ("127.1.0.0", "127.255.255.252"))
_ATTEMPTS = 20


def new_host(port: int) -> str:
    """Return a loopback address at which nobody listens at a port, nor at its pooler's.

    Raises:
        LocalLakebaseError: This machine has but one loopback address.
    """
    for _ in range(_ATTEMPTS):
        address = str(ipaddress.IPv4Address(_FIRST + 2 * secrets.randbelow((_LAST - _FIRST) // 2)))
        try:
            for listener in listen_at_all([address, pooler_at(address) or address], port):
                listener.close()
        except LocalLakebaseError:
            continue
        except OSError:
            break
        return address
    raise LocalLakebaseError(
        "This machine has no further loopback address for an endpoint of its own.",
        remedy="Use Linux, where all of 127.0.0.0/8 leads to the machine itself.",
    )


def pooler_at(host: str) -> str | None:
    """Return the address of the pooler of an endpoint at an address of its own; None for any other host."""
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        return None
    return str(address + 1) if _FIRST <= int(address) <= _LAST else None


def listen_at_all(addresses: list[str], port: int) -> list[socket.socket]:
    """Listen at all of an endpoint's addresses, or at none.

    Raises:
        LocalLakebaseError: The port is taken at one of them.
        OSError: The machine has no such address.
    """
    with contextlib.ExitStack() as stack:
        listeners = [
            stack.enter_context(listen(socket.AF_INET, address, port, what="port")) for address in addresses
        ]
        stack.pop_all()
        return listeners
