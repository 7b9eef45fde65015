"""The grammar of the workspace's resource names: what a request's path may contain.

A name becomes part of a URL. One with ``..``, ``/``, ``?`` or ``#`` in it would request another path, such as
a workspace file, whose author could then say where the database is.
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import quote

Kind = Literal[
    "project", "branch", "endpoint", "role", "database", "snapshot", "catalog", "synced_table", "cdf_config"
]

# Ids that people choose are lower case; generated ones may begin with a digit, as a UUID may.
_ID = "[A-Za-z0-9][A-Za-z0-9_-]{0,62}"
_PLACES: dict[Kind, tuple[str, ...]] = {
    "project": ("projects",),
    "branch": ("projects", "branches"),
    "endpoint": ("projects", "branches", "endpoints"),
    "role": ("projects", "branches", "roles"),
    "database": ("projects", "branches", "databases"),
    "snapshot": ("projects", "snapshots"),
    "catalog": ("catalogs",),
    "synced_table": ("synced_tables",),
    "cdf_config": ("projects", "branches", "databases", "cdf-configs"),
}
#: What each kind's name looks like, for people.
FORMATS: dict[Kind, str] = {
    kind: "/".join(f"{place}/<{place[:-2] if place == 'branches' else place[:-1]}>" for place in places)
    for kind, places in _PLACES.items()
}
ENDPOINT_FORMAT = FORMATS["endpoint"]
FORMATS["synced_table"] = "synced_tables/<catalog>.<schema>.<table>"
_GRAMMARS = {kind: "/".join(f"{place}/{_ID}" for place in places) for kind, places in _PLACES.items()}
# Unity Catalog's names may begin with an underscore, and are longer.
_UC_NAME = "[A-Za-z0-9_][A-Za-z0-9_-]{0,254}"
_GRAMMARS["catalog"] = f"catalogs/{_UC_NAME}"
_GRAMMARS["synced_table"] = rf"synced_tables/{_UC_NAME}\.{_UC_NAME}\.{_UC_NAME}"
#: Name of a table in the Unity Catalog, by its catalog and schema. Match it as a whole.
UC_TABLE = re.compile(rf"{_UC_NAME}\.{_UC_NAME}\.{_UC_NAME}")
#: Name of a Lakebase Autoscaling endpoint. Match it as a whole.
ENDPOINT_NAME = re.compile(_GRAMMARS["endpoint"])
#: Name of a Lakebase Provisioned instance. Match it as a whole.
INSTANCE_NAME = re.compile(_ID)
#: Uid of an endpoint, with which the name of its host begins.
ENDPOINT_UID = re.compile("ep-[A-Za-z0-9-]{1,60}")
# The ids of operations are Base64.
_OPERATION = re.compile(
    f"(?:{'|'.join(_GRAMMARS.values())})(?:/snapshot-schedule)?/operations/[A-Za-z0-9+/=_-]{{1,512}}"
)


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


def resource_path(kind: Kind, name: str) -> str:
    """The name of an object of that kind, in the form for a URL's path.

    Raises:
        NameRefusedError: It is not in the form that :data:`FORMATS` shows.
    """
    remedy = f"Use the form {FORMATS[kind]}, with ids and not display names."
    return _checked(name, re.compile(_GRAMMARS[kind]), remedy)


def endpoint_path(name: str) -> str:
    """The name of an endpoint, in the form for a URL's path.

    Raises:
        NameRefusedError: It is not ``projects/<project>/branches/<branch>/endpoints/<endpoint>``.
    """
    return resource_path("endpoint", name)


def instance_path(name: str) -> str:
    """The name of an instance, in the form for a URL's path.

    Raises:
        NameRefusedError: It is not an id.
    """
    remedy = "Use only the instance's name: up to 63 letters, digits, '-' and '_'."
    return _checked(name, INSTANCE_NAME, remedy)


def pipeline_path(identity: str) -> str:
    """The id of a pipeline, or of one of its updates, in the form for a URL's path.

    Raises:
        NameRefusedError: It is none.
    """
    return _checked(identity, INSTANCE_NAME, "Use the id as the workspace returned it.")


def operation_path(name: str) -> str:
    """The name of an operation, in the form for a URL's path.

    Raises:
        NameRefusedError: It is not ``projects/<project>/…/operations/<id>``.
    """
    return _checked(name, _OPERATION, "Use the operation's name as the workspace returned it.")


def parent_of(name: str) -> str:
    """The name of the object that the named one is in: of a branch its project."""
    return name.rsplit("/", 2)[0]


def id_of(name: str) -> str:
    """The last part of a name."""
    return name.rpartition("/")[2]


def _checked(name: str, grammar: re.Pattern[str], remedy: str) -> str:
    if not grammar.fullmatch(name):
        raise NameRefusedError(_shown(name), remedy)
    # The grammars leave nothing to quote; if one ever allows more, the path must not.
    return quote(name, safe="/=+")


def _shown(text: str) -> str:
    if not text:
        return "is empty"
    readable = text.isascii() and text.isprintable() and len(text) <= 300
    return f"is {text!r}" if readable else f"is a string of {len(text)} characters"
