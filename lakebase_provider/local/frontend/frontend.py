"""The TLS front end: admits clients with a valid token, then relays bytes to Postgres.

Postgres itself trusts every client of its unix socket. It cannot do this part: portable builds lack OpenSSL,
and a role has one password at a time where Lakebase accepts every unexpired token.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
import ssl
from collections import deque

from lakebase_provider.local.contract.errors import LocalLakebaseError
from lakebase_provider.local.frontend import messages
from lakebase_provider.local.frontend.channel import Channel
from lakebase_provider.local.identity.certificates import Certificates, NamedSSLObject
from lakebase_provider.local.identity.login_errors import WAKE_MODES, Refusal, refusal, scripted
from lakebase_provider.local.identity.tokens import TokenRefusedError
from lakebase_provider.local.network import hosts
from lakebase_provider.local.network.waiting_room import WaitingRoom
from lakebase_provider.local.postgres.clusters import Clusters
from lakebase_provider.local.workspace.state import Endpoint, Workspace

#: Seconds that a client may take from connect to password; Postgres' authentication_timeout is 60.
_LOGIN_TIMEOUT = 30.0
#: Connections at a time that have not shown a password yet.
_LOGINS = 256
#: Seconds that a client may take to read why it was refused.
_FAREWELL = 5.0
#: Addresses of endpoints that are gone where logins are still told so.
_REMEMBERED = 128


class _RefusedError(Exception):
    def __init__(self, refused: Refusal) -> None:
        super().__init__(refused.text)
        self.refused = refused


class Frontend:
    """Accepts connections on loopback sockets.

    Args:
        workspace: Whom to let in, and in what state the endpoints are.
        certificates: Server side TLS.
        clusters: Where the endpoints lead to.
    """

    def __init__(self, workspace: Workspace, certificates: Certificates, clusters: Clusters) -> None:
        self._workspace = workspace
        self._certificates = certificates
        self._clusters = clusters
        self._port = 0
        self._acceptors: list[asyncio.Task[None]] = []
        self._at_hosts: dict[str, asyncio.Task[None]] = {}
        self._gone_hosts: deque[str] = deque()
        self._sessions: set[asyncio.Task[None]] = set()
        self._room = WaitingRoom(_LOGINS)

    def start(self, listeners: list[socket.socket]) -> None:
        """Accept connections, from the running loop, and those to each endpoint that appears from now on."""
        self._port = listeners[0].getsockname()[1]
        self._acceptors = [asyncio.create_task(self._accept(listener, None)) for listener in listeners]
        self._workspace.new_host = lambda: hosts.new_host(self._port)
        self._workspace.on_endpoint = self._follow

    def _follow(self, endpoint: Endpoint, appears: bool) -> None:
        """Listen at an endpoint's own addresses; at those of one that is gone for a while yet, to say so."""
        if endpoint is self._workspace.endpoint:
            return
        here = [host for host in endpoint.addresses if host in self._at_hosts]
        for host in here:
            if host in self._gone_hosts:
                self._gone_hosts.remove(host)
        if not appears:
            self._gone_hosts.extend(here)
        elif not here:
            # At both or at none: one of them may be taken.
            for listener in hosts.listen_at_all(endpoint.addresses, self._port):
                host = listener.getsockname()[0]
                self._at_hosts[host] = asyncio.create_task(self._accept(listener, host))
        while len(self._gone_hosts) > _REMEMBERED:
            former = self._gone_hosts.popleft()
            self._at_hosts.pop(former).cancel()
            self._certificates.forget(former)

    async def stop(self) -> None:
        """Close the sockets and every session."""
        tasks = [*self._acceptors, *self._at_hosts.values(), *self._sessions]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket, address: str | None) -> None:
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
                task = asyncio.create_task(self._serve(connection, address))
                self._sessions.add(task)
                task.add_done_callback(self._gone)
                self._room.enter(task, task.cancel, patience=_LOGIN_TIMEOUT)

    def _gone(self, session: asyncio.Task[None]) -> None:
        self._sessions.discard(session)
        self._room.leave(session)

    async def _serve(self, connection: socket.socket, address: str | None) -> None:
        client: Channel | None = None
        try:
            client = await self._negotiate(connection, address)
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

    async def _negotiate(self, connection: socket.socket, address: str | None) -> Channel | None:
        """Return the client behind TLS, or None where the conversation ended before."""
        context = self._certificates.context_at(address) if address else self._certificates.context
        while True:
            if await _peek(connection) == messages.TLS_HANDSHAKE:
                return await self._start_tls(connection, context, address, direct=True)
            packet = await _receive(connection, 8)
            length, code = messages.header(packet)
            if not 8 <= length <= messages.MAX_STARTUP:
                return None
            if code == messages.GSSENC_REQUEST:
                await _send(connection, b"N")
                continue
            if code == messages.SSL_REQUEST:
                await _send(connection, b"S")
                return await self._start_tls(connection, context, address, direct=False)
            packet += await _receive(connection, length - 8)
            if code == messages.CANCEL_REQUEST:
                await self._cancel(packet, self._endpoint(address, None))
            else:
                self._workspace.counters.refused_logins += 1
                await _send(connection, messages.error(*refusal("plaintext", role="")))
            return None

    async def _start_tls(
        self, connection: socket.socket, context: ssl.SSLContext, address: str | None, *, direct: bool
    ) -> Channel | None:
        loop = asyncio.get_running_loop()
        transport, client = await loop.connect_accepted_socket(Channel, connection, ssl=context)
        tls = transport.get_extra_info("ssl_object")
        assert isinstance(tls, NamedSSLObject)
        client.server_name, client.address = tls.server_name, address
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
            endpoint, role, startup = admitted
            backend = await self._open_backend(endpoint, role, startup, client)
        except _RefusedError as error:
            self._workspace.counters.refused_logins += 1
            client.write(messages.error(*error.refused))
            return
        try:
            self._workspace.session_began(endpoint)
            await self._relay(client, backend)
        finally:
            self._workspace.session_ended(endpoint)
            backend.close()

    async def _admit(self, client: Channel) -> tuple[Endpoint, str, bytes] | None:
        """Return where the client goes, the role that proved its identity, and its StartupMessage."""
        startup = await client.read(8)
        length, code = messages.header(startup)
        if not 8 <= length <= messages.MAX_STARTUP:
            return None
        startup += await client.read(length - 8)
        if code == messages.CANCEL_REQUEST:
            await self._cancel(startup, self._endpoint(client.address, client.server_name))
            return None
        role = messages.startup_parameters(startup[8:]).get("user")
        if not role:
            raise self._refused("no_user")
        endpoint = self._route(client, role)
        client.write(messages.CLEARTEXT_PASSWORD)
        kind, size = (head := await client.read(5))[:1], int.from_bytes(head[1:], "big")
        if kind != messages.PASSWORD or not 4 <= size <= messages.MAX_PASSWORD:
            return None
        password = (await client.read(size - 4)).rstrip(b"\0").decode(errors="replace")
        self._play_fault(role, before_password=False)
        self._check(client, endpoint, role, password)
        return endpoint, role, startup

    def _endpoint(self, address: str | None, server_name: str | None) -> Endpoint | None:
        """Return whose address or name that is: the first endpoint's are all that no other one has."""
        if address is not None:
            return self._workspace.endpoint_at(address)
        named = self._workspace.endpoint_at(server_name) if server_name else None
        return named or self._workspace.endpoint

    def _route(self, client: Channel, role: str) -> Endpoint:
        """Find the endpoint by the host that the client named; a password must not go elsewhere."""
        self._play_fault(role, before_password=True)
        endpoint = self._endpoint(client.address, client.server_name)
        if endpoint is None:
            raise self._refused("endpoint_missing", role=role)
        reason = self._workspace.refusal_at(endpoint)
        if reason is None and client.address is None:
            reason = endpoint.left.get(client.server_name)
        if reason is not None:
            raise self._refused(reason, role=role)
        return endpoint

    def _play_fault(self, role: str, *, before_password: bool) -> None:
        fault = self._workspace.take_login_fault(before_password=before_password)
        if fault is not None:
            raise _RefusedError(scripted(fault.text, role=role))

    def _check(self, client: Channel, endpoint: Endpoint, role: str, password: str) -> None:
        native = self._workspace.password_of(endpoint, role)
        # A token is base64 with two dots; a role with a native password may use either.
        if native is not None and not password.startswith("ey"):
            if not hmac.compare_digest(native.encode(), password.encode()):
                raise self._refused("bad_password", role=role)
            return
        if native is None and role in endpoint.branch.passwords and not password.startswith("ey"):
            raise self._refused("native_disabled", role=role)
        pooled = (client.server_name or "").partition(".")[0].endswith("-pooler")
        if pooled or client.address not in (None, endpoint.host):
            raise self._refused("pooled", role=role)
        try:
            self._workspace.tokens.check(password, role)
        except TokenRefusedError as error:
            raise self._refused(error.reason, role=role, expiry=error.expiry) from None

    async def _open_backend(self, endpoint: Endpoint, role: str, startup: bytes, client: Channel) -> Channel:
        """Log in to Postgres, waking the endpoint first, and pass its first answers on."""
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
            backend = await self._connect(endpoint)
        except KeyError:
            raise self._refused("endpoint_missing", role=role) from None
        except (OSError, LocalLakebaseError):
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

    async def _connect(self, endpoint: Endpoint) -> Channel:
        """Connect to the endpoint's cluster, started where it is stopped, as suspended ones are."""
        cluster = self._clusters.cluster(endpoint.cluster)
        if not cluster.running and cluster is not self._clusters.root:
            await asyncio.to_thread(self._clusters.start, endpoint.cluster)
        loop = asyncio.get_running_loop()
        _, backend = await loop.create_unix_connection(Channel, cluster.socket_path)
        return backend

    async def _relay(self, client: Channel, backend: Channel) -> None:
        self._workspace.counters.open_connections += 1
        try:
            client.relay_to(backend)
            backend.relay_to(client)
            # If either side ends, both do: a client that keeps a closed session takes half a minute to leave.
            await asyncio.wait({client.closed, backend.closed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._workspace.counters.open_connections -= 1

    async def _cancel(self, packet: bytes, endpoint: Endpoint | None) -> None:
        """Pass a CancelRequest on; Postgres judges the key and answers by hanging up."""
        self._workspace.counters.cancels += 1
        if endpoint is None:
            return
        path = self._clusters.cluster(endpoint.cluster).socket_path
        reader, writer = await asyncio.open_unix_connection(path)
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
