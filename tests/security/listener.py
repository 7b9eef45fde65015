"""Somebody else's server on loopback: it writes down all that it is sent."""

from __future__ import annotations

import contextlib
import socket
import threading


class Listener:
    """Accepts connections on an address of loopback and keeps every byte; answers nothing and hangs up."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.received: list[bytes] = []
        self._socket = socket.create_server((address, 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(0.2)
                data = b""
                with contextlib.suppress(OSError):
                    while piece := connection.recv(65536):
                        data += piece
                self.received.append(data)

    def close(self) -> None:
        # Closing alone does not wake who waits in accept().
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.close()
