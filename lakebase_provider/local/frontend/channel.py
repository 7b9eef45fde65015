"""One end of a proxied connection: read message by message during login, relayed untouched afterwards."""

from __future__ import annotations

import asyncio

#: Bytes that may wait for a slow reader before the faster side is paused.
_HIGH_WATER = 1 << 20
#: Bytes that a client may send unasked.
_LOGIN_LIMIT = 1 << 17


class Channel(asyncio.Protocol):
    """A stream that starts as an awaitable reader and ends as half of a relay.

    The relay is two of these that write into each other's transport from `data_received`: no task, no copy.
    """

    transport: asyncio.Transport
    #: The name that the client asked for when it began TLS; None where it asked for an address.
    server_name: str | None = None
    #: The address that it connected to, if an endpoint has it for its own.
    address: str | None = None
    #: Whether it has proved to be of a role that may log in.
    admitted = False

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._wanted: asyncio.Future[None] | None = None
        self._eof = False
        self._peer: Channel | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def read(self, size: int) -> bytes:
        """Return exactly `size` bytes.

        Raises:
            EOFError: The other side hung up first.
        """
        while len(self._buffer) < size:
            if self._eof:
                raise EOFError
            self._wanted = asyncio.get_running_loop().create_future()
            await self._wanted
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def write(self, data: bytes) -> None:
        """Send, unless the connection is closing."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def close(self) -> None:
        """Close after what was written has been sent."""
        self.transport.close()

    def relay_to(self, peer: Channel) -> None:
        """From now on forward everything to `peer`, beginning with what was read ahead."""
        self._peer = peer
        if self._buffer:
            peer.write(bytes(self._buffer))
            self._buffer.clear()
        if self._eof:
            peer.close()
        elif not self.transport.is_closing():
            self.transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=_HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if self._peer is not None:
            self._peer.write(data)
            return
        self._buffer += data
        if len(self._buffer) > _LOGIN_LIMIT:
            self.transport.pause_reading()
        self._wake_reader()

    def eof_received(self) -> bool:
        """Called by asyncio."""
        self._hung_up()
        # False: asyncio closes the transport once its own data is sent. A client that has ended its side
        # waits for nothing more, in Postgres' protocol.
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._hung_up()
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        """Called by asyncio: this side's reader is slow, so hold the other side's writer."""
        if self._peer is not None and not self._peer.transport.is_closing():
            self._peer.transport.pause_reading()

    def resume_writing(self) -> None:
        """Called by asyncio: the reader has caught up."""
        if self._peer is not None and not self._peer.transport.is_closing():
            self._peer.transport.resume_reading()

    def _hung_up(self) -> None:
        self._eof = True
        self._wake_reader()
        if self._peer is not None:
            self._peer.close()

    def _wake_reader(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)
