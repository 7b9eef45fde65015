"""How the database is reached: TLS parameters and the host's addresses."""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass

import certifi

from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.errors import DnsError

logger = logging.getLogger(__name__)

#: Bytes of a part of a host name (RFC 1035, section 2.3.4).
_LONGEST_LABEL = 63


def tls_parameters(config: LakebaseConfig) -> dict[str, str]:
    """libpq's TLS parameters.

    Without `sslrootcert` the public CAs of certifi's bundle are trusted: ``sslrootcert=system`` is unusable
    in psycopg's binary wheel. ``require`` alone verifies nothing, as libpq documents.
    """
    parameters: dict[str, str] = {"sslmode": config.sslmode}
    if config.sslrootcert is not None:
        parameters["sslrootcert"] = config.sslrootcert
    elif config.sslmode != "require":
        parameters["sslrootcert"] = certifi.where()
    return parameters


@dataclass(frozen=True)
class Addresses:
    """What a host name resolves to.

    Attributes:
        addresses: IP addresses, without duplicates.
        resolver: ``system``, or ``dns`` where the system's resolver failed and name servers were asked.
    """

    addresses: tuple[str, ...]
    resolver: str


def resolve(host: str, port: int, timeout: float) -> Addresses:
    """The addresses of a host, by the system's resolver or else by its name servers.

    Python's and macOS' resolvers fail on long host names that name servers answer (the Lakebase
    documentation's "connection patterns"). The result is for one attempt: an address may move.

    Args:
        host: Host name or address.
        port: Port, as the system's resolver wants to know it.
        timeout: Seconds for the name servers; the system's resolver has a limit of its own.

    Raises:
        DnsError: The name cannot be one, or nobody knows it.
    """
    check_labels(host)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        logger.info("The system does not resolve %s (%s); asking name servers", host, error)
        return Addresses(ask_name_servers(host, timeout), "dns")
    return Addresses(tuple(dict.fromkeys(str(address[0]) for *_, address in found)), "system")


def ask_name_servers(host: str, timeout: float) -> tuple[str, ...]:
    """The addresses of a host by DNS, past the system's resolver.

    Args:
        host: Host name.
        timeout: Seconds.

    Raises:
        DnsError: Nobody knows it.
    """
    check_labels(host)
    # Few need it, and it costs a tenth of a second to import.
    import dns.exception
    import dns.resolver

    try:
        answers = dns.resolver.get_default_resolver().resolve_name(host, lifetime=timeout)
        return tuple(answers.addresses())
    except (dns.exception.DNSException, OSError) as error:
        raise DnsError(f"Host {host} does not resolve, by the system or by DNS: {error}") from error


def check_labels(host: str) -> None:
    """Raise a DnsError when a part of the name is longer than DNS allows: no resolver could know it."""
    for label in host.rstrip(".").split("."):
        if len(label.encode()) > _LONGEST_LABEL:
            raise DnsError(
                f"Host {host} has a part of {len(label.encode())} characters; DNS allows {_LONGEST_LABEL}.",
                remedy="Leave 'host' out: it is resolved from the endpoint.",
            )
