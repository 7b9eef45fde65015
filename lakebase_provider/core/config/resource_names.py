"""The grammar of the workspace's resource names: what a request's path may contain.

A name becomes part of a URL. One with ``..``, ``/``, ``?`` or ``#`` in it would request another path, such as
a workspace file, whose author could then say where the database is.
"""

from __future__ import annotations

import re
from urllib.parse import quote

ENDPOINT_FORMAT = "projects/<project>/branches/<branch>/endpoints/<endpoint>"

# Ids that people choose are lower case; generated ones may begin with a digit, as a UUID may.
_ID = "[A-Za-z0-9][A-Za-z0-9_-]{0,62}"
#: Name of a Lakebase Autoscaling endpoint. Match it as a whole.
ENDPOINT_NAME = re.compile(f"projects/{_ID}/branches/{_ID}/endpoints/{_ID}")
#: Name of a Lakebase Provisioned instance. Match it as a whole.
INSTANCE_NAME = re.compile(_ID)


class NameRefusedError(ValueError):
    """A text is not the name of a resource.

    The caller, which knows where the text came from, turns it into a :class:`.LakebaseError`.

    Attributes:
        problem: What is wrong, to follow the setting's name; it repeats no terminal control characters.
        remedy: What to do.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


def endpoint_path(name: str) -> str:
    """The name of an endpoint, in the form for a URL's path.

    Raises:
        NameRefusedError: It is not ``projects/<project>/branches/<branch>/endpoints/<endpoint>``.
    """
    return _checked(name, ENDPOINT_NAME, f"Use the form {ENDPOINT_FORMAT}, with ids and not display names.")


def instance_path(name: str) -> str:
    """The name of an instance, in the form for a URL's path.

    Raises:
        NameRefusedError: It is not an id.
    """
    remedy = "Use only the instance's name: up to 63 letters, digits, '-' and '_'."
    return _checked(name, INSTANCE_NAME, remedy)


def _checked(name: str, grammar: re.Pattern[str], remedy: str) -> str:
    if not grammar.fullmatch(name):
        raise NameRefusedError(_shown(name), remedy)
    # The grammar leaves nothing to quote; if it ever allows more, the path must not.
    return quote(name, safe="/")


def _shown(text: str) -> str:
    if not text:
        return "is empty"
    readable = text.isascii() and text.isprintable() and len(text) <= 300
    return f"is {text!r}" if readable else f"is a string of {len(text)} characters"
