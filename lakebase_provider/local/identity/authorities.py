"""A certificate authority that can sign only for this machine's names."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trustme
    from cryptography import x509

_LIFETIME = timedelta(days=3650)
#: One that is about to expire is replaced.
_LEAST_LEFT = timedelta(days=30)
#: All addresses that lead to this machine alone.
_LOOPBACK = ("127.0.0.0/8", "::1/128")


def create(names: Sequence[str]) -> trustme.CA:
    """Create an authority whose certificates are valid only for loopback addresses and a few names.

    Trusting it for the local Lakebase, or system-wide, means trusting it for nothing else, even if its key is
    stolen.

    Args:
        names: Host names and addresses.
    """
    import trustme
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "lakebase-provider"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "local Lakebase"),
            # Two authorities with one name are confused if both are trusted.
            x509.NameAttribute(NameOID.COMMON_NAME, f"local Lakebase {secrets.token_hex(4)}"),
        ]
    )
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Long ago: a test sets its own clock, and the front end shows a certificate that expired yesterday.
        .not_valid_before(now - _LIFETIME)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_certificate_signing(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_constraints(names), critical=True)
        # Other kinds of name are not constrained, so other uses are: mail, code, clients.
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return trustme.CA.from_pem(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def is_good_for(authority: trustme.CA, names: Sequence[str]) -> bool:
    """Return whether an authority can sign for exactly these names, and for a while yet."""
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    try:
        found = certificate.extensions.get_extension_for_class(x509.NameConstraints)
    except x509.ExtensionNotFound:
        return False
    left = certificate.not_valid_after_utc - datetime.now(timezone.utc)
    return found.critical and found.value == _constraints(names) and left > _LEAST_LEFT


def _constraints(names: Sequence[str]) -> x509.NameConstraints:
    import idna
    from cryptography import x509

    networks = [ipaddress.ip_network(text) for text in _LOOPBACK]
    hosts = []
    for name in dict.fromkeys(names):
        try:
            address = ipaddress.ip_network(name)
        except ValueError:
            hosts.append(name if name.isascii() else idna.encode(name).decode())
            continue
        if not address.is_loopback:
            networks.append(address)
    permitted = [*map(x509.DNSName, hosts), *map(x509.IPAddress, networks)]
    return x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None)


def _certificate_signing() -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
