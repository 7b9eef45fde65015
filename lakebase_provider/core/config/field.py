"""What is known about one setting: the rows of the table that :class:`LakebaseConfig` is."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from lakebase_provider.core.base.plain_text import flaw, flaw_in_header
from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.errors import ConfigError

logger = logging.getLogger(__name__)

#: Characters of a value that an error repeats.
_LONGEST_SHOWN = 60

Kind = Literal["string", "integer", "number", "secret"]


@dataclass(frozen=True)
class Setting:
    """What is known about one field of :class:`LakebaseConfig` (a row of the table).

    `in_header` means that it goes into an HTTP header, whose grammar is stricter; `is_host`, that it is a
    host or a URL, in which somebody may have put a password; `of_deployment`, that it says how to connect,
    not to what or as whom, so that it may be set once for all connections.
    """

    name: str
    kind: Kind
    default: Any
    label: str
    description: str
    env: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    in_header: bool = False
    is_host: bool = False
    of_deployment: bool = False

    def parse(self, value: object) -> Any:
        """Turn a text or a native value into the field's type.

        Args:
            value: The value; a secret in the form that :meth:`hidden` returns, since a traceback may show it.

        Raises:
            ConfigError: It does not fit; the message names the field and the value's kind, never the value
                of a secret.
        """
        if self.kind == "secret":
            return self._parse_secret(value)
        if self.kind == "string":
            if isinstance(value, Unreadable):
                raise self.error(f"is a {value.kind}", remedy="Use only the host, such as w.databricks.com.")
            if not isinstance(value, str):
                raise self.error(f"must be text, not {type(value).__name__}")
            self._refuse(flaw_in_header(value) if self.in_header else flaw(value))
            if self.choices and value not in self.choices:
                raise self.error(f"is {value!r}", remedy=f"Use one of: {', '.join(self.choices)}.")
            return value
        return self._parse_number(value)

    def hidden(self, value: object) -> object:
        """The value, opaque if it is a secret or a host with one: what may be kept in a frame's variables.

        White space at the end of a workspace's secret, left by copying it, is dropped and reported once.
        """
        if self.is_host and isinstance(value, str) and "@" in value:
            return Unreadable("text that contains a user name")
        if self.kind != "secret" or value is None or isinstance(value, (Secret, Unreadable)):
            return value
        if not isinstance(value, str):
            return Unreadable(type(value).__name__)
        if self.in_header and value != value.rstrip():
            _say_once(f"Ignoring white space at the end of setting '{self.name}'")
            value = value.rstrip()
        return Secret(value) if value else value

    def _parse_secret(self, value: object) -> Secret:
        value = self.hidden(value)
        if not isinstance(value, Secret):
            raise self.error(
                f"must be text, not {value.kind}" if isinstance(value, Unreadable) else "is empty"
            )
        if value.has_value:
            self._refuse(_flaw_of(value, flaw_in_header if self.in_header else flaw))
        return value

    def _refuse(self, found: str | None) -> None:
        if found is not None:
            raise self.error(f"holds {found}", remedy=f"Enter '{self.name}' again, without it.")

    def _parse_number(self, value: object) -> int | float:
        number_type = int if self.kind == "integer" else float
        a_number = "a whole number" if self.kind == "integer" else "a number"
        # bool is an int to Python; a flag in place of a number is still a mistake.
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise self.error(f"must be {a_number}, not {type(value).__name__}")
        try:
            number = number_type(value)
        except (ValueError, OverflowError):
            raise self.error(f"must be {a_number}, not {_shortly(value)}") from None
        if number in (float("inf"), float("-inf")):
            raise self.error(f"is {number}", remedy="Use a finite number.")
        if number != number or (isinstance(value, float) and number != value):
            raise self.error(f"must be {a_number}, not {_shortly(value)}")
        if self.minimum is not None and number < self.minimum:
            raise self.error(f"is {_shortly(number)}", remedy=f"Use at least {self.minimum:g}.")
        if self.maximum is not None and number > self.maximum:
            raise self.error(f"is {_shortly(number)}", remedy=f"Use at most {self.maximum:g}.")
        return number

    def error(self, problem: str, *, remedy: str | None = None) -> ConfigError:
        """An error that names this field."""
        hint = f" (environment: {' or '.join(self.env)})" if self.env else ""
        return ConfigError(
            f"Setting '{self.name}' {problem}.", remedy=remedy or f"Correct '{self.name}'{hint}."
        )

    def json_schema(self) -> dict[str, Any]:
        """The field as a JSON-schema fragment for Airflow's connection form.

        It has no default: the form would store it with every connection, and it would look like a choice.
        """
        json_type = "string" if self.kind == "secret" else self.kind
        schema: dict[str, Any] = {"type": [json_type, "null"]}
        if self.kind == "secret":
            schema["format"] = "password"
        if self.choices:
            schema["enum"] = list(self.choices)
        if self.minimum is not None:
            schema["minimum"] = self.minimum
        if self.maximum is not None:
            schema["maximum"] = self.maximum
        return schema

    def help(self) -> str:
        """The description, and what applies if the field is left blank."""
        if self.default is None:
            return self.description
        if self.of_deployment:
            return f"{self.description} Left blank: the deployment's, or else {self.default}."
        return f"{self.description} Left blank: {self.default}."


@dataclass(frozen=True)
class Unreadable:
    """What is kept of a secret that is not text: the name of its type."""

    kind: str


def _flaw_of(secret: Secret, look: Callable[[str], str | None]) -> str | None:
    # A separate function, whose frame is gone when the error is raised.
    return look(secret.reveal())


def _shortly(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


@cache
def _say_once(line: str) -> None:
    logger.warning(line)


def field(
    default: Any,
    label: str,
    description: str,
    *,
    kind: Kind = "string",
    env: tuple[str, ...] = (),
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    in_header: bool = False,
    is_host: bool = False,
    of_deployment: bool = False,
) -> Any:
    """A dataclass field with its row of the table, except name and default."""
    row = {
        "kind": kind,
        "label": label,
        "description": description,
        "env": env,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "in_header": in_header,
        "is_host": is_host,
        "of_deployment": of_deployment,
    }
    return dataclasses.field(default=default, metadata={"setting": row})
