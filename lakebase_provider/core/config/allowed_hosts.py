"""What a host is, and to which hosts a secret may be sent.

Otherwise anybody who can edit a connection could have a token sent to their own host (CVE-2026-81930 in
another provider). Every host is parsed by this one grammar, wherever it comes from: a setting, the
environment, a URI or an answer of the workspace. A URL is built from the checked parts and never passed on as
written, since two parsers may see two different hosts in one text.

Only a deployment can allow more, through its environment; a connection cannot.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from lakebase_provider.core.config.field import Setting
from lakebase_provider.core.errors import ConfigError

HOST_SUFFIXES = (".databricks.com", ".azuredatabricks.net")
#: More suffixes, comma-separated: ``corp.example`` for that host and those below it, ``.corp.example`` only
#: for those below it, or an IP address.
MORE_HOST_SUFFIXES = "LAKEBASE_ALLOWED_HOST_SUFFIXES"
#: ``1`` allows hosts that are loopback addresses, and workspaces there over http, as a local Lakebase needs.
ALLOW_LOOPBACK = "LAKEBASE_ALLOW_LOOPBACK"

#: Characters of a name, and of one of its labels (RFC 1035, section 2.3.4).
_LONGEST_NAME = 253
_LONGEST_LABEL = 63
#: RFC 1123, section 2.1.
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
#: What inet_aton, and so a resolver, accepts as a number.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_URL = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?(?P<authority>[^/?#]*)(?:[/?#].*)?", re.IGNORECASE | re.DOTALL
)
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:]*)(?::(?P<port>[0-9]{1,5}))?")
#: A text that an error may repeat: it holds no user name, password or terminal control characters.
_SHOWN = re.compile(r"[A-Za-z0-9._-]{1,260}")

_servers_here: set[object] = set()


class HostRefusedError(ValueError):
    """A text is not a host, or a host to which no secret may be sent.

    The caller, which knows where the text came from, turns it into a :class:`.LakebaseError`.

    Attributes:
        problem: What is wrong, to follow the setting's or the field's name; it repeats no user name.
        remedy: What to do; None for the caller's usual remedy.
    """

    def __init__(self, problem: str, remedy: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True)
class Host:
    """A host that follows the grammar.

    Attributes:
        name: In lower case without a trailing dot; an IPv6 address in its shortest form, without brackets.
        is_address: Whether it is an IP address.
        is_loopback: Whether it is ``localhost`` or a loopback address.
    """

    name: str
    is_address: bool
    is_loopback: bool

    def __str__(self) -> str:
        return self.name

    @property
    def in_url(self) -> str:
        """Its form in a URL: an IPv6 address in brackets."""
        return f"[{self.name}]" if ":" in self.name else self.name


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port of a URL; its text is the URL, built from these parts."""

    scheme: str
    host: Host
    port: int | None

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host.in_url}" + ("" if self.port is None else f":{self.port}")


def parse_host(text: str) -> Host:
    """The host that a text names: one name of RFC 1123, or one IP address.

    Raises:
        HostRefusedError: It is neither.
    """
    name = text.lower().removesuffix(".") if text.isascii() else text
    if ":" in name or name.startswith("["):
        return _address(name.removeprefix("[").removesuffix("]") if name.endswith("]") else name, text)
    labels = name.split(".")
    longest = max(len(label) for label in labels)
    if longest > _LONGEST_LABEL or len(name) > _LONGEST_NAME:
        raise HostRefusedError(
            f"has a part of {longest} characters, {len(name)} in all; DNS allows {_LONGEST_LABEL} in a part, "
            f"{_LONGEST_NAME} in all",
            "Leave out 'host': it is resolved from the endpoint.",
        )
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise HostRefusedError(f"{_shown(text)}, which is not one host name")
    if _NUMBER.fullmatch(labels[-1]):
        return _address(name, text)
    return Host(name, is_address=False, is_loopback=name == "localhost")


def allowed_host(text: str) -> Host:
    """The host that a text names, if a secret may be sent there.

    Raises:
        HostRefusedError: It is not a host, or not an allowed one.
        ConfigError: The deployment's own list is malformed.
    """
    host = parse_host(text)
    if host.is_loopback:
        if not loopback_is_allowed():
            raise HostRefusedError(
                f"is {host.name!r}, this machine, which is allowed for a local Lakebase only",
                "Correct it; for a local Lakebase a deployment sets the environment variable "
                f"{ALLOW_LOOPBACK}=1, "
                'as `eval "$(lakebase local env)"` does.',
            )
    elif not any(_falls_under(host, suffix) for suffix in (*HOST_SUFFIXES, *_more_suffixes())):
        raise HostRefusedError(
            f"is {host.name!r}, which is not under {', '.join(HOST_SUFFIXES)}",
            "Correct it; a deployment allows more suffixes with the environment variable "
            f"{MORE_HOST_SUFFIXES}.",
        )
    return host


