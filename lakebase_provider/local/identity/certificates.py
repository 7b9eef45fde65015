"""The certificate authority of a local Lakebase, and its server's certificate."""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from lakebase_provider.local.contract import private_files
from lakebase_provider.local.identity import authorities

if TYPE_CHECKING:
    import trustme

#: Bytes.
_KEY_FILE_LIMIT = 65_536
_ALWAYS_NAMED = ("localhost", "127.0.0.1", "::1")

#: Kinds of certificate that the front end can show.
KINDS = ("valid", "expired", "other_host", "other_authority")


class NamedSSLObject(ssl.SSLObject):
    """A server's side of TLS that remembers for which name the client came (SNI)."""

    server_name: str | None = None


class Certificates:
    """What the TLS front end serves with, and the file that clients verify it by (`sslrootcert`).

    Args:
        authority: Signs the server's certificates.
        names: Names and addresses that a valid one is for.
        bundle: File with the authority's certificate.

    Attributes:
        context: For the next connection.
    """

    def __init__(self, authority: trustme.CA, names: tuple[str, ...], bundle: Path) -> None:
        self._authority = authority
        self._names = names
        self.bundle = bundle
        self._kind = "valid"
        self._at_hosts: dict[str, ssl.SSLContext] = {}
        self._valid = self.context = self._issue("valid", names)

    def show(self, kind: str) -> None:
        """Serve with a certificate of that kind from the next connection on.

        Args:
            kind: One of :data:`KINDS`.

        Raises:
            ValueError: It is none of them.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown kind of certificate {kind!r}: use one of {', '.join(KINDS)}")
        self._kind = kind
        self._at_hosts.clear()
        self.context = self._valid if kind == "valid" else self._issue(kind, self._names)

    def context_at(self, host: str) -> ssl.SSLContext:
        """Return what the next connection at an endpoint's own address gets.

        Args:
            host: A loopback address.
        """
        if host not in self._at_hosts:
            self._at_hosts[host] = self._issue(self._kind, (host,))
        return self._at_hosts[host]

    def forget(self, host: str) -> None:
        """Nobody will connect to an address any more."""
        self._at_hosts.pop(host, None)

    def _issue(self, kind: str, names: tuple[str, ...]) -> ssl.SSLContext:
        authority = authorities.create(self._names) if kind == "other_authority" else self._authority
        if kind == "other_host":
            # Below `localhost`, for the authority may sign for no other name than those it is for.
            names = ("somebody-else.localhost",)
        now = datetime.now(timezone.utc)
        began, ended = (
            (now - timedelta(days=2), now - timedelta(days=1)) if kind == "expired" else (None, None)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # libpq with sslnegotiation=direct insists on this answer.
        context.set_alpn_protocols(["postgresql"])
        context.sslobject_class = NamedSSLObject
        context.sni_callback = _remember_name
        authority.issue_cert(*names, not_before=began, not_after=ended).configure_cert(context)
        return context


def _remember_name(side: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
    if isinstance(side, NamedSSLObject):
        side.server_name = name


def pooled_name(host: str) -> str:
    """Return the name of a host's connection pooler: `-pooler` after the first label."""
    if host.replace(".", "").isdigit() or ":" in host:
        host = "localhost"  # An address has no labels, and clients send no name to one.
    first, dot, rest = host.partition(".")
    return f"{first}-pooler{dot}{rest}"


def issue(folder: Path, host: str, *, keep: bool) -> Certificates:
    """Issue a server certificate for `host`, `localhost`, both loopback addresses and the pooled hosts.

    Args:
        folder: Where the authority's public certificate is written, as `ca.pem`.
        host: Name that clients connect to.
        keep: True to keep the authority's key in `folder` as well, and to use the one kept before: then
            `sslrootcert` stays valid over restarts.

    Raises:
        LocalLakebaseError: What was kept cannot be read, or others can read it.
    """
    direct = (host, *_ALWAYS_NAMED)
    names = tuple(dict.fromkeys((*direct, *map(pooled_name, direct))))
    authority = _kept_authority(folder, names) if keep else authorities.create(names)
    bundle = folder / "ca.pem"
    _write(bundle, authority.cert_pem.bytes(), mode=0o644)
    return Certificates(authority, names, bundle)


def _kept_authority(folder: Path, names: tuple[str, ...]) -> trustme.CA:
    private_files.own_folder(folder, remedy="Set XDG_DATA_HOME to a folder that you own.")
    key_file = folder / "authority.pem"
    kept = _read_authority(key_file)
    if kept is None or not authorities.is_good_for(kept, names):
        authority = authorities.create(names)
        pem = authority.private_key_pem.bytes() + authority.cert_pem.bytes()
        # One that may sign for less, or more, than is served makes way; of two processes that find none and
        # start together, the first one's authority is kept.
        _write(key_file, pem, mode=0o600, replace=kept is not None)
        kept = _read_authority(key_file)
        assert kept is not None
    return kept


def _read_authority(key_file: Path) -> trustme.CA | None:
    import trustme

    mark = b"-----BEGIN CERTIFICATE-----"
    try:
        content = private_files.read(key_file, limit=_KEY_FILE_LIMIT, private=True)
    except FileNotFoundError:
        return None
    key, _, certificate = content.partition(mark)
    return trustme.CA.from_pem(cert_bytes=mark + certificate, private_key_bytes=key)


def _write(path: Path, content: bytes, *, mode: int, replace: bool = True) -> None:
    """Write a file in one step: a reader sees the old one or the whole new one."""
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
        if replace:
            temporary.replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)
