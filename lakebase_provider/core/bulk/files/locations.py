"""Where files are: the only place that parses the name of a file or folder.

A name may come from a template, a DAG's parameter or a run's configuration. fsspec accepts far more than file
names: ``github://``, ``ssh://``, an archive in a cache of a web page. So only a list of protocols may be read
and written, which the deployment can extend.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from lakebase_provider.core.base.files.plain_files import open_to_read
from lakebase_provider.core.base.plain_text import flaw
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.errors.redaction import redacted

#: Environment variable with more protocols, comma-separated.
ALLOWED_FILE_PROTOCOLS = "LAKEBASE_ALLOWED_FILE_PROTOCOLS"

_LOCAL = frozenset(("file", "local"))
#: The host that a local URI may name (RFC 8089, section 2).
_HERE = "localhost"
_OF_STORES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "adl", "az", "memory")
_PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]*")


@dataclass(frozen=True)
class Location:
    """Where a file or folder is.

    Attributes:
        argument: Name of the argument that gave it.
        name: The name as it was given, for logs and errors.
        local: Local path; None if it is elsewhere.
        fs: The fsspec file system it lies on; None if it has none.
        path: Its path there.
        given: The path object that it comes from, which opens it in its own way; None for text.
        follows: Whether a symbolic link of that name is followed.
    """

    argument: str
    name: str
    local: Path | None
    fs: Any = None
    path: str = ""
    given: Any = None
    follows: bool = True

    def open(self) -> Any:
        """Open the file to read it.

        Raises:
            ConfigError: It does not exist, or this process may not read it; if local, it is a folder, pipe,
                socket or device, or a link that is not followed.
            OSError: It cannot be opened.
        """
        try:
            if self.local is not None:
                return open_to_read(self.local, self.argument, follow=self.follows)
            if self.given is not None:
                return self.given.open("rb")
            return self.fs.open(self.path, "rb")
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(
                f"{self.argument}: there is no file {self.name!r}.", remedy="Check the path."
            ) from None
        except PermissionError:
            raise ConfigError(
                f"{self.argument}: the file {self.name!r} cannot be read by this process (permission "
                "denied).",
                remedy="Let the process's user, or its identity at the store, read it.",
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL):
                raise
            raise ConfigError(
                f"{self.argument}: {self.name!r} cannot be opened: {error.strerror}.",
                remedy="Check the path.",
            ) from None


def locate(given: Any, argument: str) -> Location:
    """Where a file or folder is.

    Args:
        given: Local path, fsspec URI, or a path object with its own file system, such as Airflow's
            ObjectStoragePath or a UPath.
        argument: Name of the argument that it comes from, for errors.

    Raises:
        ConfigError: It is not a path, chains file systems (``::``), has a control character, its protocol is
            not allowed or lacks its library, or it is a local URI with another host.
    """
    if isinstance(given, PurePath) and not getattr(given, "protocol", ""):
        # Only through the operating system, to which "::" means nothing.
        _require_plain(str(given), argument)
        return Location(argument, str(given), Path(given))
    # For a UPath its file system, not its text, which lacks the credentials.
    if hasattr(given, "protocol") or hasattr(type(given), "fs"):
        return _of_object(given, argument)
    if hasattr(given, "open"):  # a library's path, such as into an archive, that the caller's code has made
        protocol_of(str(given), argument)
        return Location(argument, shown(str(given)), None, given=given)
    text = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(text, str):
        raise ConfigError(
            f"{argument} is of type {type(given).__name__}.", remedy="Give a path or a URI of a file."
        )
    protocol = protocol_of(text, argument)
    name, rest = shown(text), text.partition("://")[2]
    if not protocol:
        return Location(argument, name, Path(text).expanduser() if text[:2] == "~/" else Path(text))
    if protocol in _LOCAL:
        return Location(
            argument, name, Path(rest.removeprefix(_HERE) if rest.startswith(f"{_HERE}/") else rest)
        )
    fs, path = _opened(f"{protocol}://{rest}", argument)
    return Location(argument, name, None, fs, path)


def protocol_of(text: str, argument: str) -> str:
    """The protocol of a path or URI, which is allowed; "" for a plain path.

    Args:
        text: The path or URI.
        argument: Name of the argument that it comes from, for errors.

    Raises:
        ConfigError: As for :func:`locate`.
    """
    _require_plain(text, argument)
    if "::" in text:
        raise ConfigError(
            f"{argument} chains file systems ('::').", remedy="Name the file itself, with a single protocol."
        )
    protocol, separator, rest = text.partition("://")
    if separator:
        _require_allowed((protocol.lower(),), argument)
    if protocol.lower() in _LOCAL and separator:
        # What stands before an @ in the text of Airflow's ObjectStoragePath is the id of a connection.
        host = rest.partition("/")[0].rpartition("@")[2]
        if host not in ("", _HERE):
            raise ConfigError(
                f"{argument}: {shown(text)!r} names the host {host!r}, but is a file of this machine.",
                remedy="Give an absolute path, such as file:///data/orders.csv, or a path alone.",
            )
    return protocol.lower() if separator else ""


def shown(text: str) -> str:
    """A path or URI for logs and errors, without a password that it may hold."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", text)


