"""The grammar of the names that the workspace gives its resources: what may stand in a path of a request.

A name becomes part of a URL. One with ``..``, ``/``, ``?`` or ``#`` in it would ask another path, such as a
file of the workspace, whose author could then say where the database is.
"""

from __future__ import annotations

import re
from urllib.parse import quote

ENDPOINT_FORMAT = "projects/<project>/branches/<branch>/endpoints/<endpoint>"

# Ids that people choose are lower case, the ones that are made may begin with a digit, as a UUID may.
_ID = "[A-Za-z0-9][A-Za-z0-9_-]{0,62}"
#: Name of a Lakebase Autoscaling endpoint. Match it as a whole.
ENDPOINT_NAME = re.compile(f"projects/{_ID}/branches/{_ID}/endpoints/{_ID}")
#: Name of a Lakebase Provisioned instance. Match it as a whole.
INSTANCE_NAME = re.compile(_ID)


class NameRefusedError(ValueError):
    """A text is not the name of a resource.

    Whoever knows where the text came from makes a :class:`.LakebaseError` of it.

    Attributes:
        problem: What is wrong, to be put after the setting's name; it repeats nothing of the text that a
            terminal would act upon.
        remedy: What to do.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


def endpoint_path(name: str) -> str:
    """The name of an endpoint, as a path of a URL takes it.

    Raises:
        NameRefusedError: It is not ``projects/<project>/branches/<branch>/endpoints/<endpoint>``.
    """
    return _checked(name, ENDPOINT_NAME, f"Use the form {ENDPOINT_FORMAT}, with ids and not display names.")


def instance_path(name: str) -> str:
    """The name of an instance, as a path of a URL takes it.

    Raises:
        NameRefusedError: It is not an id.
    """
    remedy = "Use only the instance's name: up to 63 letters, digits, '-' and '_'."
    return _checked(name, INSTANCE_NAME, remedy)


def _checked(name: str, grammar: re.Pattern[str], remedy: str) -> str:
    if not grammar.fullmatch(name):
        raise NameRefusedError(_shown(name), remedy)
    # By the grammar nothing is left to quote; should that widen, the path must not.
    return quote(name, safe="/")


def _shown(text: str) -> str:
    if not text:
        return "is empty"
    readable = text.isascii() and text.isprintable() and len(text) <= 300
    return f"is {text!r}" if readable else f"is a string of {len(text)} characters"
