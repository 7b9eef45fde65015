"""What all kinds of objects have in common: how they are read, described, created, changed and deleted.

A kind is a frozen dataclass, whose fields say where the workspace's JSON has them (:class:`At`), and a table
of the options by which it is described (:class:`Option`). Bodies and update masks are made from that table.
JSON is read as it comes: a state that no SDK knows yet stays the text that it is.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, TypeVar, get_type_hints

from lakebase_provider.core.base.clock import Clock, Deadline
from lakebase_provider.core.config import LakebaseConfig, arguments
from lakebase_provider.core.config.resource_names import (
    FORMATS,
    Kind,
    NameRefusedError,
    id_of,
    parent_of,
    resource_path,
)
from lakebase_provider.core.errors import (
    AlreadyExistsError,
    ConfigError,
    LakebaseError,
    NotFoundError,
)
from lakebase_provider.core.errors.remedy import Remedy
from lakebase_provider.core.workspace.answers import Answer
from lakebase_provider.core.workspace.http_limits import Limit, at_most, within
from lakebase_provider.core.workspace.objects.option_values import told_as
from lakebase_provider.core.workspace.operations import (
    DEFAULT_TIMEOUT,
    Operation,
    begun,
    in_thread,
    until,
)
from lakebase_provider.core.workspace.workspace import ControlPlane
from lakebase_provider.core.workspace.writes import again_while_busy, alone, created_once

_Result = TypeVar("_Result")
Shape = TypeVar("Shape", bound="Named")

#: Seconds within which it is to be learnt what became of a request whose answer was lost.
_LOST_ANSWER = 30.0
#: Seconds within which a read is repeated, as long as one request may take.
_READ = 20.0
_COLLECTIONS = {"branch": "branches"}


# Reading.


@dataclass(frozen=True)
class At:
    """Where an object's field is in the workspace's JSON, for its annotation. Its default stands for none.

    Attributes:
        path: Such as ``"status.hosts.host"``.
        read: Method of :class:`.Answer` that reads it.
    """

    path: str
    read: Callable[[Answer, str], Any]


@dataclass(frozen=True, kw_only=True)
class Named:
    """An object of the workspace.

    Attributes:
        name: Its full name.
    """

    name: Annotated[str, At("name", Answer.text)] = ""

    @property
    def id(self) -> str:
        """The last part of its name."""
        return id_of(self.name)

    @property
    def is_settled(self) -> bool:
        """Whether it is not on its way to another state."""
        return True

    @property
    def is_being_made(self) -> bool:
        """Whether its creation goes on, so that not all about it is told yet."""
        return False

    @classmethod
    def of(cls: type[Shape], resource: Mapping[str, Any], what: str) -> Shape:
        """The object that an answer describes.

        Raises:
            ControlPlaneError: A field is not what it should be; the error names it.
        """
        where = places(cls)  # type: ignore[arg-type] # mypy takes a class variable for unhashable
        found = {name: _read(Answer(resource, what), place) for name, place in where.items()}
        return cls(**{name: value for name, value in found.items() if value is not None})


def _read(answer: Answer, place: At) -> Any:
    *groups, name = place.path.split(".")
    for group in groups:
        answer = answer.object(group)
    return place.read(answer, name)


@functools.cache
def places(shape: Any) -> dict[str, At]:
    """Where each field of a kind of object is in the workspace's JSON."""
    hints: dict[str, Any] = get_type_hints(shape, include_extras=True)
    return {f.name: hints[f.name].__metadata__[0] for f in dataclasses.fields(shape)}


# Describing.


@dataclass(frozen=True)
class Option:
    """A row of the table of what describes an object.

    Attributes:
        path: Where the body has it, such as ``"spec.is_protected"``.
        encode: Checks it, and returns it as JSON has it.
        mask: What an update names it as; None: it cannot be changed.
        group: Options of one group exclude each other; those of one mask are one.
        creates: Whether it can be given at creation.
        is_name: Kind of the object whose name it is; such a name may be given as an id.
        reads: Attribute of the object that holds it; None if the workspace does not tell it.
    """

    path: str
    encode: Callable[[str, Any], Any]
    mask: str | None = None
    group: str | None = None
    creates: bool = True
    is_name: Kind | None = None
    reads: str | None = None


