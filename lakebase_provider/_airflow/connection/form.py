"""The connection's form for Airflow 3.1, which asks the hook's class for it.

Since Airflow 3.2 the provider's description is enough; this is generated from it.
"""

from __future__ import annotations

from typing import Any

from lakebase_provider import get_provider_info

_BEHAVIOUR = {"hidden-fields": "hidden_fields", "relabeling": "relabeling", "placeholders": "placeholders"}


def field_behaviour() -> dict[str, Any]:
    """Which of the form's own fields are hidden, and what the others are called."""
    described = _description()["ui-field-behaviour"]
    return {name: described[key] for key, name in _BEHAVIOUR.items()}


def widgets() -> dict[str, Any]:
    """The form's further fields by name, of WTForms.

    Raises:
        ImportError: WTForms is missing. Airflow's web server brings a stand-in for it.
    """
    return {name: _widget(row) for name, row in _description()["conn-fields"].items()}


def _description() -> dict[str, Any]:
    [described] = get_provider_info()["connection-types"]
    found: dict[str, Any] = described
    return found


def _widget(row: dict[str, Any]) -> Any:
    # Not a dependency of this package: only a process that shows forms has it.
    from wtforms import IntegerField, PasswordField, StringField  # type: ignore[import-untyped] # has none
    from wtforms.validators import Optional, any_of  # type: ignore[import-untyped] # has none

    schema = row["schema"]
    kind, _null = schema["type"]
    validators = [Optional()]
    if "enum" in schema:
        validators.append(any_of(schema["enum"]))
    make = StringField
    if schema.get("format") == "password":
        make = PasswordField
    elif kind == "integer":
        make = IntegerField
    # Airflow's forms have no fractions; text that is a number is accepted as one.
    return make(row["label"], validators=validators, description=row["description"])
