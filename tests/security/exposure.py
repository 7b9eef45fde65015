"""What an error shows to whoever has it: a log, a tool that prints local variables, a debugger, a pickle."""

from __future__ import annotations

import base64
import contextlib
import functools
import logging
import pickle
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import (
    AsyncGeneratorType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
)
from urllib.parse import quote

import psycopg
import structlog.tracebacks
from pydantic import BaseModel
from rich.traceback import Traceback as RichTraceback

from lakebase_provider.core.base.secret import Secret
from tests.security.error_sites import FOLDERS, ROOT

#: How far from a variable something may lie: a client's pool's connector's configuration lies four away.
_DEPTH = 7
#: Characters of a secret that are looked for: tools cut long texts off.
_LOOKED_FOR = 40
_TESTS = ROOT / "tests"
#: What belongs to everybody, and leads everywhere.
_NOT_FOLLOWED = (ModuleType, type, logging.Logger, logging.Handler, Secret)

Where = str
Shown = tuple[Where, "str | bytes"]


@dataclass
class Canaries:
    """Secrets that must not sing, by a name of each that may be shown."""

    _forms: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def add(self, value: str) -> None:
        """From now on look for this secret, in each way in which it may be written."""
        value = value[:_LOOKED_FOR]
        raw = value.encode("utf-8", "surrogatepass")
        # Three, for what stands before it moves it against the groups of base64; the ends depend on others.
        coded = [base64.b64encode(b"\0" * before + raw)[4 if before else 0 : -4] for before in range(3)]
        texts = {value, quote(value, safe=""), raw.hex(), repr(value)[1:-1], *(c.decode() for c in coded)}
        texts |= {c.decode().translate(str.maketrans("+/", "-_")) for c in coded}
        for text in texts:
            self._forms[text] = (text, text.encode("utf-8", "surrogatepass"))
        for coding in ("utf-16-le", "utf-16-be"):
            self._forms[f"{value} {coding}"] = ("", value.encode(coding, "surrogatepass"))

    def __len__(self) -> int:
        return len(self._forms)

    def in_any(self, shown: Iterable[Shown]) -> list[Where]:
        """Where one of them shows."""
        return sorted({where for where, text in shown if self._in(text)})

    def _in(self, text: str | bytes) -> bool:
        if isinstance(text, str):
            return any(form and form in text for form, _ in self._forms.values())
        return any(form in text for _, form in self._forms.values())


def shown_by(error: BaseException) -> Iterator[Shown]:
    """Everything that the error shows, and where.

    Of its frames these count: from the first one of the package downwards, whosesoever the ones below are.
    Above are the caller's, and a test's are the tests'.
    """
    walk = _Walk()
    for number, step in enumerate(chain(error)):
        where = f"{type(step).__name__}#{number}"
        yield from _texts(step, where)
        yield from walk.through(_state(step), where, 0)
        if isinstance(step, psycopg.Error):
            yield from _of_psycopg(step, where)
        for frame, line in counted(step, outermost=number == 0):
            at = f"{where} {_short(frame)}:{line}"
            yield from walk.through(frame.f_locals, at, 0)
            yield from _printed(frame, line, at)
    yield "traceback", "".join(traceback.format_exception(error))
    yield from _by_tools(error)


def chain(error: BaseException) -> list[BaseException]:
    """The error, what caused it, in which context, and the members of groups."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        step = waiting.pop(0)
        if step is not None and not any(step is seen for seen in found):
            found.append(step)
            waiting += [step.__cause__, step.__context__, *getattr(step, "exceptions", ())]
            # An error that somebody keeps in an argument is printed with it.
            waiting += [value for value in step.args if isinstance(value, BaseException)]
    return found


def counted(error: BaseException, *, outermost: bool) -> list[tuple[FrameType, int]]:
    """The frames that are the package's concern, with the line at which each is."""
    frames = list(traceback.walk_tb(error.__traceback__))
    ours = next((i for i, (frame, _) in enumerate(frames) if _is_below(frame, *FOLDERS)), None)
    if ours is None:
        # What others raise where none of ours is below: Dagster wraps errors that way.
        ours = len(frames) if outermost else 0
    return [(frame, line) for frame, line in frames[ours:] if not _is_below(frame, _TESTS)]


def shown_by_value(value: object, where: str = "value") -> Iterator[Shown]:
    """What an object shows to who walks through its state."""
    yield from _Walk().through(value, where, 0)


class _Walk:
    """A walk through objects that meets each of them once."""

    def __init__(self) -> None:
        # Kept, so that no identity is given away again.
        self._seen: dict[int, object] = {}

    def through(self, value: object, where: str, depth: int) -> Iterator[Shown]:
        if isinstance(value, (str, bytes, bytearray, memoryview)):
            yield where, value if isinstance(value, str) else bytes(value)
            return
        if value is None or isinstance(value, (bool, int, float)) or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if not isinstance(value, (dict, list, tuple, set, frozenset)):
            yield f"{where} (repr)", _repr(value)
        if isinstance(value, _NOT_FOLLOWED) or _is_the_tests(value) or depth >= _DEPTH:
            return
        for name, part in _parts_of(value):
            yield from self.through(part, f"{where}{name}", depth + 1)


def _parts_of(value: object) -> list[tuple[str, object]]:
    try:
        return list(_parts(value))
    except Exception:  # others forbid to be looked at in one way or another; then by their state
        return [(f".{name}", part) for name, part in _state(value).items()]