class Objects(Generic[Shape]):
    """The objects of one kind.

    Wherever an object is named, its id is enough if the configuration says what it is in.

    Args:
        config: Says which project and branch a bare id is in.
        control_plane: Sends the requests.
        clock: Where the time comes from.
    """

    kind: ClassVar[Kind]
    shape: type[Shape]
    options: ClassVar[Mapping[str, Option]] = {}
    #: What is created where an option is not given, as far as it is compared.
    defaults: ClassVar[Mapping[str, Any]] = {}
    #: Option with the name that Postgres knows it by, which another id may have.
    known_as: ClassVar[str | None] = None

    def __init__(self, config: LakebaseConfig, control_plane: ControlPlane, clock: Clock) -> None:
        self._config = config
        self._control_plane = control_plane
        self._clock = clock

    def _deadline(self, timeout: float | Deadline) -> Deadline:
        """Until when a call may take; one that is part of another has the other's."""
        if isinstance(timeout, Deadline):
            return timeout
        return Deadline(arguments.timeout(timeout), self._clock)

    # Names.

    def full_name(self, name: str, kind: Kind | None = None) -> str:
        """The full name of an object.

        Args:
            name: A full name, or an id in the configuration's project and branch.
            kind: What it is; an object of this kind by default.

        Raises:
            ConfigError: It is no name, or the configuration does not say what the id is in.
        """
        kind = kind or self.kind
        arguments.text(f"The name of the {kind}", name, f"Give its id, or {FORMATS[kind]}.")
        if "/" not in name:
            parent = self._own(kind)
            name = f"{parent}/{name}" if parent is not None else name
        try:
            return resource_path(kind, name)
        except NameRefusedError as refused:
            raise ConfigError(f"The name of the {kind} {refused.problem}.", remedy=refused.remedy) from None

    def _own(self, kind: Kind) -> str | None:
        """What an id of that kind is in, by the configuration."""
        project, branch = self._config.project, self._config.branch
        collection = _COLLECTIONS.get(kind, f"{kind}s")
        if kind in ("project", "catalog", "synced_table"):
            return collection
        if project is None or (kind not in ("branch", "snapshot") and branch is None):
            return None
        inside = "" if kind in ("branch", "snapshot") else f"/branches/{branch}"
        return f"projects/{project}{inside}/{collection}"

    def _parent(self, parent: str | None) -> str:
        """The full name of what objects of this kind are in."""
        kind: Kind = "project" if self.kind in ("branch", "snapshot") else "branch"
        own = self._config.project if kind == "project" else self._config.branch
        name = parent if parent is not None else own
        if name is None:
            raise ConfigError(
                f"The {kind} is not named, and the configuration names none.", remedy=f"Use {FORMATS[kind]}."
            )
        return self.full_name(name, kind)

    # Reading.

    def get(self, name: str) -> Shape:
        """The object of that name.

        If the workspace fails or its answer is lost, it is asked again for 20 s, as by each read.

        Raises:
            NotFoundError: There is none, or the principal cannot see it.
            LakebaseError: The workspace refused or could not be reached.
        """
        name = self.full_name(name)
        what = f"{self.kind} {name}"
        return self._told(self._read(what, name), name)

    def _told(self, resource: Mapping[str, Any], name: str) -> Shape:
        """The object that an answer describes, which is to be the one of that name."""
        what = f"{self.kind} {name}"
        Answer(resource, what).require_name(self._answered_as(name))
        return self.shape.of(resource, what)

    def _answered_as(self, name: str) -> str:
        """What an answer about the object of that name calls it."""
        return name

    def _read(self, what: str, path: str) -> Mapping[str, Any]:
        return self._asked(lambda: self._control_plane.request(what, "GET", path))

    def _asked(self, ask: Callable[[], _Result]) -> _Result:
        return again_while_busy(ask, Deadline(at_most(_READ), self._clock), self._clock, lost=[])

    def find(self, name: str) -> Shape | None:
        """The object of that name; None if there is none."""
        try:
            return self.get(name)
        except NotFoundError:
            return None

    def _list(self, parent: str | None, **query: Any) -> tuple[Shape, ...]:
        collection = _COLLECTIONS.get(self.kind, f"{self.kind}s")
        path = collection if parent is None else f"{parent}/{collection}"
        what = f"the {collection} of {parent or 'the workspace'}"
        found = self._asked(lambda: tuple(self._control_plane.pages(what, path, collection, query)))
        return tuple(self.shape.of(one.fields, what) for one in found)

    # Describing.

    def _body(self, given: Mapping[str, Any], *, creating: bool) -> tuple[dict[str, Any], list[str]]:
        """The body for options, and its update mask; what is None was not given."""
        body: dict[str, Any] = {}
        groups_given: dict[str, str] = {}
        mask: dict[str, None] = {}
        for name, value in given.items():
            option = self._option(name, creating=creating)
            if value is None:
                continue
            other = groups_given.setdefault(option.group or option.mask or option.path, name)
            if other != name:
                raise ConfigError(f"Both '{other}' and '{name}' are given.", remedy="Keep one of them.")
            if option.mask is not None:
                mask[option.mask] = None
            *groups, leaf = option.path.split(".")
            place = body
            for group in groups:
                place = place.setdefault(group, {})
            value = option.encode(name, value)
            place[leaf] = self.full_name(value, option.is_name) if option.is_name else value
        return body, list(mask)

    def _option(self, name: str, *, creating: bool) -> Option:
        known = {n: o for n, o in self.options.items() if (o.creates if creating else o.mask is not None)}
        if name not in known:
            raise ConfigError(
                f"Option '{name}' of a {self.kind} cannot be {'given' if creating else 'changed'}.",
                remedy=f"The options are: {', '.join(known)}.",
            )
        return known[name]

    def _differences(self, found: Shape, given: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Options whose value differs from what the workspace tells: what is there, and what is wanted."""
        different = {}
        for name, value in given.items():
            option = self._option(name, creating=name not in self.options or self.options[name].creates)
            if value is None:
                continue
            option.encode(name, value)
            if option.reads is None:
                continue
            there = getattr(found, option.reads)
            wanted = self.full_name(value, option.is_name) if option.is_name else value
            if not told_as(wanted, there):
                different[name] = (there, wanted)
        # Counted from a creation that the caller does not know, it can be compared in kind only.
        if given.get("ttl") is not None and getattr(found, "expire_time", None) is None:
            different["ttl"] = (None, given["ttl"])
        return different

    # Writing.

    @contextmanager
    def _alone(self, name: str, deadline: Deadline) -> Iterator[None]:
        # A catalog is in no project.
        with alone(self._config, "/".join(name.split("/")[:2]), deadline):
            yield

    def _send(
        self,
        verb: str,
        method: str,
        name: str,
        deadline: Deadline,
        *,
        path: str | None = None,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        lost: list[LakebaseError] | None = None,
    ) -> Operation:
        """The operation that the workspace has begun; `lost` as in :func:`.again_while_busy`."""

        what = f"{self.kind} {name}"

        def send() -> Mapping[str, Any]:
            return self._control_plane.request(what, method, path or name, body=body, query=query, verb=verb)

        answer = again_while_busy(send, deadline, self._clock, lost)
        return begun(answer, what, name, self._control_plane, self._clock)

    def _finish(self, operation: Operation, deadline: Deadline) -> Mapping[str, Any]:
        """What the operation has made, once it is done."""
        subject = f"The operation {operation.name}"
        return until(operation.result, subject, operation.name, deadline, self._clock)

    def _begin_create(
        self, name: str, given: Mapping[str, Any], deadline: Deadline, **query: Any
    ) -> Operation:
        body, _ = self._body(given, creating=True)
        return self._send(
            "create",
            "POST",
            name,
            deadline,
            path=name.rpartition("/")[0],
            body=body,
            query={f"{self.kind}_id": id_of(name), **query},
        )

    def _create(
        self,
        name: str,
        given: Mapping[str, Any],
        timeout: float | Deadline,
        *,
        is_new: bool = False,
        **query: Any,
    ) -> Shape:
        """Create it and return it when the operation is done; a lost answer is looked up.

        `is_new` says that there is none of that name for certain.
        """
        name = self.full_name(name)
        deadline = self._deadline(timeout)
        with self._alone(name, deadline):
            begun = self._begin(name, given, deadline, is_new=is_new, **query)
            return self._made(self._finish(begun, deadline), name) if isinstance(begun, Operation) else begun

    def _begun(self, name: str, given: Mapping[str, Any], timeout: float) -> Operation:
        """The operation that creates it; if its name is lost, one of the object's name, which is done."""
        name = self.full_name(name)
        deadline = self._deadline(timeout)
        with self._alone(name, deadline):
            begun = self._begin(name, given, deadline)
        return begun if isinstance(begun, Operation) else Operation(name, self._control_plane, self._clock)

    def _begin(
        self, name: str, given: Mapping[str, Any], deadline: Deadline, *, is_new: bool = False, **query: Any
    ) -> Operation | Shape:
        """The operation that creates it; the settled object if the answer was lost."""
        self._body(given, creating=True)
        # If the answer is lost, nothing else tells what this call has made from what was there before.
        is_new = is_new or self._is_absent(name, deadline)
        try:
            operation, was_absent = created_once(
                lambda: self._begin_create(name, given, deadline, **query),
                lambda: self._is_there(name, deadline),
                deadline,
                self._clock,
            )
        except AlreadyExistsError as error:
            if not hasattr(self, "undelete") or self.find(name) is not None:
                raise
            raise self._unseen(error, name) from error.__cause__
        return operation or self._mine(name, given, deadline, is_new=is_new or was_absent)

    def _is_absent(self, name: str, deadline: Deadline) -> bool:
        try:
            with within(Limit(deadline.remaining())):
                return self.find(name) is None
        except LakebaseError:
            # It is not known; the request to create it says what is wrong.
            return False

    def _is_there(self, name: str, deadline: Deadline) -> bool:
        soon = Deadline(min(_LOST_ANSWER, deadline.remaining()), self._clock)
        return (
            until(lambda: (self.find(name),), f"The look-up of {name}", name, soon, self._clock)[0]
            is not None
        )

    def _mine(self, name: str, given: Mapping[str, Any], deadline: Deadline, *, is_new: bool) -> Shape:
        """The object that a request has made whose answer was lost, once it is settled."""
        if not is_new:
            raise AlreadyExistsError(f"The {self.kind} {name} was there before it was to be created.")
        found = self._once_made(name, deadline)
        # Somebody else may have made one at the same moment.
        self._require_same(name, self._differences(found, {**self.defaults, **given}))
        return found

    def _once_made(self, name: str, deadline: Deadline) -> Shape:
        """The object, once whoever creates it has done so."""
        return until(lambda: self._if_made(name), f"The creation of {name}", name, deadline, self._clock)

    def _if_made(self, name: str) -> Shape | None:
        found = self.get(name)
        return found if found.is_settled else None

    def _made(self, resource: Mapping[str, Any], name: str) -> Shape:
        return self._told(resource, name) if resource.get("name") else self.get(name)

    def _begin_update(
        self, name: str, changes: Mapping[str, Any], deadline: Deadline, **required: Any
    ) -> Operation:
        body, mask = self._body(changes, creating=False)
        if not mask:
            raise ConfigError(f"No change of {name} is given.", remedy="Give at least one option.")
        body.setdefault("spec", {}).update(required)
        query = {"update_mask": ",".join(sorted(mask))}
        return self._send("update", "PATCH", name, deadline, body=body, query=query, lost=[])

    def _update(
        self, name: str, changes: Mapping[str, Any], timeout: float | Deadline, **required: Any
    ) -> Shape:
        name = self.full_name(name)
        deadline = self._deadline(timeout)
        with self._alone(name, deadline):
            operation = self._begin_update(name, changes, deadline, **required)
            return self._made(self._finish(operation, deadline), name)

    def _delete(self, name: str, timeout: float | Deadline, *, missing_ok: bool, **query: Any) -> None:
        name = self.full_name(name)
        deadline = self._deadline(timeout)
        lost: list[LakebaseError] = []
        try:
            with self._alone(name, deadline):
                self._finish(self._send("delete", "DELETE", name, deadline, query=query, lost=lost), deadline)
        except NotFoundError:
            # After a lost answer that is what the lost request has done.
            if not (missing_ok or lost):
                raise

    def _undelete(self, name: str, timeout: float) -> Shape:
        name = self.full_name(name)
        deadline = self._deadline(timeout)
        with self._alone(name, deadline):
            lost: list[LakebaseError] = []
            try:
                path = f"{name}/undelete"
                operation = self._send("undelete", "POST", name, deadline, path=path, body={}, lost=lost)
            except LakebaseError:
                found = self.find(name) if lost else None
                if found is None or getattr(found, "delete_time", None) is not None:
                    raise
                # That it is not deleted is what the lost request has done.
                return found
            return self._made(self._finish(operation, deadline), name)

    def _ensure(self, name: str, given: Mapping[str, Any], timeout: float, **query: Any) -> Shape:
        """Create it unless it is there; then change what differs and can be changed."""
        name = self.full_name(name)
        deadline = self._deadline(timeout)
        found = self.find(name)
        if found is None:
            try:
                return self._create(name, given, deadline, is_new=True, **query)
            except AlreadyExistsError as error:
                # Somebody else has just made it, or it has another id.
                found = self.find(name) or self._of_another_id(name, given)
                if found is None:
                    raise (
                        error if hasattr(self, "undelete") else self._unseen(error, name)
                    ) from error.__cause__
        if found.is_being_made:
            found = self._once_made(found.name, deadline)
        different = self._differences(found, given)
        self._require_changeable(found.name, different)
        changes = {option: wanted for option, (_, wanted) in different.items()}
        return self._change(found.name, changes, deadline) if changes else found

    def _of_another_id(self, name: str, given: Mapping[str, Any]) -> Shape | None:
        """The one that Postgres knows by the name that is wanted, under whatever id."""
        wanted = given.get(self.known_as) if self.known_as else None
        there = self._list(parent_of(name)) if self.known_as and wanted is not None else ()
        return next((one for one in there if getattr(one, self.known_as or "") == wanted), None)

    def _unseen(self, error: AlreadyExistsError, name: str) -> AlreadyExistsError:
        """The error about one that exists and cannot be found: it is deleted, or somebody else's."""
        remedy = "Use another name, or a principal that can see it."
        if hasattr(self, "undelete"):
            objects = _COLLECTIONS.get(self.kind, f"{self.kind}s")
            remedy = Remedy(
                f"{remedy} If it is deleted, bring it back: client.workspace.{objects}.undelete({name!r}), "
                f"or purge it: client.workspace.{objects}.delete({name!r}, purge=True).",
                options=("client",),
                otherwise=f"{remedy} If it is deleted, `lakebase branches undelete {name}` brings it back, "
                f"and `lakebase branches delete {name} --purge` frees its name.",
            )
        return AlreadyExistsError(f"{error.message.rstrip('.')}. It cannot be read.", remedy=remedy)

    def _require_changeable(self, name: str, different: Mapping[str, tuple[Any, Any]]) -> None:
        fixed = {option: pair for option, pair in different.items() if self.options[option].mask is None}
        self._require_same(name, fixed, " in what cannot be changed")
        # One that Postgres knows by another name is another one, and used by that name.
        known = {option: pair for option, pair in different.items() if option == self.known_as}
        rename = f"client.workspace.{self.kind}s.update({name!r}, {self.known_as}=…)"
        self._require_same(
            name, known, remedy=f"Use another id; or, if it is the same one, rename it: {rename}."
        )

    def _require_same(
        self,
        name: str,
        different: Mapping[str, tuple[Any, Any]],
        where: str = "",
        *,
        remedy: str = "Use another name, or delete it first.",
    ) -> None:
        if different:
            told = "; ".join(
                f"{option} is {there!r}, not {want!r}" for option, (there, want) in different.items()
            )
            raise AlreadyExistsError(
                f"The {self.kind} {name} exists, and differs{where}: {told}.", remedy=remedy
            )

    def _change(self, name: str, changes: Mapping[str, Any], timeout: float | Deadline) -> Shape:
        return self._update(name, changes, timeout)


__all__ = ["DEFAULT_TIMEOUT", "Named", "Objects", "Option", "At", "in_thread", "parent_of"]
