"""The workspace's answers, validated like settings: each field by type and grammar before it is used.

An answer decides where a password goes and what becomes a header, a role or a password. Otherwise anybody who
could forge one, or a single field, would be sent a secret. An invalid field is a :class:`.ControlPlaneError`
that names it and repeats nothing of a secret.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NoReturn

from lakebase_provider.core.config.allowed_hosts import (
    ALLOW_LOOPBACK,
    MORE_HOST_SUFFIXES,
    HostRefusedError,
    Origin,
    allowed_host,
    allowed_origin,
)
from lakebase_provider.core.errors import ControlPlaneError
from lakebase_provider.core.errors.texts import MANAGED_BY_PARENT

#: Maximum lifetime in seconds of a token of any kind; the documentation says 3600.
LONGEST_LIFE = 86_400.0
#: How many characters of an error's text are shown, and searched for its meaning.
_LONGEST_TEXT = 500
#: Maximum number of digits of a whole number: more than 64 bits need, too few to take time to parse.
_LONGEST_NUMBER = 40

#: Maximum number of characters in a time, such as 2026-11-22T10:11:12.123456789+00:00.
_LONGEST_TIMESTAMP = 64
#: Printable ASCII without the blank: what a header and a password can hold. 64 KiB, as in the token store.
_TOKEN = re.compile(r"[!-~]{1,65536}")
_WORKSPACE_ID = re.compile(r"[0-9]{1,20}")
_DURATION = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?s")
_STATE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_LONGEST_USER_NAME = 320
#: The last part of any object's name.
_ID = re.compile("[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
#: No segment begins with a dot, so that none leads upwards. ``{account_id}`` is for the caller to fill in.
_SEGMENT = r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*"
_URL = re.compile(
    rf"(?P<origin>https?://[^/?#]+)(?P<path>(?:/(?:{_SEGMENT}|\{{account_id\}}))*)/?", re.IGNORECASE
)
_DEFAULT_PORTS = {"https": 443, "http": 80}

_ALLOWING = (
    "Nothing was sent there. If the host is right, allow it with the environment variable "
    f"{MORE_HOST_SUFFIXES}, or this machine's hosts with {ALLOW_LOOPBACK}=1."
)
_UNEXPECTED = "Check that 'workspace_host' is a Databricks workspace, and that no proxy answers in its place."


def parse_json(text: bytes | str) -> Any:
    """The value of a JSON text, strictly by RFC 8259.

    Raises:
        ValueError: It is not JSON, or not what a workspace sends: duplicate keys in an object, NaN, a number
            with more digits than any number needs, brackets nested too deep.
    """
    try:
        return json.loads(
            text.decode() if isinstance(text, bytes) else text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_constant=_refuse_constant,
        )
    except RecursionError:
        raise ValueError("brackets are nested too deep") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        # Two parsers could see different answers.
        raise ValueError("a key occurs twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError("a number is too long")
    return int(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def shown(text: object) -> str:
    """The part of another system's text that an error can carry: printable, and not too long.

    Text that is searched for error patterns must be short too, since some take long on megabytes.
    """
    if not isinstance(text, (str, int, Exception)):
        return f"a value of type {type(text).__name__}"
    line = str(text)[:_LONGEST_TEXT]
    return "".join(character if character.isprintable() else " " for character in line).strip()


def said_in(details: object) -> str:
    """What the details of an error say beyond its text, to be added to it."""
    for detail in details if isinstance(details, list) else ():
        metadata = detail.get("metadata") if isinstance(detail, Mapping) else None
        if isinstance(metadata, Mapping) and metadata.get("declarative_context") == MANAGED_BY_PARENT:
            return f" ({MANAGED_BY_PARENT})"
    return ""


def token_text(value: object) -> str | None:
    """The value, if it is valid as a token in a header or a password."""
    return value if isinstance(value, str) and _TOKEN.fullmatch(value) else None


def is_at(origin: Origin, url: str) -> bool:
    """Whether a URL, whatever its path, is at that origin."""
    try:
        return _same(allowed_origin(url), origin)
    except HostRefusedError:
        return False


def _same(one: Origin, other: Origin) -> bool:
    return (one.scheme, one.host.name, one.port or _DEFAULT_PORTS.get(one.scheme)) == (
        other.scheme,
        other.host.name,
        other.port or _DEFAULT_PORTS.get(other.scheme),
    )


@dataclass(frozen=True)
class Answer:
    """An answer, or an object within one.

    Attributes:
        fields: Its fields, as received.
        what: What it is about, such as ``"endpoint projects/p/branches/b/endpoints/e"``.
        where: The prefix of its field names.
    """

    fields: Mapping[str, Any]
    what: str
    where: str = ""

    def error(self, name: str, problem: str, remedy: str = _UNEXPECTED) -> ControlPlaneError:
        """An error that names a field; ``problem`` follows its name."""
        return ControlPlaneError(
            f"In the workspace's answer about {self.what} the field '{self.where}{name}' {problem}.",
            remedy=remedy,
        )

    def object(self, name: str) -> Answer:
        """An object in it; one without fields if there is none."""
        value = self.fields.get(name)
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise self.error(name, f"is not an object but of type {type(value).__name__}")
        return Answer(value, self.what, f"{self.where}{name}.")

    def flag(self, name: str) -> bool:
        """True or False; False if there is none."""
        value = self.fields.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.error(name, f"is of type {type(value).__name__}, not true or false")
        return bool(value)

    def text(self, name: str) -> str | None:
        """A text; None if there is none or it is empty."""
        value = self.fields.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise self.error(name, f"is not text but of type {type(value).__name__}")
        return value

    def require_name(self, asked: str) -> None:
        """That it is about the object that was asked for, if it says of which it is.

        Args:
            asked: That object's name.

        Raises:
            ControlPlaneError: It is about another one, which nobody meant to use, change or delete.
        """
        name = self.text("name")
        if name is not None and name.lower() != asked.lower():
            raise self.error("name", f"is {shown(name)!r}, not {asked!r}")

    def require_below(self, collection: str) -> None:
        """That it is about an object of a collection, such as ``"projects/p/branches"``.

        Raises:
            ControlPlaneError: It is in another one, or it has no name.
        """
        place, _, own = (self.text("name") or "").rpartition("/")
        if place.lower() != collection.lower() or not _ID.fullmatch(own):
            raise self.error(
                "name", f"is {shown(self.fields.get('name'))!r}, which is none of {collection!r}"
            )

    def moment(self, name: str) -> datetime | None:
        """A moment with its time zone, which is UTC if the text names none; None if there is none."""
        value = self.text(name)
        if value is None:
            return None
        found = moment(value)
        if found is None:
            # Not within the handling of Python's error, which repeats the text and would be the context.
            raise self.error(name, "is no readable time")
        return found if found.tzinfo else found.replace(tzinfo=timezone.utc)

    def duration(self, name: str) -> float | None:
        """Seconds, such as of ``"300s"``; None if there is none."""
        value = self.text(name)
        if value is not None and not _DURATION.fullmatch(value):
            raise self.error(name, f"is a string of {len(value)} characters that is not a duration")
        return None if value is None else float(value[:-1])

    def number(self, name: str) -> float | None:
        """A finite number; None if there is none. Whole ones of 64 bits may come as text."""
        value = self.fields.get(name)
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,20}", value):
            value = int(value)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.error(name, f"is of type {type(value).__name__}, not a finite number")
        return value

    def names(self, name: str) -> tuple[str, ...]:
        """Texts; none if there is no such field."""
        value = self.fields.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.error(name, "is not a list of texts")
        return tuple(value)

    def objects(self, name: str) -> tuple[Answer, ...]:
        """The objects of a list; none if there is no such field."""
        value = self.fields.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
            raise self.error(name, "is not a list of objects")
        return tuple(
            Answer(one, self.what, f"{self.where}{name}[{number}].") for number, one in enumerate(value)
        )

    def state(self, name: str) -> str | None:
        """The name of a state, such as ``"ACTIVE"``."""
        value = self.text(name)
        if value is not None and not _STATE.fullmatch(value):
            raise self.error(name, f"is a string of {len(value)} characters that is not the name of a state")
        return value

    def host(self, name: str) -> str | None:
        """The name of a host to which a password may be sent; None if the workspace returns none."""
        value = self.text(name)
        if value is None:
            return None
        try:
            return allowed_host(value).name
        except HostRefusedError as refused:
            raise self.error(name, refused.problem, _ALLOWING) from None

    def user_name(self, name: str) -> str:
        """The name of a user or a service principal, which is also its Postgres role's."""
        value = self.text(name)
        if value is None:
            raise self.error(name, "is missing")
        if len(value) > _LONGEST_USER_NAME or not value.isprintable():
            raise self.error(name, f"is a string of {len(value)} characters that is not a user name")
        return value

    def token(self, name: str) -> str:
        """A token; an error says nothing about it except its kind."""
        value = self.fields.get(name)
        if not value:
            raise self.error(name, "is missing: the workspace answered without a token")
        token = token_text(value)
        if token is None:
            kind = f"is a string of {len(value)} characters" if isinstance(value, str) else "is not text"
            raise self.error(name, f"{kind}, and not a token: printable ASCII characters without a blank")
        return token

    def seconds(self, name: str) -> float:
        """A lifetime in seconds."""
        value = self.fields.get(name)
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(name, f"is of type {type(value).__name__}, not a number of seconds")
        if not (math.isfinite(value) and 0 < value <= LONGEST_LIFE):
            raise self.error(name, f"is not between 0 and {LONGEST_LIFE:.0f} seconds")
        return float(value)

    def workspace_id(self, name: str) -> str | None:
        """The workspace's id, for a header."""
        value = self.fields.get(name)
        if value is None or value == "":
            return None
        text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
        if not _WORKSPACE_ID.fullmatch(text):
            raise self.error(name, "is not a workspace id")
        return text

    def url_at(self, origin: Origin, name: str) -> str | None:
        """A URL at the workspace's own origin, built from checked parts; None if there is none.

        Args:
            origin: The workspace's origin, to which a client secret may be sent.
            name: Name of the field.
        """
        value = self.text(name)
        if value is None:
            return None
        parts = _URL.fullmatch(value)
        try:
            there = allowed_origin(parts["origin"]) if parts else None
        except HostRefusedError as refused:
            raise self.error(name, refused.problem, _ALLOWING) from None
        if parts is None or there is None:
            raise self.error(name, f"is a string of {len(value)} characters that is not a plain URL")
        if not _same(there, origin):
            remedy = "No secret was sent there. Check that 'workspace_host' is the workspace's own URL."
            raise self.error(name, f"points to {there}, not to the workspace at {origin}", remedy)
        return f"{origin}{parts['path']}"


def moment(text: str) -> datetime | None:
    """The moment that a text of RFC 3339 is; None if it is none."""
    # Digits of ASCII alone, and not so many that they take time to read.
    if len(text) > _LONGEST_TIMESTAMP or not text.isascii():
        return None
    # Python < 3.11 reads neither "Z" nor a fraction of other than 3 or 6 digits.
    head, dot, tail = text.replace("Z", "+00:00").partition(".")
    if dot:
        digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
        tail = digits[:6].ljust(6, "0") + tail[len(digits) :]
    try:
        return datetime.fromisoformat(head + dot + tail)
    except ValueError:
        return None
