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


#: Where no file is, on any machine. libpq takes an empty text for "look in ~/.postgresql", and goes on
#: without a file that is not there.
_NO_FILE = f"{os.devnull}/none"

#: What libpq would otherwise take from the environment (PG*), a service file or ~/.postgresql, and what it is
#: to be: its own default, or nothing. A client certificate or a revocation list there is for another server.
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
    # Whatever asks who is there.
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


#: What a service's file could end a live link by, or let a dead one live by. A caller may give others.
_LINK = {"keepalives": "1", "tcp_user_timeout": "0"}
#: What a caller may give: psycopg's own arguments, and what says of a link when it is dead.
_OF_A_CALLER = {
    *("autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory"),
    *_LINK,
    *("keepalives_idle", "keepalives_interval", "keepalives_count", "fallback_application_name"),
}

#: Variables from which libpq takes a setting of the session though no parameter of a connection has its name.
#: It sends them after `options`, and the server can no more be told to forget them.
SESSION_VARIABLES = ("PGTZ", "PGDATESTYLE", "PGGEQO")


@cache
def neutral_parameters() -> Mapping[str, str]:
    """libpq's parameters that keep its surroundings from taking effect, as far as this libpq knows them.

    Only the name of a service (PGSERVICE) cannot be taken back: libpq looks for it before every connection,
    fails where it is missing, and takes nothing from it that is given here.
    """
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    return {name: value for name, value in {**_NEUTRAL, **_LINK}.items() if name in known}


@cache
def warn_of_session_variables() -> None:
    """Say once what libpq takes from the environment into every session, whatever it is given."""
    # libpq itself sends nothing for this word.
    found = [name for name in SESSION_VARIABLES if os.environ.get(name, "default").lower() != "default"]
    if found:
        logger.warning(
            "%s of the environment changes every session that libpq opens here. Unset it where this runs; "
            "ALTER ROLE ... SET gives a role its own time zone or date style.",
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
    in psycopg's binary wheel. ``require`` alone verifies nothing, as libpq documents, unless certificates
    are named: those of ~/.postgresql are not.
    """
    roots = config.sslrootcert or (_NO_FILE if config.sslmode == "require" else certifi.where())
    return {"sslmode": config.sslmode, "sslrootcert": roots}


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
        DnsError: Nobody knows it.
    """
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
    # Few need it, and it costs a tenth of a second to import.
    import dns.exception
    import dns.resolver

    try:
        answers = dns.resolver.get_default_resolver().resolve_name(host, lifetime=timeout)
        return tuple(answers.addresses())
    except (dns.exception.DNSException, OSError) as error:
        raise DnsError(f"Host {host} does not resolve, by the system or by DNS: {error}") from error
