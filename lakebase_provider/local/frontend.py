"""The TLS front end: lets in who holds a valid token, then relays bytes to Postgres.

Postgres itself trusts whoever reaches its unix socket. It cannot do this part: portable builds lack
OpenSSL, and a role has one password at a time where Lakebase accepts every unexpired token.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
import ssl

from lakebase_provider.local import messages
from lakebase_provider.local.channel import Channel
from lakebase_provider.local.login_errors import refusal
from lakebase_provider.local.state import Workspace
from lakebase_provider.local.tokens import TokenRefusedError

#: Seconds that a client may take from connect to password, as Postgres' authentication_timeout.
_LOGIN_TIMEOUT = 60.0


class _RefusedError(Exception):
    def __init__(self, reason: str, *, role: str = "", expiry: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.role, self.expiry = reason, role, expiry


class Frontend:
    """Accepts connections on loopback sockets.

    Args:
        workspace: Whom to let in, and in what state the endpoint is.
        context: Server side TLS.
        backend: Path of Postgres' unix socket.
    """

    def __init__(self, workspace: Workspace, context: ssl.SSLContext, backend: str) -> None:
        self._workspace = workspace
        self._context = context
        self._backend = backend
        self._acceptors: list[asyncio.Task[None]] = []
        self._sessions: set[asyncio.Task[None]] = set()

    def start(self, listeners: list[socket.socket]) -> None:
        """Accept connections, from the running loop."""
        self._acceptors = [asyncio.create_task(self._accept(listener)) for listener in listeners]

    async def stop(self) -> None:
        """Close the sockets and every session."""
        tasks = [*self._acceptors, *self._sessions]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError:
                    # Out of file descriptors, or gone before it was accepted: neither may end the service.
                    await asyncio.sleep(0.05)
                    continue
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                task = asyncio.create_task(self._serve(connection))
                self._sessions.add(task)
                task.add_done_callback(self._sessions.discard)

    async def _serve(self, connection: socket.socket) -> None:
        client: Channel | None = None
        try:
            client = await asyncio.wait_for(self._negotiate(connection), _LOGIN_TIMEOUT)
            if client is not None:
                await self._session(client)
        except (OSError, EOFError, ValueError, asyncio.TimeoutError):
            # The client hung up, spoke something else than Postgres, or took too long.
            pass
        finally:
            if client is not None:
                client.close()
            else:
                connection.close()

    # Before TLS.

    async def _negotiate(self, connection: socket.socket) -> Channel | None:
        """Return the client behind TLS, or None where the conversation ended before."""
        while True:
            if await _peek(connection) == messages.TLS_HANDSHAKE:
                return await self._start_tls(connection, direct=True)
            packet = await _receive(connection, 8)
            length, code = messages.header(packet)
            if not 8 <= length <= messages.MAX_STARTUP:
                return None
            if code == messages.GSSENC_REQUEST:
                await _send(connection, b"N")
                continue
            if code == messages.SSL_REQUEST:
                await _send(connection, b"S")
                return await self._start_tls(connection, direct=False)
            packet += await _receive(connection, length - 8)
            if code == messages.CANCEL_REQUEST:
                await self._cancel(packet)
            else:
                self._workspace.counters.refused_logins += 1
                await _send(connection, self._error(_RefusedError("plaintext")))
            return None

    async def _start_tls(self, connection: socket.socket, *, direct: bool) -> Channel | None:
        loop = asyncio.get_running_loop()
        transport, client = await loop.connect_accepted_socket(Channel, connection, ssl=self._context)
        tls = transport.get_extra_info("ssl_object")
        if direct and tls.selected_alpn_protocol() != "postgresql":
            transport.abort()
            return None
        return client

    # Behind TLS.

    async def _session(self, client: Channel) -> None:
        try:
            admitted = await asyncio.wait_for(self._admit(client), _LOGIN_TIMEOUT)
            if admitted is None:
                return
            role, startup = admitted
            backend = await self._open_backend(role, startup, client)
        except _RefusedError as refused:
            self._workspace.counters.refused_logins += 1
            client.write(self._error(refused))
            return
        try:
            await self._relay(client, backend)
        finally:
            backend.close()

    async def _admit(self, client: Channel) -> tuple[str, bytes] | None:
        """Return the role that proved its identity, and its StartupMessage."""
        startup = await client.read(8)
        length, code = messages.header(startup)
        if not 8 <= length <= messages.MAX_STARTUP:
            return None
        startup += await client.read(length - 8)
        if code == messages.CANCEL_REQUEST:
            await self._cancel(startup)
            return None
        role = messages.startup_parameters(startup[8:]).get("user")
        if not role:
            raise _RefusedError("no_user")
        client.write(messages.CLEARTEXT_PASSWORD)
        kind, size = (head := await client.read(5))[:1], int.from_bytes(head[1:], "big")
        if kind != messages.PASSWORD or not 4 <= size <= messages.MAX_PASSWORD:
            return None
        password = (await client.read(size - 4)).rstrip(b"\0").decode(errors="replace")
        self._check(role, password)
        return role, startup

    def _check(self, role: str, password: str) -> None:
        native = self._workspace.native_passwords.get(role)
        # A token is base64 with two dots; a role with a native password may use either.
        if native is not None and not password.startswith("ey"):
            if not hmac.compare_digest(native.encode(), password.encode()):
                raise _RefusedError("bad_password", role=role)
            return
        try:
            self._workspace.tokens.check(password, role)
        except TokenRefusedError as refused:
            raise _RefusedError(refused.reason, role=role, expiry=refused.expiry) from None

    async def _open_backend(self, role: str, startup: bytes, client: Channel) -> Channel:
        """Log in to Postgres, waking the endpoint first, and pass its first answers on."""
        endpoint = self._workspace.endpoint
        if endpoint.disabled:
            raise _RefusedError("disabled", role=role)
        await endpoint.wake(self._workspace)
        if client.closed.done():
            raise EOFError
        try:
            _, backend = await asyncio.get_running_loop().create_unix_connection(Channel, self._backend)
        except OSError:
            raise _RefusedError("stopping", role=role) from None
        try:
            backend.write(startup)
            # Postgres answers AuthenticationOk before it looks for the role and the database; only what
            # follows tells whether the login succeeded.
            answers, kind = b"", messages.AUTHENTICATION
            while kind in (messages.AUTHENTICATION, messages.NEGOTIATE_PROTOCOL):
                kind, body, packet = await _message(backend)
                answers += packet
            if kind == messages.ERROR:
                _hide_missing_role(messages.error_fields(body), role)
                # Without AuthenticationOk: some clients would take it for a login.
                answers = packet
                self._workspace.counters.refused_logins += 1
            else:
                self._workspace.counters.logins += 1
            client.write(answers)
            return backend
        except BaseException:
            backend.close()
            raise

    async def _relay(self, client: Channel, backend: Channel) -> None:
        self._workspace.counters.open_connections += 1
        try:
            client.relay_to(backend)
            backend.relay_to(client)
            # Either end is the end: a client that lets a closed session lie about takes half a minute to go.
            await asyncio.wait({client.closed, backend.closed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._workspace.counters.open_connections -= 1

    async def _cancel(self, packet: bytes) -> None:
        """Pass a CancelRequest on; Postgres judges the key and answers by hanging up."""
        self._workspace.counters.cancels += 1
        reader, writer = await asyncio.open_unix_connection(self._backend)
        try:
            writer.write(packet)
            await reader.read()
        finally:
            writer.close()

    def _error(self, refused: _RefusedError) -> bytes:
        style = self._workspace.login_error_style
        return messages.error(*refusal(refused.reason, role=refused.role, style=style, expiry=refused.expiry))


def _hide_missing_role(fields: dict[str, str], role: str) -> None:
    # Lakebase does not tell a stranger which roles exist.
    if fields.get("C") == "28000" and fields.get("M", "").endswith("does not exist"):
        raise _RefusedError("role_missing", role=role)


async def _message(channel: Channel) -> tuple[bytes, bytes, bytes]:
    """Return a message's kind, its body, and the whole of it."""
    head = await channel.read(5)
    body = await channel.read(int.from_bytes(head[1:], "big") - 4)
    return head[:1], body, head + body


async def _peek(connection: socket.socket) -> bytes:
    """Return the first byte without taking it, for TLS must see it too."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _resolve, readable)
    try:
        await readable
    finally:
        loop.remove_reader(connection)
    first = connection.recv(1, socket.MSG_PEEK)
    if not first:
        raise EOFError
    return first


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _receive(connection: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        part = await loop.sock_recv(connection, size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


async def _send(connection: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(connection, data)
