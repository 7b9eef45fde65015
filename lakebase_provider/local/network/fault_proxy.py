"""A TCP proxy that misbehaves on command: a slow, silent, cut or refused link to a database."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from lakebase_provider.local.network.ports import bind_loopback

if TYPE_CHECKING:
    from types import TracebackType

Direction = Literal["to_server", "to_client"]

T = TypeVar("T")

_CHUNK = 1 << 16
#: Closing a socket that lingers for 0 seconds sends RST instead of FIN.
_RST = struct.pack("ii", 1, 0)


@dataclass
class ProxyCounters:
    """What a :class:`FaultProxy` saw since its start.

    Attributes:
        connections: Connections that clients made.
        open_connections: Those that are open now.
        bytes_to_server: Bytes passed on to the server.
        bytes_to_client: Bytes passed on to clients.
        bytes_swallowed: Bytes received and not passed on.
        cuts: Connections that :meth:`FaultProxy.reset` and :meth:`FaultProxy.cut_after` ended.
    """

    connections: int = 0
    open_connections: int = 0
    bytes_to_server: int = 0
    bytes_to_client: int = 0
    bytes_swallowed: int = 0
    cuts: int = 0


class FaultProxy:
    """Forwards connections to a server until told to misbehave; works for any protocol over TCP.

    It runs in its own thread and listens on loopback. Methods may be called from any thread; each has taken
    effect when it returns. Faults stay until :meth:`heal`.

    Args:
        host: The server's host.
        port: The server's port.

    Example:
        >>> with FaultProxy(lake.host, lake.port) as proxy:  # doctest: +SKIP
        ...     client = LakebaseClient(lake.config(port=proxy.port))
        ...     proxy.swallow()
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._loop = asyncio.new_event_loop()
        self._counters = ProxyCounters()
        self._links: set[_Link] = set()
        self._delay = 0.0
        self._silent = False
        self._cut: _Cut | None = None
        self._acceptors: list[asyncio.Task[None]] = []
        self._thread: threading.Thread | None = None
        self._port = 0

    def __enter__(self) -> FaultProxy:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port that clients connect to, on 127.0.0.1 and, where the machine has it, ::1."""
        return self._port

    def start(self) -> None:
        """Listen. A proxy is started once."""
        listeners = bind_loopback(0, what="port")
        self._port = listeners[0].getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._thread.start()
        self._do(lambda: self._listen(listeners))

    def stop(self) -> None:
        """Close every connection, and leave no thread and no socket."""
        if self._thread is None:
            return
        self._await(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._thread = None
        self._loop.close()

    @property
    def counters(self) -> ProxyCounters:
        """A copy of the counters."""
        if self._thread is None:
            return replace(self._counters)
        return self._do(lambda: replace(self._counters, open_connections=len(self._links)))

    def delay(self, seconds: float) -> None:
        """Delay everything that is sent, each way, for this long; a round trip takes twice that."""
        self._do(lambda: setattr(self, "_delay", seconds))

    def swallow(self, *, existing: bool = True, new: bool = True) -> None:
        """Go silent: take all bytes and pass none on, like a network that drops packets.

        Args:
            existing: Silence the connections that are open.
            new: Silence future ones; they are accepted, but the server never sees them.
        """
        self._do(lambda: self._swallow(existing, new))

    def reset(self) -> None:
        """End all open connections with RST, to client and server; new ones are accepted."""
        self._await(self._reset())

    def cut_after(self, size: int, *, direction: Direction = "to_server") -> None:
        """Let this many more bytes pass, over all connections, then end the connection with RST.

        Anything beyond is dropped. With 0 bytes `to_client` the server's next answer is lost, such as the
        acknowledgement of a COMMIT that took place. It happens once; later connections are not affected.

        Args:
            size: Bytes that still pass.
            direction: In which direction they are counted: `to_server` or `to_client`.
        """
        self._do(lambda: setattr(self, "_cut", _Cut(direction, size)))

    def refuse(self) -> None:
        """Refuse new connections ("connection refused"); open ones continue."""
        self._await(self._stop_listening())

    def heal(self) -> None:
        """Clear all faults. A connection that has lost bytes cannot continue, and is ended with RST."""
        self._await(self._heal())

    # In the loop's thread.

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _listen(self, listeners: list[socket.socket]) -> None:
        self._acceptors = [self._loop.create_task(self._accept(listener)) for listener in listeners]

    async def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                try:
                    connection, _ = await self._loop.sock_accept(listener)
                except OSError:
                    # Out of file descriptors, or gone before it was accepted.
                    await asyncio.sleep(0.05)
                    continue
                self._counters.connections += 1
                connection.setblocking(False)
                link = _Link(self, connection, silent=self._silent)
                self._links.add(link)
                link.task = self._loop.create_task(self._serve(link))

    async def _serve(self, link: _Link) -> None:
        try:
            await link.run()
        except (OSError, _CutError):
            # Either side is gone, or is to be gone: the other one notices the closed connection.
            pass
        finally:
            link.close()
            self._links.discard(link)

    async def connect(self) -> socket.socket:
        """Connect to the server, whose addresses are tried in turn."""
        host, port = self._server
        last: OSError | None = None
        for family, kind, _, _, address in await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            server = socket.socket(family, kind)
            server.setblocking(False)
            try:
                await self._loop.sock_connect(server, address)
            except OSError as error:
                last = error
                server.close()
            except BaseException:
                server.close()
                raise
            else:
                return server
        raise last or ConnectionError(f"{host} has no address")

    async def forward(self, link: _Link, data: bytes, to: socket.socket, direction: Direction) -> None:
        """Pass a chunk on, as the faults allow."""
        if self._delay:
            await asyncio.sleep(self._delay)
        if link.silent:
            link.lossy = True
            self._counters.bytes_swallowed += len(data)
            return
        cut, kept = self._cut, len(data)
        if cut is not None and cut.direction == direction:
            kept = min(cut.left, kept)
            cut.left -= kept
        await self._loop.sock_sendall(to, data[:kept])
        if direction == "to_server":
            self._counters.bytes_to_server += kept
        else:
            self._counters.bytes_to_client += kept
        if kept < len(data):
            self._counters.bytes_swallowed += len(data) - kept
            self._counters.cuts += 1
            self._cut = None
            link.rst = True
            raise _CutError

    def _swallow(self, existing: bool, new: bool) -> None:
        self._silent = self._silent or new
        for link in self._links if existing else ():
            link.silent = True

    async def _reset(self) -> None:
        self._counters.cuts += len(self._links)
        await self._end_links(set(self._links), rst=True)

    async def _end_links(self, links: set[_Link], *, rst: bool) -> None:
        for link in links:
            link.rst = rst
            link.task.cancel()
        await asyncio.gather(*(link.task for link in links), return_exceptions=True)
        for link in links:
            # A task that was cancelled before its first step has closed nothing.
            link.close()
            self._links.discard(link)

    async def _heal(self) -> None:
        self._delay, self._silent, self._cut = 0.0, False, None
        await self._end_links({link for link in self._links if link.lossy}, rst=True)
        for link in self._links:
            link.silent = False
        if not self._acceptors:
            self._listen(bind_loopback(self._port, what="port"))

    async def _stop_listening(self) -> None:
        acceptors, self._acceptors = self._acceptors, []
        for task in acceptors:
            task.cancel()
        await asyncio.gather(*acceptors, return_exceptions=True)

    async def _end(self) -> None:
        await self._stop_listening()
        await self._end_links(set(self._links), rst=False)
        await self._loop.shutdown_default_executor()

    # From other threads.

    def _do(self, action: Callable[[], T]) -> T:
        self._check_running()
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(action())
            except BaseException as error:
                done.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return done.result()

    def _await(self, coroutine: Coroutine[object, object, None]) -> None:
        try:
            self._check_running()
        except RuntimeError:
            coroutine.close()
            raise
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _check_running(self) -> None:
        if self._thread is None:
            raise RuntimeError("The proxy is not running; use it in a `with` block.")


class _CutError(Exception):
    """The connection was cut on purpose."""


@dataclass
class _Cut:
    direction: Direction
    left: int


class _Link:
    """A client's connection, and the one to the server that belongs to it."""

    task: asyncio.Task[None]

    def __init__(self, proxy: FaultProxy, client: socket.socket, *, silent: bool) -> None:
        self._proxy = proxy
        self._client = client
        self._server: socket.socket | None = None
        self.silent = silent
        self.lossy = silent
        self.rst = False

    async def run(self) -> None:
        """Pass bytes on until either side has hung up."""
        if self.silent:
            # Nothing reaches the server, not even the connection itself.
            await self._pump(self._client, self._client, "to_server")
            return
        self._server = await self._proxy.connect()
        pumps = {
            asyncio.ensure_future(self._pump(self._client, self._server, "to_server")),
            asyncio.ensure_future(self._pump(self._server, self._client, "to_client")),
        }
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in done:
                pump.result()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, source: socket.socket, to: socket.socket, direction: Direction) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(source, _CHUNK):
            await self._proxy.forward(self, data, to, direction)
        # A silent link does not tell the client that the server hung up.
        while self.silent and direction == "to_client":
            await asyncio.sleep(3600)

    def close(self) -> None:
        """Close both sides now."""
        for side in (self._client, self._server):
            if side is not None:
                if self.rst:
                    with contextlib.suppress(OSError):
                        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
                side.close()
