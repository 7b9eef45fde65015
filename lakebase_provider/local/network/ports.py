"""Listening sockets, only on the loopback addresses."""

from __future__ import annotations

import errno
import socket

from lakebase_provider.local.contract.errors import LocalLakebaseError

_BACKLOG = 512
#: A free IPv4 port may be taken on IPv6; then another one is tried.
_ATTEMPTS = 20


def bind_loopback(port: int, *, what: str) -> list[socket.socket]:
    """Listen on 127.0.0.1 and, if the machine has it, on ::1, with the same port.

    Args:
        port: The port, or 0 for a free one.
        what: Name of the option that chose the port, for the error.

    Raises:
        LocalLakebaseError: The port is taken, or needs privileges.
    """
    for _ in range(_ATTEMPTS if port == 0 else 1):
        first = listen(socket.AF_INET, "127.0.0.1", port, what=what)
        try:
            second = listen(socket.AF_INET6, "::1", first.getsockname()[1], what=what)
        except LocalLakebaseError:
            first.close()
            if port:
                raise
            continue
        except OSError:
            return [first]
        return [first, second]
    raise LocalLakebaseError("No port is free on both 127.0.0.1 and ::1.", remedy=f"Choose one with {what}.")


def listen(family: socket.AddressFamily, address: str, port: int, *, what: str) -> socket.socket:
    """Listen at one address.

    Raises:
        LocalLakebaseError: The port is taken, or needs privileges.
        OSError: The machine has no such address.
    """
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A port that was in use seconds ago is free although old connections linger in TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise LocalLakebaseError(
                f"Port {port} on {address} is already in use.",
                remedy=f"Choose another {what}, or 0 for a free one.",
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise LocalLakebaseError(
                f"This user may not open port {port}.", remedy=f"Choose a {what} above 1023."
            ) from None
        raise
    return listener
