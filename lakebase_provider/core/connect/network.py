"""How the database is reached: TLS parameters and the host's addresses."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import certifi
from psycopg import pq

from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.errors import DnsError

logger = logging.getLogger(__name__)


#: Where no file exists on any machine. libpq reads an empty text as "look in ~/.postgresql", and continues
#: without a missing file.
_NO_FILE = f"{os.devnull}/none"

#: What libpq would otherwise take from the environment (PG*), a service file or ~/.postgresql, and its value
#: here: libpq's default, or nothing. A client certificate or a revocation list there is for another server.
_NEUTRAL = {
    "passfile": _NO_FILE,
    "channel_binding": "prefer",
    "sslnegotiation": "postgres",
    "sslcompression": "0",
    "sslcert": _NO_FILE,
    "sslkey": _NO_FILE,
    "sslcertmode": "disable",
    "sslpassword": "",
    "sslcrl": _NO_FILE,
    "sslcrldir": "",
    "sslsni": "1",
    "sslkeylogfile": "",
    "ssl_min_protocol_version": "TLSv1.2",
    "ssl_max_protocol_version": "",
    "requirepeer": "",
    # Any method, as long as the server authenticates the client.
    "require_auth": "!none",
    "min_protocol_version": "3.0",
    "max_protocol_version": "3.0",
    "gssencmode": "disable",
    "krbsrvname": "postgres",
    "gsslib": "",
    "gssdelegation": "0",
    "replication": "",
    "target_session_attrs": "any",
    "load_balance_hosts": "disable",
    "oauth_issuer": "",
    "oauth_client_id": "",
    "oauth_client_secret": "",
    "oauth_scope": "",
}


#: Settings with which a service file could end a live link or keep a dead one. A caller may set others.
_LINK = {"keepalives": "1", "tcp_user_timeout": "0"}
#: What a caller may give: psycopg's own arguments, and what says of a link when it is dead.
_OF_A_CALLER = {
    *("autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory"),
    *_LINK,
    *("keepalives_idle", "keepalives_interval", "keepalives_count", "fallback_application_name"),
}

#: Variables from which libpq takes a session setting although no connection parameter has its name. It sends
#: them after `options`, and then the server cannot be told to forget them.
SESSION_VARIABLES = ("PGTZ", "PGDATESTYLE", "PGGEQO")


@cache
def neutral_parameters() -> Mapping[str, str]:
    """libpq's parameters that keep the environment from taking effect, as far as this libpq knows them.

    Only a service's name (PGSERVICE) cannot be overridden: libpq looks it up before every connection, fails
    if it is missing, but takes nothing from it that is set here.
    """
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    return {name: value for name, value in {**_NEUTRAL, **_LINK}.items() if name in known}


@cache
def warn_of_session_variables() -> None:
    """Log once what libpq takes from the environment into every session, whatever its parameters."""
    # libpq itself sends nothing for this value.
    found = [name for name in SESSION_VARIABLES if os.environ.get(name, "default").lower() != "default"]
    if found:
        logger.warning(
            "The environment's %s affects every session that libpq opens here. Unset it where this runs; "
            "use ALTER ROLE ... SET for a role's own time zone or date style.",
            " and ".join(found),
        )


def refused_parameters(given: Iterable[str]) -> list[str]:
    """Which arguments of ``connect`` no caller may give.

    What is not known to be harmless is refused, for libpq learns new ones, and takes some that it lists
    nowhere (``requiressl``); several of them lead a password elsewhere, or let it go without TLS.
    """
    return sorted(set(given) - _OF_A_CALLER)


def tls_parameters(config: LakebaseConfig) -> dict[str, str]:
    """libpq's TLS parameters.

    Without `sslrootcert` the public CAs of certifi's bundle are trusted: ``sslrootcert=system`` is unusable
    in psycopg's binary wheel. ``require`` alone verifies nothing, as libpq documents, unless certificates are
    set; those in ~/.postgresql are not used.
    """
    roots = config.sslrootcert or (_NO_FILE if config.sslmode == "require" else certifi.where())
    return {"sslmode": config.sslmode, "sslrootcert": roots}


@dataclass(frozen=True)
class Addresses:
    """What a host name resolves to.

    Attributes:
        addresses: IP addresses, without duplicates.
        resolver: ``system``, or ``dns`` if the system's resolver failed and name servers were asked.
    """

    addresses: tuple[str, ...]
    resolver: str


def resolve(host: str, port: int, timeout: float) -> Addresses:
    """The addresses of a host, from the system's resolver or else its name servers.

    Python's and macOS' resolvers fail on long host names that name servers answer (the Lakebase
    documentation's "connection patterns"). The result is for one attempt: an address may move.

    Args:
        host: Host name or address.
        port: Port, which the system's resolver requires.
        timeout: Seconds for the name servers; the system's resolver has its own limit.

    Raises:
        DnsError: It does not resolve.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        logger.info("The system cannot resolve %s (%s); asking name servers", host, error)
        return Addresses(ask_name_servers(host, timeout), "dns")
    return Addresses(tuple(dict.fromkeys(str(address[0]) for *_, address in found)), "system")


def ask_name_servers(host: str, timeout: float) -> tuple[str, ...]:
    """The addresses of a host from DNS, bypassing the system's resolver.

    Args:
        host: Host name.
        timeout: Seconds.

    Raises:
        DnsError: It does not resolve.
    """
    # It is rarely needed, and takes a tenth of a second to import.
    import dns.exception
    import dns.resolver

    try:
        answers = dns.resolver.get_default_resolver().resolve_name(host, lifetime=timeout)
        return tuple(answers.addresses())
    except (dns.exception.DNSException, OSError) as error:
        raise DnsError(f"Host {host} does not resolve, through the system or DNS: {error}") from error
