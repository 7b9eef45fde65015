"""To which hosts a secret may be sent.

Anybody who can edit a connection could otherwise have a token sent to a host of theirs (CVE-2026-81930 in
another provider). A deployment allows more suffixes, comma-separated, by LAKEBASE_ALLOWED_HOST_SUFFIXES; a
connection cannot.
"""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

from lakebase_provider.core.setting import Setting

HOST_SUFFIXES = (".databricks.com", ".azuredatabricks.net")
_MORE_HOST_SUFFIXES = "LAKEBASE_ALLOWED_HOST_SUFFIXES"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_host(row: Setting, host: str) -> None:
    """Raise a ConfigError unless `host` is one host name to which a secret may be sent."""
    more = tuple(s.strip() for s in os.environ.get(_MORE_HOST_SUFFIXES, "").split(",") if s.strip())
    name = host.lower().rstrip(".")
    if "," in host or "/" in host or host != host.strip():
        raise row.error(f"is {host!r}, which is not one host name")
    if not _is_loopback(name) and not name.endswith((*HOST_SUFFIXES, *more)):
        raise row.error(
            f"is {host!r}, outside of {', '.join(HOST_SUFFIXES)} and loopback",
            remedy=f"Correct it; a deployment allows further suffixes by the variable {_MORE_HOST_SUFFIXES}.",
        )


def workspace_url(row: Setting, url: str) -> str:
    """The workspace's URL without path, checked: a client secret is sent there."""
    parts = urlsplit(url if "://" in url else f"https://{url}")
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise row.error(f"is {url!r}, which is no URL") from None
    if parts.username or parts.password:
        raise row.error("contains a user name", remedy="Use https://<workspace>.databricks.com alone.")
    check_host(row, host)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise row.error(f"is {url!r}", remedy="Use https://: a client secret is sent there.")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port else "")
