"""The TLS front end: admits clients with a valid token, then relays bytes to Postgres.

Postgres itself trusts every client of its unix socket. It cannot do this part: portable builds lack OpenSSL,
and a role has one password at a time where Lakebase accepts every unexpired token.
"""

from __future__ import annotations

import asyncio
import hmac
import socket

from lakebase_provider.local.frontend import messages
from lakebase_provider.local.frontend.channel import Channel
from lakebase_provider.local.identity.certificates import Certificates, NamedSSLObject
from lakebase_provider.local.identity.login_errors import WAKE_MODES, Refusal, refusal, scripted
from lakebase_provider.local.identity.tokens import TokenRefusedError
from lakebase_provider.local.network.waiting_room import WaitingRoom
from lakebase_provider.local.workspace.state import Workspace

#: Seconds that a client may take from connect to password; Postgres' authentication_timeout is 60.
_LOGIN_TIMEOUT = 30.0
#: Connections at a time that have not shown a password yet.
_LOGINS = 256
#: Seconds that a client may take to read why it was refused.
_FAREWELL = 5.0


class _RefusedError(Exception):
    def __init__(self, refused: Refusal) -> None:
        super().__init__(refused.text)
        self.refused = refused


class Frontend:
    """Accepts connections on loopback sockets.

    Args:
        workspace: Whom to let in, and in what state the endpoint is.
        certificates: Server side TLS.
        backend: Path of Postgres' unix socket.
    """

    def __init__(self, workspace: Workspace, certificates: Certificates, backend: str) -> None:
        self._workspace = workspace
        self._certificates = certificates
        self._backend = backend
        self._acceptors: list[asyncio.Task[None]] = []
        self._sessions: set[asyncio.Task[None]] = set()
        self._room = WaitingRoom(_LOGINS)

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
                task.add_done_callback(self._gone)
                self._room.enter(task, task.cancel, patience=_LOGIN_TIMEOUT)

    def _gone(self, session: asyncio.Task[None]) -> None:
        self._sessions.discard(session)
        self._room.leave(session)

    async def _serve(self, connection: socket.socket) -> None:
        client: Channel | None = None
        try:
            client = await self._negotiate(connection)
            if client is not None:
                await self._session(client)
        except (OSError, EOFError, ValueError):
            # The client hung up, or did not speak Postgres' protocol.
            pass
        except asyncio.CancelledError:
            if client is not None and not client.admitted:
                client.transport.abort()
            raise
        finally:
            if client is None:
                connection.close()
            else:
                client.close()
                if not client.admitted:
                    asyncio.get_running_loop().call_later(_FAREWELL, client.transport.abort)

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
                await _send(connection, messages.error(*refusal("plaintext", role="")))
            return None

    async def _start_tls(self, connection: socket.socket, *, direct: bool) -> Channel | None:
        loop = asyncio.get_running_loop()
        transport, client = await loop.connect_accepted_socket(
            Channel, connection, ssl=self._certificates.context
        )
        tls = transport.get_extra_info("ssl_object")
        assert isinstance(tls, NamedSSLObject)
        client.server_name = tls.server_name
        if direct and tls.selected_alpn_protocol() != "postgresql":
            transport.abort()
            return None
        return client

    # Behind TLS.

    async def _session(self, client: Channel) -> None:
        try:
            admitted = await self._admit(client)
            if admitted is None:
                return
            task = asyncio.current_task()
            assert task is not None
            # From here on the endpoint's wake may take as long as it is set to.
            self._room.leave(task)
            client.admitted = True
            role, startup = admitted
            backend = await self._open_backend(role, startup, client)
        except _RefusedError as error:
            self._workspace.counters.refused_logins += 1
            client.write(messages.error(*error.refused))
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
            raise self._refused("no_user")
        self._route(client, role)
        client.write(messages.CLEARTEXT_PASSWORD)
        kind, size = (head := await client.read(5))[:1], int.from_bytes(head[1:], "big")
        if kind != messages.PASSWORD or not 4 <= size <= messages.MAX_PASSWORD:
            return None
        password = (await client.read(size - 4)).rstrip(b"\0").decode(errors="replace")
        self._play_fault(role, before_password=False)
        self._check(client, role, password)
        return role, startup

    def _route(self, client: Channel, role: str) -> None:
        """Find the endpoint by the host that the client named; a password must not go elsewhere."""
        self._play_fault(role, before_password=True)
        endpoint = self._workspace.endpoint
        reason = self._workspace.refusal_at(endpoint)
        if reason is not None:
            raise self._refused(reason, role=role)
        if client.server_name in endpoint.left:
            raise self._refused(endpoint.left[client.server_name], role=role)

    def _play_fault(self, role: str, *, before_password: bool) -> None:
        fault = self._workspace.take_login_fault(before_password=before_password)
        if fault is not None:
            raise _RefusedError(scripted(fault.text, role=role))

    def _check(self, client: Channel, role: str, password: str) -> None:
        native = self._workspace.native_passwords.get(role)
        # A token is base64 with two dots; a role with a native password may use either.
        if native is not None and not password.startswith("ey"):
            if not hmac.compare_digest(native.encode(), password.encode()):
                raise self._refused("bad_password", role=role)
            return
        if (client.server_name or "").partition(".")[0].endswith("-pooler"):
            raise self._refused("pooled", role=role)
        try:
            self._workspace.tokens.check(password, role)
        except TokenRefusedError as error:
            raise self._refused(error.reason, role=role, expiry=error.expiry) from None

    async def _open_backend(self, role: str, startup: bytes, client: Channel) -> Channel:
        """Log in to Postgres, waking the endpoint first, and pass its first answers on."""
        endpoint = self._workspace.endpoint
        if endpoint.disabled:
            raise self._refused("disabled", role=role)
        if endpoint.state == "INIT":
            raise self._refused("paused", role=role)
        reason = WAKE_MODES[self._workspace.wake_mode]
        if endpoint.state == "IDLE" and reason is not None:
            endpoint.begin_wake(self._workspace)
            raise self._refused(reason, role=role)
        await endpoint.wake(self._workspace)
        if client.closed.done():
            raise EOFError
        try:
            _, backend = await asyncio.get_running_loop().create_unix_connection(Channel, self._backend)
        except OSError:
            raise self._refused("stopping", role=role) from None
        try:
            backend.write(startup)
            # Postgres answers AuthenticationOk before it looks for the role and the database; only what
            # follows tells whether the login succeeded.
            answers, kind = b"", messages.AUTHENTICATION
            while kind in (messages.AUTHENTICATION, messages.NEGOTIATE_PROTOCOL):
                kind, body, packet = await _message(backend)
                answers += packet
            if kind == messages.ERROR:
                if _says_role_missing(messages.error_fields(body)):
                    # Lakebase does not tell a stranger which roles exist.
                    raise self._refused("role_missing", role=role)
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
            # If either side ends, both do: a client that keeps a closed session takes half a minute to leave.
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

    def _refused(self, reason: str, *, role: str = "", expiry: float = 0.0) -> _RefusedError:
        style = self._workspace.login_error_style
        return _RefusedError(refusal(reason, role=role, style=style, expiry=expiry))


def _says_role_missing(fields: dict[str, str]) -> bool:
    return fields.get("C") == "28000" and fields.get("M", "").endswith("does not exist")


async def _message(channel: Channel) -> tuple[bytes, bytes, bytes]:
    """Return a message's kind, its body, and the whole of it."""
    head = await channel.read(5)
    size = int.from_bytes(head[1:], "big")
    if not 4 <= size <= messages.MAX_ANSWER:
        raise EOFError
    body = await channel.read(size - 4)
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
