"""Every remedy of the package, and whether the options that it names exist where it is read."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from dagster_lakebase import LakebaseBranchDeployment, LakebaseIOManager, LakebaseResource
from dagster_lakebase.io_manager.write_options import WriteOptions
from lakebase_provider.cli.command import parser
from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.load.plan import LOAD_OPTIONS
from lakebase_provider.core.config import settings
from lakebase_provider.core.database.synced.synced_upkeep import SyncedTableUpkeep
from lakebase_provider.core.errors import BadRowError, LoadInterruptedError
from lakebase_provider.core.errors.remedy import Remedy, offered, without_options
from lakebase_provider.core.upkeep.branches.branch_upkeep import BranchUpkeep
from lakebase_provider.core.upkeep.branches.lease_options import LeaseOptions
from lakebase_provider.core.upkeep.migrations.migrations import Migrations
from lakebase_provider.core.upkeep.rehearsal.rehearsal_options import RehearsalOptions
from lakebase_provider.core.upkeep.restoring.restore_rows import RestoreOptions
from lakebase_provider.core.workspace.objects.branches import Branches
from lakebase_provider.core.workspace.objects.endpoints import Endpoints
from lakebase_provider.core.workspace.objects.projects import Projects
from lakebase_provider.core.workspace.objects.snapshots import Snapshots
from lakebase_provider.core.workspace.objects.sync.cdf_configs import CdfConfigs
from lakebase_provider.core.workspace.objects.sync.synced_tables import SyncedTableOptions, SyncedTables
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.operators.load import LakebaseLoadOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator
from lakebase_provider.operators.sync import LakebaseSyncedTableOperator
from lakebase_provider.operators.transfer import LakebaseTransferOperator
from lakebase_provider.operators.unload import LakebaseUnloadOperator
from lakebase_provider.sensors.sql import LakebaseSqlSensor

ROOT = Path(__file__).parents[1]
KINDS = (Projects, Branches, Endpoints, Snapshots, SyncedTables, CdfConfigs)
SETTINGS = {row.name for row in settings()}
#: What is said of the server's settings, of SQL and of Python, and of calls that the remedy itself names.
NO_OPTIONS = {
    "transaction_timeout",
    "idle_session_timeout",
    "idle_in_transaction_session_timeout",
    "drop",  # reset_index(drop=True) of pandas
    "setting",  # lakebase://…?setting=value
    "partition_expr",  # a key of Dagster's metadata
    "execution_timeout",  # of every operator of Airflow
    "do_xcom_push",
    "output_path",
    "schema_overrides",  # of Polars' own reader, through get_df
    "handler",
    "enable_pg_native_login",  # of a project
    "endpoint",  # endpoint = projects/…, a setting's form
    "databricks_postgres",  # a database
    "day",  # of a folder's name
    "with",  # of Python
    "metadata",  # of Dagster's assets
    "numeric",  # of the calls that the remedy itself names
}


def parameters(*callables: object) -> set[str]:
    """The names of their parameters, those of what a class inherits included."""
    found: set[str] = set()
    for given in callables:
        kinds = [kind for kind in given.__mro__ if kind is not object] if isinstance(given, type) else [given]
        for kind in kinds:
            call = vars(kind).get("__init__") if isinstance(kind, type) else kind
            if callable(call):
                found |= inspect.signature(call).parameters.keys()
    return found


def methods(kind: type) -> set[str]:
    """The parameters of a class's public methods."""
    public = [vars(base)[name] for base in kind.__mro__ for name in vars(base) if not name.startswith("_")]
    return parameters(*(one for one in public if inspect.isfunction(one)))