def allowed_origin(url: str) -> Origin:
    """Scheme, host and port of a URL, if a secret may be sent there. What follows them is dropped.

    Args:
        url: The URL; without a scheme, https is assumed.

    Raises:
        HostRefusedError: It is not a URL, or its host or scheme is not allowed.
        ConfigError: The deployment's own list is malformed.
    """
    parts = _URL.fullmatch(url)
    assert parts is not None  # every text matches
    if "@" in parts["authority"]:
        raise HostRefusedError("contains a user name", "Use only https://<workspace>.databricks.com.")
    authority = _AUTHORITY.fullmatch(parts["authority"])
    if authority is None or not authority["host"]:
        raise HostRefusedError(f"{_shown(url)}, which is not a URL")
    host = allowed_host(authority["host"])
    port = None if authority["port"] is None else int(authority["port"])
    if port is not None and not 1 <= port <= 65535:
        raise HostRefusedError(f"has the port {port}, which is not between 1 and 65535")
    scheme = (parts["scheme"] or "https").lower()
    if scheme != "https" and not (scheme == "http" and host.is_loopback):
        raise HostRefusedError(f"has the scheme {scheme!r}", "Use https://: a client secret is sent there.")
    return Origin(scheme, host, port)


def check_host(row: Setting, text: str) -> str:
    """The name of the host in a setting.

    Raises:
        ConfigError: It is not one host to which a secret may be sent.
    """
    try:
        return allowed_host(text).name
    except HostRefusedError as refused:
        raise row.error(refused.problem, remedy=refused.remedy) from None


def workspace_url(row: Setting, url: str) -> str:
    """The workspace's URL in a setting, without a path.

    Raises:
        ConfigError: It is not a URL to which a client secret may be sent.
    """
    try:
        return str(allowed_origin(url))
    except HostRefusedError as refused:
        raise row.error(refused.problem, remedy=refused.remedy) from None


def is_on_this_machine(url: str) -> bool:
    """Whether a URL points to a loopback host, for which the environment's proxies are not used."""
    try:
        return parse_host(urlsplit(url).hostname or "").is_loopback
    except (HostRefusedError, ValueError):
        return False


def loopback_is_allowed() -> bool:
    """Whether the deployment allows a Lakebase on this machine, or one was started in this process."""
    return bool(_servers_here) or os.environ.get(ALLOW_LOOPBACK, "").strip().lower() in ("1", "true", "yes")


def allow_loopback(server: object) -> None:
    """Allow loopback hosts in this process for as long as `server`, a Lakebase of its own, is running."""
    _servers_here.add(server)


def server_is_gone(server: object) -> None:
    """Undo :func:`allow_loopback`."""
    _servers_here.discard(server)


def _address(name: str, text: str) -> Host:
    try:
        # An interface ("%eth0") is not part of a name.
        address = ipaddress.ip_address(name) if "%" not in name else None
    except ValueError:
        address = None
    if address is None:
        raise HostRefusedError(f"{_shown(text)}, which is not one host name or IP address")
    return Host(str(address), is_address=True, is_loopback=address.is_loopback)


def _falls_under(host: Host, suffix: str) -> bool:
    below = not host.is_address and host.name.endswith(f".{suffix.removeprefix('.')}")
    return below or (not suffix.startswith(".") and host.name == suffix)


def _more_suffixes() -> list[str]:
    """The additional suffixes that the deployment allows."""
    found = []
    for entry in os.environ.get(MORE_HOST_SUFFIXES, "").split(","):
        suffix = entry.strip()
        if suffix:
            dot = "." if suffix.startswith(".") else ""
            found.append(dot + _suffix(suffix.removeprefix(".")))
    return found


def _suffix(text: str) -> str:
    try:
        return parse_host(text).name
    except HostRefusedError as refused:
        raise ConfigError(
            f"An entry of the environment variable {MORE_HOST_SUFFIXES} {refused.problem}.",
            remedy="Use host names, such as corp.example or .corp.example, separated by commas.",
        ) from None


def _shown(text: str) -> str:
    """The text, if an error may repeat it."""
    if not text:
        return "is empty"
    return f"is {text!r}" if _SHOWN.fullmatch(text) else f"is a string of {len(text)} characters"