def _of_object(given: Any, argument: str) -> Location:
    text = str(given)
    protocol_of(text, argument)
    protocol = str(getattr(given, "protocol", "") or "")
    if protocol:
        _require_allowed((protocol.lower(),), argument)
    try:
        fs, path = given.fs, str(given.path)
    except (ImportError, ValueError) as error:
        raise _unusable(argument, protocol, error) from None
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
    _require_allowed(protocols, argument)
    from fsspec.implementations.local import LocalFileSystem

    if isinstance(fs, LocalFileSystem):
        return Location(argument, shown(text), Path(path))
    return Location(argument, shown(text), None, fs, path, given)


def _opened(uri: str, argument: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise ConfigError(
            f"{argument}: a URI needs fsspec.", remedy="Install lakebase-provider[arrow]."
        ) from None
    try:
        fs, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError, TypeError) as error:
        raise _unusable(argument, uri.partition(":")[0], error) from None
    return fs, path


def _unusable(argument: str, protocol: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{argument}: there is no file system for {protocol or 'file'}://: {redacted(str(error))}.",
        remedy="Install the library for that file system, or give a local path.",
    )


def _require_plain(text: str, argument: str) -> None:
    if not text:
        raise ConfigError(f"{argument} is empty.", remedy="Give a path or a URI of a file.")
    found = flaw(text)
    if found is not None:
        raise ConfigError(f"{argument} has {found}, which a name cannot contain.", remedy="Remove it.")


def _require_allowed(protocols: tuple[str, ...], argument: str) -> None:
    """Refuse a file system's protocol unless one of its names is allowed."""
    further = [
        entry.strip().lower()
        for entry in os.environ.get(ALLOWED_FILE_PROTOCOLS, "").split(",")
        if entry.strip()
    ]
    if wrong := [entry for entry in further if not _PROTOCOL.fullmatch(entry)]:
        raise ConfigError(
            f"The environment variable {ALLOWED_FILE_PROTOCOLS} holds {wrong[0]!r}, which is not a protocol.",
            remedy=f"Correct {ALLOWED_FILE_PROTOCOLS} in the deployment's environment.",
        )
    if _LOCAL.union(_OF_STORES, further).isdisjoint(protocols):
        named = repr(protocols[0]) if _PROTOCOL.fullmatch(protocols[0]) else "malformed"
        raise ConfigError(
            f"{argument}: the protocol is {named}, which this deployment does not allow.",
            remedy=f"Use a local path, or one of: {', '.join(_OF_STORES)}; the deployment's environment "
            f"variable {ALLOWED_FILE_PROTOCOLS} allows more.",
        )