#: The options that each front has.
OPTIONS: dict[str, set[str]] = {
    "core": SETTINGS | set(LOAD_OPTIONS) | methods(LakebaseClient),
    "hook": SETTINGS | set(LOAD_OPTIONS) | methods(LakebaseClient) | methods(LakebaseHook),
    "load operator": SETTINGS | parameters(LakebaseLoadOperator),
    "transfer operator": SETTINGS | parameters(LakebaseTransferOperator),
    "unload operator": SETTINGS | parameters(LakebaseUnloadOperator),
    "sql operator": SETTINGS | parameters(LakebaseSqlOperator, LakebaseSqlSensor),
    "synced table operator": SETTINGS
    | parameters(LakebaseSyncedTableOperator)
    | set(SyncedTableOptions.__annotations__),
    "resource": SETTINGS
    | set(LOAD_OPTIONS)
    | methods(LakebaseResource)
    | set(LakebaseBranchDeployment.model_fields),
    "io manager": SETTINGS
    | set(LakebaseIOManager.model_fields)
    | {field.name for field in fields(WriteOptions)} - {"mode", "keys"},  # these have other values here
}
#: The command line has what the environment holds, and its own arguments.
OPTIONS["command line"] = {row.name for row in settings() if row.env} | {"check", "timeout"}
#: What is given to the methods of ``client.workspace``.
OPTIONS["workspace"] = {
    *SETTINGS,
    *(option for kind in KINDS for option in kind.options),
    *(name for kind in KINDS for name in methods(kind)),
}
OPTIONS["lease"] = OPTIONS["workspace"] | set(LeaseOptions.__annotations__) | methods(BranchUpkeep)
OPTIONS["rehearsal"] = OPTIONS["lease"] | set(RehearsalOptions.__annotations__)
OPTIONS["restoring"] = OPTIONS["lease"] | set(RestoreOptions.__annotations__)
OPTIONS["synced tables"] = OPTIONS["workspace"] | methods(SyncedTableUpkeep)
OPTIONS["migrations"] = SETTINGS | methods(Migrations)
#: What can be given files.
OF_FILES = ("core", "hook", "load operator", "resource")
LOADS = ("core", "hook", "load operator", "transfer operator", "resource")
#: Files, and by which fronts what they raise is read; the first that fits counts.
RAISED: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"core/bulk/files/(csv_format|file_faults|found_files)\.py", OF_FILES),
    (r"core/bulk/sources/(csv_text|json_lines|from_files)\.py", OF_FILES),
    # A load's plan, which an I/O manager has none of.
    (r"core/bulk/load/(plan|load|commit|ledger|rejects|(transfer|since)/\w+)\.py", LOADS),
    (r"core/bulk/(tables/(swap|replace)|sources/\w+)\.py", LOADS),
    (r"core/bulk/unload/\w+\.py", ("core", "hook", "unload operator")),
    (r"core/database/freshness\.py", ("resource",)),
    (r"core/database/synced/", ("synced tables",)),
    # The command line borrows of no pool, and runs no statement for which it waits.
    (r"core/errors/kinds\.py:(PoolExhausted|LockTimeout|StatementTimeout)", (*LOADS, "io manager")),
    (r"core/errors/kinds\.py", (*LOADS, "io manager", "command line")),
    (r"core/bulk/", (*LOADS, "io manager")),
    (r"core/(errors/sqlstates|database/(refusals|row_remedies|catalog))\.py", (*LOADS, "io manager")),
    # Of work on a connection that somebody has.
    (r"core/(connect/pools/\w+|database/\w+)\.py", LOADS),
    (r"core/upkeep/health/", ("core",)),
    (r"core/upkeep/branches/(lease|branch_upkeep\.py:_leased_name)", ("lease",)),
    (r"core/(upkeep/branches|workspace/objects)/", ("workspace",)),
    (r"core/upkeep/migrations/", ("migrations",)),
    (r"core/upkeep/rehearsal/", ("rehearsal",)),
    (r"core/upkeep/restoring/", ("restoring",)),
    (r"core/", tuple(OPTIONS)),
    (r"_airflow/task/arguments\.py", ("load operator", "transfer operator", "sql operator")),
    (r"_airflow/task/", ("sql operator",)),
    (r"(hooks|_airflow)/", ("hook",)),
    (r"operators/transfer\.py", ("transfer operator",)),
    (r"operators/unload\.py", ("unload operator",)),
    (r"operators/(load|bulk)\.py", ("load operator", "transfer operator")),
    (r"operators/sync/", ("synced table operator",)),
    (r"(operators|sensors|triggers|decorators)/", ("sql operator",)),
    (r"dagster_lakebase/(resource|health|tables|storage|components|upkeep)/", ("resource",)),
    (r"dagster_lakebase/", ("io manager",)),
    (r"", tuple(OPTIONS)),
)

#: Names of what holds remedies, in tables and in constants.
TABLES = re.compile(r"remed|PATTERNS|_ROW_SECURITY|_BY_[A-Z]+|_STILL|_NO_PARTITION", re.IGNORECASE)


class Found(NamedTuple):
    """A remedy in the code."""

    place: str
    text: str
    #: Options that it may name, for there is another remedy where one is missing.
    covered: frozenset[str]


@cache
def remedies() -> tuple[Found, ...]:
    return tuple(
        found
        for folder in ("lakebase_provider", "dagster_lakebase")
        for file in sorted((ROOT / folder).rglob("*.py"))
        for found in _in_file(file)
    )


def _in_file(file: Path) -> Iterator[Found]:
    source = file.read_text()
    if TABLES.search(source) or "_Pattern" in source:
        place = file.relative_to(ROOT).as_posix()
        for function, node in _nodes(ast.parse(source), ""):
            yield from _of(node, f"{place}:{function}:{getattr(node, 'lineno', 0)}")


def _nodes(tree: ast.AST, function: str) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(tree):
        named = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        yield function, child
        yield from _nodes(child, child.name if named else function)


def _of(node: ast.AST, place: str) -> Iterator[Found]:
    given: ast.expr | None = None
    if isinstance(node, ast.keyword) and node.arg == "remedy":
        given = node.value
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        named = target.id if isinstance(target, ast.Name) else getattr(target, "attr", "")
        if TABLES.search(named):
            given = node.value
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_Pattern" and len(node.args) > 2:
        given = node.args[2]
    if given is not None:
        yield from _texts(given, place)


