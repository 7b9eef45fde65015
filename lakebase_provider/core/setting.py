"""What is known about one setting: the rows of which :class:`LakebaseConfig` is the table."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.secret import Secret

Kind = Literal["string", "integer", "number", "secret"]


@dataclass(frozen=True)
class Setting:
    """What is known about one field of :class:`LakebaseConfig` (a row of the table)."""

    name: str
    kind: Kind
    default: Any
    label: str
    description: str
    env: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None

    def parse(self, value: object) -> Any:
        """Turn a text or a native value into the field's type.

        Raises:
            ConfigError: It does not fit; the message names the field and the value's kind, never the value
                of a secret.
        """
        if self.kind == "secret":
            if isinstance(value, Secret):
                return value
            if isinstance(value, str):
                return Secret(value)
            raise self.error(f"must be text, not {type(value).__name__}")
        if self.kind == "string":
            if not isinstance(value, str):
                raise self.error(f"must be text, not {type(value).__name__}")
            if self.choices and value not in self.choices:
                raise self.error(f"is {value!r}", remedy=f"Use one of: {', '.join(self.choices)}.")
            return value
        return self._parse_number(value)

    def _parse_number(self, value: object) -> int | float:
        number_type = int if self.kind == "integer" else float
        a_number = "a whole number" if self.kind == "integer" else "a number"
        # bool is an int to Python; a flag where a number belongs is a mistake all the same.
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise self.error(f"must be {a_number}, not {type(value).__name__}")
        try:
            number = number_type(value)
        except (ValueError, OverflowError):
            raise self.error(f"must be {a_number}, not {value!r}") from None
        if number != number or (isinstance(value, float) and number != value):
            raise self.error(f"must be {a_number}, not {value!r}")
        if self.minimum is not None and number < self.minimum:
            raise self.error(f"is {number}", remedy=f"Use at least {self.minimum:g}.")
        if self.maximum is not None and number > self.maximum:
            raise self.error(f"is {number}", remedy=f"Use at most {self.maximum:g}.")
        return number

    def error(self, problem: str, *, remedy: str | None = None) -> ConfigError:
        """An error that names this field."""
        hint = f" (environment: {' or '.join(self.env)})" if self.env else ""
        return ConfigError(
            f"Setting '{self.name}' {problem}.", remedy=remedy or f"Correct '{self.name}'{hint}."
        )

    def json_schema(self) -> dict[str, Any]:
        """The field as a JSON-schema fragment, as Airflow's connection form takes it."""
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
        if self.default is not None:
            schema["default"] = self.default
        return schema


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
) -> Any:
    """A dataclass field that carries its row of the table, apart from name and default."""
    row = {
        "kind": kind,
        "label": label,
        "description": description,
        "env": env,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
    }
    return dataclasses.field(default=default, metadata={"setting": row})
