"""A Postgres that speaks the protocol over TLS, and whose COPY data and descriptions can be anything."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trustme
from psycopg import postgres

from lakebase_provider.core import LakebaseConfig
from lakebase_provider.local.frontend import messages


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def description(*columns: tuple[bytes, int, int]) -> bytes:
    """A RowDescription of columns with name, type's OID and type's modifier."""
    body = struct.pack("!h", len(columns))
    for name, oid, modifier in columns:
        body += name + b"\0" + struct.pack("!ihihih", 0, 0, oid, -1, modifier, 0)
    return message(b"T", body)


def of_types(*kinds: str) -> bytes:
    """A RowDescription of columns ``c0``, ``c1``, … of types by name."""
    found = []
    for number, kind in enumerate(kinds):
        info = postgres.types[kind.removesuffix("[]")]
        oid = info.array_oid if kind.endswith("[]") else info.oid
        found.append((b"c%d" % number, oid, -1))
    return description(*found)


class LyingServer:
    """Serves on loopback until it is closed.

    Attributes:
        described: What it answers when it is asked for a query's columns.
        copied: The bodies of the CopyData messages that it answers a COPY with; bytes are sent as they are.
        refusal: An ErrorResponse to any statement but those that begin a transaction.
        rows: What it answers any other statement but those about the transaction and settings with.
    """

    def __init__(self, folder: Path) -> None:
        self.described = of_types("int4")
        self.copied: Sequence[bytes] | bytes = []
        self.rows = self.refusal = b""
        authority = trustme.CA()
        self._ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self._ca))
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self._tls)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def config(self) -> LakebaseConfig:
        host, port = self._socket.getsockname()
        return LakebaseConfig(
            auth="password",
            host=host,
            port=port,
            user="ada",
            password="a-password",
            database="databricks_postgres",
            sslrootcert=str(self._ca),
        )

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), connection:
            connection.settimeout(20)
            _read(connection, 8)
            connection.sendall(b"S")
            with self._tls.wrap_socket(connection, server_side=True) as stream:
                self._session(stream)

    def _session(self, stream: ssl.SSLSocket) -> None:
        length, code = messages.header(_read(stream, 8))
        if code == messages.CANCEL_REQUEST:
            return
        _read(stream, length - 8)
        stream.sendall(messages.CLEARTEXT_PASSWORD)
        query = b""
        while True:
            kind, length = struct.unpack("!ci", _read(stream, 5))
            body = _read(stream, length - 4)
            if kind == messages.PASSWORD:
                settings = (b"client_encoding\0UTF8\0", b"server_version\x0017.0\0", b"DateStyle\0ISO, MDY\0")
                stream.sendall(
                    message(messages.AUTHENTICATION, struct.pack("!i", 0))
                    + b"".join(message(b"S", setting) for setting in settings)
                    + message(b"K", bytes(8))
                    + message(b"Z", b"I")
                )
            elif kind == b"X":
                return
            elif kind == b"Q":
                stream.sendall(self._answer(body))
            elif kind == b"P":
                query = body.split(b"\0", 1)[1]
            elif kind == b"S":  # at the end of parse, bind, describe and execute, which come at once
                stream.sendall(message(b"1") + message(b"2") + self._answer(query))

    def _answer(self, query: bytes) -> bytes:
        word = query.split(None, 1)[0].rstrip(b"\0").upper()
        if self.refusal and word not in (b"BEGIN", b"SET"):
            return self.refusal + message(b"Z", b"I" if word in (b"COMMIT", b"ROLLBACK") else b"E")
        if word == b"COPY":
            begin = message(b"H", struct.pack("!bh", 1, 0))
            if isinstance(self.copied, bytes):
                data = self.copied
            else:
                data = b"".join(message(b"d", body) for body in self.copied) + message(b"c")
            found = begin + data + message(b"C", b"COPY 1\0")
        elif b"LIMIT 0" in query:
            found = self.described + message(b"C", b"SELECT 0\0")
        elif word in (b"BEGIN", b"COMMIT", b"ROLLBACK", b"SET", b"RESET", b"DISCARD"):
            found = message(b"C", word + b"\0")
        else:
            found = (self.rows or description()) + message(b"C", b"SELECT 0\0")
        return found + message(b"Z", b"I" if word in (b"COMMIT", b"ROLLBACK") else b"T")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(30)

    def __enter__(self) -> LyingServer:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _read(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = stream.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data
