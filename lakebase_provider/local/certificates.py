"""The certificate authority of a local Lakebase, and its server's certificate."""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trustme

_ALWAYS_NAMED = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Certificates:
    """What the TLS front end serves with, and the file that clients verify it by (`sslrootcert`)."""

    context: ssl.SSLContext
    bundle: Path


def issue(folder: Path, host: str, *, keep: bool) -> Certificates:
    """Issue a server certificate for `host`, `localhost` and both loopback addresses.

    Args:
        folder: Where the authority's public certificate is written, as `ca.pem`.
        host: Name that clients connect to.
        keep: True to keep the authority's key in `folder` as well, and to use the one kept before: then
            `sslrootcert` stays valid over restarts.
    """
    authority = _kept_authority(folder) if keep else _new_authority()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # libpq with sslnegotiation=direct insists on this answer.
    context.set_alpn_protocols(["postgresql"])
    authority.issue_cert(*dict.fromkeys((host, *_ALWAYS_NAMED))).configure_cert(context)
    bundle = folder / "ca.pem"
    _write(bundle, authority.cert_pem.bytes(), mode=0o644)
    return Certificates(context, bundle)


def _new_authority() -> trustme.CA:
    import trustme

    return trustme.CA(organization_name="lakebase-provider", organization_unit_name="local Lakebase")


def _kept_authority(folder: Path) -> trustme.CA:
    import trustme

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key_file, mark = folder / "authority.pem", b"-----BEGIN CERTIFICATE-----"
    if not key_file.exists():
        authority = _new_authority()
        _write(
            key_file,
            authority.private_key_pem.bytes() + authority.cert_pem.bytes(),
            mode=0o600,
            replace=False,
        )
    # Read even after writing: of two processes that start together, the first one's authority is kept.
    key, _, certificate = key_file.read_bytes().partition(mark)
    return trustme.CA.from_pem(cert_bytes=mark + certificate, private_key_bytes=key)


def _write(path: Path, content: bytes, *, mode: int, replace: bool = True) -> None:
    """Write a file in one step: a reader sees the old one or the whole new one."""
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        temporary.chmod(mode)
        if replace:
            temporary.replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)