def _texts(node: ast.expr, place: str) -> Iterator[Found]:
    """The texts within an expression; each of the two of a remedy by options for itself."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Remedy", "_or_reject"):
        name = getattr(node.func, "id", "")
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        options = ast.literal_eval(keywords["options"]) if name == "Remedy" else ("on_error",)
        yield Found(place, _text(node.args[0]), frozenset(options))
        if name == "Remedy":
            yield Found(place, _text(keywords["otherwise"]), frozenset())
    elif isinstance(node, (ast.Constant, ast.JoinedStr, ast.BinOp)):
        yield Found(place, _text(node), frozenset())
    else:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                yield from _texts(child, place)


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return "…"


@cache
def known_options() -> frozenset[str]:
    """Names that are options somewhere and no words of English."""
    return frozenset(name for names in OPTIONS.values() for name in names if "_" in name)


def named_options(text: str) -> set[str]:
    """The options that a remedy names: by ``name=``, in backticks, or by a name that is no English word."""
    found = set(re.findall(r"\b([a-z][a-z_]*)=", text))
    found |= set(re.findall(r"`([a-z][a-z_]*)=?`", text))
    found |= set(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", text)) & known_options()
    return found - NO_OPTIONS


def fronts_of(place: str) -> tuple[str, ...]:
    return next(fronts for pattern, fronts in RAISED if re.search(pattern, place))


NAMING = [found for found in remedies() if named_options(found.text)]


def test_remedies_are_found() -> None:
    """Else the tests below would hold of nothing."""
    everything = remedies()
    assert len(everything) > 200
    assert {found.place.partition(":")[0] for found in everything} > {
        "lakebase_provider/core/errors/kinds.py",
        "lakebase_provider/core/errors/texts.py",
        "lakebase_provider/core/errors/sqlstates.py",
        "lakebase_provider/core/database/refusals.py",
        "lakebase_provider/core/database/row_remedies.py",
        "dagster_lakebase/io_manager/partitions.py",
    }
    named = set().union(*(named_options(found.text) for found in NAMING))
    assert {"on_error", "create", "columns", "load_id", "max_size", "connect_budget", "by"} <= named


@pytest.mark.parametrize("found", NAMING, ids=lambda found: found.place.removeprefix("lakebase_provider/"))
def test_an_option_that_a_remedy_names_exists_where_it_is_read(found: Found) -> None:
    for front in fronts_of(found.place):
        missing = named_options(found.text) - OPTIONS[front] - found.covered
        assert not missing, f"{front} has no {', '.join(missing)}: {found.text}"


def command_of(words: list[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    """The command that some words begin with, and the words after it."""
    command = parser()
    while words:
        groups = [one for one in command._actions if isinstance(one, argparse._SubParsersAction)]
        if not groups or not re.fullmatch(r"[a-z][a-z-]*", words[0]):
            break
        assert words[0] in groups[0].choices, f"{command.prog} has no {words[0]}"
        command, words = groups[0].choices[words[0]], words[1:]
    return command, words


def all_options(command: argparse.ArgumentParser) -> set[str]:
    groups = [one for one in command._actions if isinstance(one, argparse._SubParsersAction)]
    inner = [all_options(one) for group in groups for one in group.choices.values()]
    return set(command._option_string_actions).union(*inner)


#: Where the parts of a client that remedies name are.
PARTS = {
    "client": LakebaseClient,
    "client.workspace": WorkspaceObjects,
    "client.branches": BranchUpkeep,
    "client.migrations": Migrations,
    "client.synced_tables": SyncedTableUpkeep,
    **{f"client.workspace.{kind.__name__.lower()}": kind for kind in KINDS},
}
#: Of other commands than ours.
FOREIGN_OPTIONS = re.compile(r"pip install|airflow |dagster |dg ")


def test_the_commands_that_a_remedy_names_exist_with_their_options() -> None:
    named = 0
    for found in remedies():
        for text in re.findall(r"[`'\"]lakebase ([a-z][^`'\"]*)[`'\"]", found.text):
            command, rest = command_of(text.split())
            options = {word.partition("=")[0] for word in rest if word.startswith("--")}
            assert options <= set(command._option_string_actions), found
            named += 1
        options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", found.text))
        if not FOREIGN_OPTIONS.search(found.text):
            assert options <= all_options(parser()), found
    assert named > 5


def test_the_calls_that_a_remedy_names_exist() -> None:
    named = 0
    for found in remedies():
        for path, method in re.findall(r"\b(client(?:\.\w+)*)\.(\w+)\(", found.text):
            assert callable(getattr(PARTS[path], method)), found
            named += 1
    assert named > 3


def test_what_a_remedy_covers_is_named_in_it() -> None:
    for found in remedies():
        if found.covered and "_or_reject" not in found.text:
            unnamed = {name for name in found.covered if name not in found.text} - {"on_error"}
            assert not unnamed, found


def test_the_remedy_of_who_lacks_an_option() -> None:
    assert "on_error" in BadRowError("").remedy
    with without_options("on_error"), without_options("columns"):
        assert BadRowError("").remedy == "Correct the row in the source."
        assert "load_id" in LoadInterruptedError("").remedy
    assert "on_error" in BadRowError("").remedy
    remedy = Remedy("a", options=("b",), otherwise="c")
    assert type(offered(remedy)) is str
