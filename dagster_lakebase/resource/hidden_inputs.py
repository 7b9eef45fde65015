"""What a component refuses of its YAML, without showing it: it may be a secret, under whatever name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import dagster as dg
from dagster.components.resolved.errors import ResolutionException
from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import InitErrorDetails

from dagster_lakebase.resource.launchpad import MASK
from dagster_lakebase.resource.variables import is_variable_name
from lakebase_provider.core.config import settings
from lakebase_provider.core.config.field import Setting

#: Lines of a file in Dagster's errors.
_FILE = re.compile(r"^ *\d* \|.*\n?", re.MULTILINE)


class HiddenInputs(dg.Resolvable, dg.Model):
    """Base of components: no error that refuses their YAML repeats a value of it.

    Dagster itself adds the values to pydantic's errors, and the lines of the file to those of a resolver.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    @classmethod
    def model(cls) -> type[BaseModel]:
        """What the YAML is checked by."""
        return _hiding(cls, super().model())

    @classmethod
    def resolve_from_model(cls, context: dg.ResolutionContext, model: BaseModel) -> Any:
        """What the YAML gives."""
        refusal: Exception
        try:
            return super().resolve_from_model(context, model)
        except ValidationError as error:
            refusal = _without_inputs(error)
        except ResolutionException as error:
            refusal = ResolutionException(_FILE.sub("", str(error)))
        # Not where it is handled, or it would come with the one that shows them.
        raise refusal


@cache
def _hiding(component: type[HiddenInputs], derived: type[BaseModel]) -> type[BaseModel]:
    rows = [row for row in settings() if row.kind == "secret" and row.name in component.model_fields]

    def checked(cls: type[BaseModel], value: Any, handler: ModelWrapValidatorHandler[BaseModel]) -> BaseModel:
        refused = list(_secrets_as_text(value, rows))
        if not refused:
            try:
                return handler(value)
            except ValidationError as error:
                raise _without_inputs(error) from None
        raise ValidationError.from_exception_data(cls.__name__, refused, hide_input=True)

    validator: Any = model_validator(mode="wrap")
    return create_model(
        derived.__name__,
        __base__=derived,
        __doc__=derived.__doc__,
        __validators__={"checked": validator(classmethod(checked))},
    )


def _secrets_as_text(given: Any, rows: list[Setting]) -> Iterator[InitErrorDetails]:
    for row in rows:
        value = given.get(row.name) if isinstance(given, Mapping) else None
        if value is None or _is_variable(value):
            continue
        told = (
            f"{row.name} is a secret, but was given as {_kind(value)}. Give the name of its environment "
            f"variable: {row.name}: {{env: {row.env[0]}}}."
        )
        # Of pydantic's own kinds, for Dagster makes the error anew by its kind's name.
        ctx = {"error": ValueError(told)}
        yield InitErrorDetails(type="value_error", loc=(row.name,), input=MASK, ctx=ctx)


def _is_variable(value: Any) -> bool:
    if not isinstance(value, Mapping):
        # Made in Python.
        value = vars(value) if isinstance(value, BaseModel) else {}
    name = value.get("env")
    return set(value) == {"env"} and isinstance(name, str) and (is_variable_name(name) or name in os.environ)


def _kind(value: Any) -> str:
    return "what is no variable's name" if isinstance(value, Mapping) else type(value).__name__


def _without_inputs(error: ValidationError) -> ValidationError:
    refused = [
        InitErrorDetails(type=told["type"], loc=told["loc"], input=MASK, ctx=told.get("ctx", {}))
        for told in error.errors()
    ]
    return ValidationError.from_exception_data(error.title, refused, hide_input=True)