def _parts(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, item in list(value.items()):
            yield "(key)", key
            yield f"[{_repr(key)[:40]}]", item
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        yield from ((f"[{i}]", item) for i, item in enumerate(list(value)[:1000]))
    elif isinstance(value, FunctionType):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                yield f".<closure>.{name}", cell.cell_contents
            except ValueError:
                continue
        yield ".<defaults>", (value.__defaults__, value.__kwdefaults__)
    elif isinstance(value, MethodType):
        yield ".__self__", value.__self__
        yield ".__func__", value.__func__
    elif isinstance(value, functools.partial):
        yield ".<partial>", (value.func, value.args, value.keywords)
    elif isinstance(value, GeneratorType):
        yield ".<frame>", _locals(value.gi_frame)
    elif isinstance(value, CoroutineType):
        yield ".<frame>", _locals(value.cr_frame)
    elif isinstance(value, AsyncGeneratorType):
        yield ".<frame>", _locals(value.ag_frame)
    else:
        yield from ((f".{name}", part) for name, part in _state(value).items())


def _state(value: object) -> dict[str, object]:
    try:
        found = dict(vars(value))
    except TypeError:
        found = {}
    if isinstance(value, BaseException):
        found["args"] = value.args
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            name = f"_{kind.__name__.lstrip('_')}{slot}" if slot.startswith("__") else slot
            # Not there yet, or others' that may not be asked for.
            with contextlib.suppress(Exception):
                found[name] = getattr(value, name)
    if isinstance(value, BaseModel):
        # A literal that Dagster keeps as it was given: its store, and documented as such. A secret that is
        # given by a variable is held to the same as all else.
        for name, info in type(value).model_fields.items():
            extra = info.json_schema_extra
            if isinstance(extra, dict) and extra.get("dagster__is_secret"):
                found.pop(name, None)
        found.pop("_state__internal__", None)
    return found


def _texts(error: BaseException, where: str) -> Iterator[Shown]:
    yield f"{where} str", str(error)
    yield f"{where} repr", repr(error)
    yield f"{where} notes", "\n".join(map(str, getattr(error, "__notes__", ())))
    try:
        yield f"{where} pickle", pickle.dumps(error)
    except Exception as refused:
        yield f"{where} pickle", str(refused)


def _of_psycopg(error: psycopg.Error, where: str) -> Iterator[Shown]:
    """What psycopg knows behind the error: the connection that failed, the server's word, the result."""
    pgconn = error.pgconn
    if pgconn is not None:
        for name in ("password", "user", "options", "error_message"):
            try:
                yield f"{where}.pgconn.{name}", getattr(pgconn, name)
            except psycopg.Error:
                continue
        with contextlib.suppress(psycopg.Error):
            yield from ((f"{where}.pgconn.info", option.val or b"") for option in pgconn.info)
    for name in dir(error.diag):
        if not name.startswith("_"):
            yield f"{where}.diag.{name}", str(getattr(error.diag, name))
    if error.pgresult is not None:
        yield f"{where}.pgresult", error.pgresult.error_message or b""


def _printed(frame: FrameType, line: int, where: str) -> Iterator[Shown]:
    summary = traceback.StackSummary.extract(iter([(frame, line)]), capture_locals=True)
    yield f"{where} (capture_locals)", "".join(summary.format())


def _by_tools(error: BaseException) -> Iterator[Shown]:
    """As the libraries print it that Airflow, Dagster and many programs use, with local variables."""
    counting = {
        (frame.f_code.co_filename, line, frame.f_code.co_name)
        for number, step in enumerate(chain(error))
        for frame, line in counted(step, outermost=number == 0)
    }
    kind = type(error)
    for stack in structlog.tracebacks.extract(kind, error, error.__traceback__, show_locals=True).stacks:
        for made in stack.frames:
            if (made.filename, made.lineno, made.name) in counting:
                yield f"structlog {made.name}", repr(made.locals)
    rich = RichTraceback.extract(
        kind, error, error.__traceback__, show_locals=True, locals_max_length=100, locals_max_string=400
    )
    for rich_stack in rich.stacks:
        for rich_frame in rich_stack.frames:
            if (rich_frame.filename, rich_frame.lineno, rich_frame.name) in counting:
                yield f"rich {rich_frame.name}", "\n".join(map(str, (rich_frame.locals or {}).values()))


def _locals(frame: FrameType | None) -> dict[str, object]:
    return {} if frame is None or _is_below(frame, _TESTS) else dict(frame.f_locals)


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(error).__name__}>"


def _is_the_tests(value: object) -> bool:
    return type(value).__module__.partition(".")[0] in ("tests", "_pytest", "pytest")


def _is_below(frame: FrameType, *folders: Path) -> bool:
    return any(frame.f_code.co_filename.startswith(f"{folder}/") for folder in folders)


def _short(frame: FrameType) -> str:
    return f"{Path(frame.f_code.co_filename).name} {frame.f_code.co_name}"


class Log(logging.Handler):
    """Everything that anybody logs, and what a record carries besides its line."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.shown: list[Shown] = []

    def emit(self, record: logging.LogRecord) -> None:
        where = f"log {record.name}"
        self.shown.append((where, record.getMessage()))
        self.shown.append((where, _repr(record.args)))
        if record.exc_info and record.exc_info[1] is not None:
            self.shown += [(f"{where} {at}", text) for at, text in shown_by(record.exc_info[1])]
