"""Addresses of this machine for endpoints: each has one of its own, for libpq names no host to an address.

Names below `localhost` would not do: glibc does not resolve them.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket

from lakebase_provider.local.contract.errors import LocalLakebaseError
from lakebase_provider.local.network.ports import listen

#: On Linux all of 127/8 is this machine; what begins with 127.0 has other uses.
_FIRST, _LAST = (int(ipaddress.IPv4Address(address)) for address in ("127.1.0.1", "127.255.255.254"))
_ATTEMPTS = 20


def new_host(port: int) -> str:
    """Return a loopback address at which nobody listens at a port.

    Raises:
        LocalLakebaseError: This machine has but one loopback address.
    """
    for _ in range(_ATTEMPTS):
        address = str(ipaddress.IPv4Address(_FIRST + secrets.randbelow(_LAST - _FIRST)))
        try:
            listen_at(address, port).close()
        except LocalLakebaseError:
            continue
        except OSError:
            break
        return address
    raise LocalLakebaseError(
        "This machine has no further loopback address for an endpoint of its own.",
        remedy="Use Linux, where all of 127.0.0.0/8 leads to the machine itself.",
    )


def listen_at(host: str, port: int) -> socket.socket:
    """Listen at an endpoint's address."""
    return listen(socket.AF_INET, host, port, what="port")
