"""Writes the reference pages that follow from tables in the code.

``python docs/generate.py`` writes them; ``python docs/generate.py --check`` names those that are out of date.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import docstring_parser

from lakebase_provider.core.bulk.files.csv_format import CSV_OPTIONS, CsvFormat
from lakebase_provider.core.bulk.load.plan import LOAD_OPTIONS, LoadPlan
from lakebase_provider.core.config import settings
from lakebase_provider.core.errors import kinds as errors
from lakebase_provider.core.upkeep.health import limits
from lakebase_provider.core.upkeep.health.stage_names import STAGES
from lakebase_provider.core.upkeep.health.stages import FIGURES
from lakebase_provider.core.upkeep.inspection.checks import CHECKS
from lakebase_provider.core.upkeep.inspection.inspection_report import shown

HERE = Path(__file__).parent / "reference"
_MADE = "<!-- Written by docs/generate.py from the code; edit the code. -->\n\n"


def settings_page() -> str:
    """The table of settings."""
    rows = []
    for row in settings():
        choices = f" One of {_codes(row.choices)}." if row.choices else ""
        default = "" if row.default is None else f"`{row.default}`"
        rows.append((f"`{row.name}`", _codes(row.env), default, row.description + choices))
    of_deployment = _codes(row.name for row in settings() if row.of_deployment)
    return f"""# Settings

These are the fields of `LakebaseConfig`, the extras of an Airflow connection, and the fields of
`LakebaseResource` and `LakebaseConnectionComponent`. Times are in seconds.

{_table(("Setting", "Environment", "Default", "Meaning"), rows)}

An Airflow connection also uses its own columns: host, port, schema (the database), login (the user) and
password (the client secret of the login's service principal; with `auth=password` the native password).

## Settings of an Airflow deployment

A deployment can set these once for all connections of type `lakebase`, in the section `[lakebase]` of
Airflow's configuration (`AIRFLOW__LAKEBASE__MAX_SIZE`): {of_deployment}.
[Which value wins](../how-to/airflow-connection.md#which-value-wins) gives their precedence.

The conditions that a deployment imposes on every connection are variables of their own: see
[security](../security.md#what-a-deployment-sets).
"""


def errors_page() -> str:
    """The tree of errors with codes and remedies."""
    rows = [
        (
            f"`{kind.__name__}`",
            f"`{kind.code}`",
            "yes" if kind.retryable else "no",
            (inspect.getdoc(kind) or "").splitlines()[0],
            kind.default_remedy,
        )
        for kind in error_kinds()
    ]
    return f"""# Errors

Each failure is a `LakebaseError` with a `code`, a `remedy`, and a flag `retryable`; the error of the driver
or the workspace is its cause. Import the classes from `lakebase_provider.core.errors`.

{_table(("Error", "Code", "Retryable", "Meaning", "Remedy"), rows)}
"""


def error_kinds() -> list[type[errors.LakebaseError]]:
    """All kinds of error, in the order of the source."""
    found = [
        kind
        for kind in vars(errors).values()
        if inspect.isclass(kind) and issubclass(kind, errors.LakebaseError)
    ]
    return [kind for kind in found if kind is not errors.LakebaseError]


def health_check_page() -> str:
    """The stages of the health check, and the limits of what it measures."""
    stages = [
        (f"`{name}`", _codes(needs), _codes(figure for figure, stage in FIGURES.items() if stage == name))
        for name, needs in STAGES.items()
    ]
    meanings = _described(limits.HealthLimits)
    rows = [
        (f"`{name}`", meanings[name], f"`{measured.stage}`", measured.remedy)
        for name, measured in limits._MEASURED.items()
    ]
    return f"""# Health check

`lakebase doctor`, `client.health()`, the Airflow operator and sensor, and the Dagster checks run these
stages. Naming a stage also runs the stages that it depends on. [Health](../how-to/health.md) shows each
front.

{_table(("Stage", "Depends on", "Measures"), stages)}

## Limits

Fields of `HealthLimits`, and names in the argument `limits` of each front. Without a limit, a figure is
only reported.

{_table(("Limit", "Meaning", "Measured by", "Remedy"), rows)}
"""


def inspection_page() -> str:
    """The checks of an inspection, with their limits and remedies."""
    rows = [
        (
            f"`{check.name}`",
            check.about,
            shown(check.limit.warn, check.unit),
            shown(check.limit.bad, check.unit),
            check.remedy,
        )
        for check in CHECKS
    ]
    return f"""# Inspection

`lakebase inspect`, `client.inspect()`, the Airflow operator and the Dagster checks run these checks, in this
order. The names are those of the argument `limits`, whose values are in shares of 1, seconds, days, bytes or
numbers. [Inspect a database](../how-to/inspect.md) shows each front.

{_table(("Check", "Looks at", "Warns from", "Bad from", "Remedy"), rows)}
"""


def load_options_page() -> str:
    """The options of a load."""
    meanings = {**_described(CsvFormat), **_described(LoadPlan)}
    defaults = inspect.signature(LoadPlan).parameters
    rows = {name: (f"`{name}`", f"`{defaults[name].default!r}`", meanings[name]) for name in LOAD_OPTIONS}
    of_csv = [rows.pop(name) for name in CSV_OPTIONS]
    return f"""# Load options

Keyword arguments of `client.load` and `lakebase_provider.core.load`, with the same names in Airflow's load
[operators](operators.md) and Dagster's [`LakebaseLoadComponent`](components.md#lakebaseloadcomponent), as far
as they take them.
[Load data](../how-to/load.md) explains them by task.

{_table(("Option", "Default", "Meaning"), rows.values())}

## Of CSV files

{_table(("Option", "Default", "Meaning"), of_csv)}
"""


def types_table() -> str:
    """What each type is read as, and made from; a part of the page of types."""
    import polars
    import pyarrow

    from lakebase_provider.core.bulk.types.postgres_types import KINDS

    rows = []
    for kind in KINDS:
        arrow = f"`{kind.arrow(pyarrow)}`" if kind.arrow else ""
        frame = f"`{kind.polars(polars)}`" if kind.polars else ""
        sources = _codes((*kind.holds, *filter(None, [kind.extension])))
        if arrow or frame or sources:
            rows.append((f"`{kind.sql}`", arrow or "text", frame or "text", sources))
    return _table(("Postgres", "Arrow", "Polars, from `get_df`", "Created from Arrow's"), rows) + "\n"


def operators_page() -> str:
    """The arguments of Airflow's operators and sensors."""
    from lakebase_provider.decorators.branches import lakebase_branch
    from lakebase_provider.operators.branches import (
        LakebaseCreateBranchOperator,
        LakebaseDeleteBranchOperator,
        LakebaseEndpointOperator,
        LakebaseResetBranchOperator,
        LakebaseRestoreOperator,
        LakebaseSnapshotOperator,
        LakebaseSweepBranchesOperator,
    )
    from lakebase_provider.operators.health import LakebaseHealthCheckOperator, LakebaseInspectOperator
    from lakebase_provider.operators.load import LakebaseLoadOperator
    from lakebase_provider.operators.maintenance import (
        LakebaseAnalyzeOperator,
        LakebaseIndexOperator,
        LakebasePartitionsOperator,
        LakebaseRefreshMaterializedViewOperator,
        LakebaseRepairSequencesOperator,
        LakebaseStatementsDigestOperator,
        LakebaseVacuumOperator,
    )
    from lakebase_provider.operators.migrate import LakebaseMigrateOperator
    from lakebase_provider.operators.rehearse import LakebaseRehearseOperator
    from lakebase_provider.operators.restore_rows import (
        LakebaseRestorePointOperator,
        LakebaseRestoreRowsOperator,
    )
    from lakebase_provider.operators.sql import LakebaseSqlOperator
    from lakebase_provider.operators.sync import LakebaseSyncedTableOperator, LakebaseSyncOperator
    from lakebase_provider.operators.transfer import LakebaseTransferOperator
    from lakebase_provider.operators.unload import LakebaseUnloadOperator
    from lakebase_provider.sensors.branches import LakebaseBranchSensor
    from lakebase_provider.sensors.health import LakebaseHealthSensor
    from lakebase_provider.sensors.sql import LakebaseSqlSensor
    from lakebase_provider.sensors.sync import LakebaseInDeltaSensor, LakebaseSyncedTableSensor
    from lakebase_provider.triggers.sync import LakebaseSyncEventTrigger

    shown = (
        LakebaseSqlOperator,
        LakebaseLoadOperator,
        LakebaseTransferOperator,
        LakebaseUnloadOperator,
        LakebaseHealthCheckOperator,
        LakebaseInspectOperator,
        LakebaseSqlSensor,
        LakebaseHealthSensor,
        LakebaseCreateBranchOperator,
        LakebaseDeleteBranchOperator,
        LakebaseResetBranchOperator,
        LakebaseSweepBranchesOperator,
        LakebaseBranchSensor,
        LakebaseSnapshotOperator,
        LakebaseRestoreOperator,
        LakebaseEndpointOperator,
        LakebaseRehearseOperator,
        LakebaseRestorePointOperator,
        LakebaseRestoreRowsOperator,
        LakebaseMigrateOperator,
        LakebaseVacuumOperator,
        LakebaseAnalyzeOperator,
        LakebaseRefreshMaterializedViewOperator,
        LakebaseIndexOperator,
        LakebasePartitionsOperator,
        LakebaseRepairSequencesOperator,
        LakebaseStatementsDigestOperator,
        LakebaseSyncOperator,
        LakebaseSyncedTableOperator,
        LakebaseSyncedTableSensor,
        LakebaseInDeltaSensor,
        LakebaseSyncEventTrigger,
    )
    parts = [
        """# Operators

Operators, sensors, decorators and the event trigger for Airflow, with all arguments that they add to their
base class.
[Run SQL](../how-to/airflow-sql.md), [load and unload](../how-to/airflow-load.md),
[health](../how-to/health.md), [inspection](../how-to/inspect.md#in-airflow),
[branches](../how-to/branches.md#from-airflow), [rehearsals](../how-to/rehearse.md#from-airflow),
[migrations](../how-to/migrations.md#from-airflow), [maintenance](../how-to/maintenance.md#from-airflow) and
[synced tables](../how-to/synced-tables.md#from-airflow) show them in use.
"""
    ]
    for kind in shown:
        rows = [(f"`{name}`", default, meaning) for name, default, meaning in _arguments(kind)]
        base = next(one for one in kind.__mro__ if not one.__module__.startswith("lakebase_provider"))
        parts.append(
            f"## {kind.__name__}\n\n`from {_home(kind)} import {kind.__name__}`\n\n"
            f"{_summary(kind)}\n\n{_table(('Argument', 'Default', 'Meaning'), rows)}\n\n"
            f"All arguments of `{base.__name__}` are accepted too.\n"
        )
    parts.append(
        "## @task.lakebase_sql\n\nThe function returns a statement or a list of statements; the arguments are"
        " those of [`LakebaseSqlOperator`](#lakebasesqloperator).\n"
    )
    parts.append(
        "## @lakebase_branch\n\n`from lakebase_provider.decorators.branches import lakebase_branch`\n\n"
        f"{_summary(lakebase_branch)}\n"
    )
    return "\n".join(parts)


def components_page() -> str:
    """The fields of Dagster's components."""
    from dagster_lakebase import components

    parts = ["# Components\n\n[Use Dagster components](../how-to/dagster-components.md) shows them in use.\n"]
    known = {row.name for row in settings()}
    for name in components.__all__:
        kind = getattr(components, name)
        has_settings = name == "LakebaseConnectionComponent"
        rows = [
            (f"`{field}`", _default(row), _markdown(row.description or ""))
            for field, row in kind.model().model_fields.items()
            if not (has_settings and field in known)
        ]
        more = "\nAll [settings](settings.md) are fields too.\n" if has_settings else ""
        parts.append(
            f"## {name}\n\n`type: dagster_lakebase.{name}`\n\n{_summary(kind)}\n\n"
            f"{_table(('Field', 'Default', 'Meaning'), rows)}\n{more}"
        )
    return "\n".join(parts)


def cli_page() -> str:
    """The commands and their options."""
    from lakebase_provider.cli.command import parser

    parts = ["# Command line\n\nThe command `lakebase` comes with the package.\n"]
    for command, about in _commands(parser(), ""):
        options = [
            (f"`{_invocation(action)}`", _meaning(action))
            for action in command._actions
            if action.help not in (None, argparse.SUPPRESS) and not isinstance(action, argparse._HelpAction)
        ]
        table = f"\n{_table(('Option', 'Meaning'), options)}\n" if options else ""
        parts.append(f"## {command.prog}\n\n{_sentence(command.description or about)}\n{table}")
    return "\n".join(parts)


def objects_page() -> str:
    """The kinds of objects, with what they hold and what describes them."""
    from lakebase_provider.core.config import LakebaseConfig
    from lakebase_provider.core.database.synced.synced_upkeep import ReconcileReport, SyncedTableUpkeep
    from lakebase_provider.core.upkeep.branches.branch_reset import BranchReset, Grant
    from lakebase_provider.core.upkeep.branches.branch_upkeep import BranchUpkeep
    from lakebase_provider.core.upkeep.branches.budget import BranchBudget, BranchLimits, Usage
    from lakebase_provider.core.upkeep.branches.lease import BranchLease
    from lakebase_provider.core.upkeep.branches.lease_options import LeaseOptions
    from lakebase_provider.core.upkeep.branches.sweep import SweepReport, SweptBranch
    from lakebase_provider.core.workspace.objects import (
        branches,
        databases,
        endpoints,
        projects,
        snapshots,
    )
    from lakebase_provider.core.workspace.objects.object_kind import places
    from lakebase_provider.core.workspace.objects.sync import (
        catalog_tables,
        cdf_configs,
        pipelines,
        synced_tables,
    )
    from lakebase_provider.core.workspace.operations import Operation

    kinds = (
        (projects.Projects, projects.ProjectChanges, projects.ProjectOptions),
        (branches.Branches, branches.BranchChanges, branches.BranchOptions),
        (endpoints.Endpoints, endpoints.EndpointChanges, endpoints.EndpointOptions),
        (snapshots.Snapshots, snapshots.SnapshotOptions),
        (databases.Roles, databases.RoleChanges, databases.RoleOptions),
        (databases.Databases, databases.DatabaseOptions),
        (databases.Catalogs, databases.CatalogOptions),
        (synced_tables.SyncedTables, synced_tables.SyncedTableOptions),
        (cdf_configs.CdfConfigs, cdf_configs.CdfConfigOptions),
    )
    parts = [
        """# Objects of the workspace

`client.workspace` has the objects of Lakebase Autoscaling, a kind each: what a method returns is a frozen
dataclass, what it takes are keyword arguments. Update masks are made from what is given.
[Branches](../how-to/branches.md) shows them in use.

Wherever an object is named, its full name is taken, or its id if the client's configuration says what it is
in. What changes something takes `timeout` in seconds, above 0; what only reads does not.
Most methods have a twin for asyncio, with the same arguments, which the tables name. Writes to one project
follow each other within a process, and are sent again while the project is busy.
"""
    ]
    for kind, *options in kinds:
        name = f"{kind.kind.replace('branch', 'branche')}s"
        meanings: dict[str, str] = {}
        for one in options:
            meanings |= _described(one)
        given = [
            (
                f"`{option}`",
                "yes" if row.creates else "",
                f"`{row.mask}`" if row.mask else "",
                meanings[option],
            )
            for option, row in kind.options.items()
        ]
        fields = _described(kind.shape)
        told = [
            (f"`{field}`", f"`{place.path}`", fields[field]) for field, place in places(kind.shape).items()
        ]
        parts.append(
            f"## {kind.__name__}\n\n`client.workspace.{name}`\n\n"
            f"{_methods(kind)}\n\n"
            f"{_table(('Option', 'At creation', 'Changed by mask', 'Meaning'), given)}\n\n"
            f"A `{kind.shape.__name__}` has:\n\n{_table(('Field', 'In JSON', 'Meaning'), told)}\n"
        )
    parts.append(
        f"## Cadence\n\n`from lakebase_provider.core import Cadence`\n\n{_summary(snapshots.Cadence)}\n\n"
        + _table(
            ("Field", "Meaning"),
            [(f"`{field}`", meaning) for field, meaning in _described(snapshots.Cadence).items()],
        )
        + "\n"
    )
    for title, way, kind in (
        ("Operation", "`client.workspace.operation(name)`, and what `begin_create` returns.", Operation),
        ("Pipelines", "`client.workspace.pipelines`", pipelines.Pipelines),
        ("Tables of the Unity Catalog", "`client.workspace.catalog_tables`", catalog_tables.CatalogTables),
        ("What a client does with synced tables", "`client.synced_tables`", SyncedTableUpkeep),
        ("What a client does with branches", "`client.branches`", BranchUpkeep),
        ("A leased branch", "What `client.branches.lease` and `take` return.", BranchLease),
    ):
        parts.append(f"## {title}\n\n{way}\n\n{_summary(kind)}\n\n{_methods(kind)}\n")
    syncs = (
        *(pipelines.Pipeline, pipelines.PipelineUpdate, pipelines.StartedUpdate),
        *(synced_tables.SyncResult, ReconcileReport, cdf_configs.CdfStatus, catalog_tables.TableStorage),
    )
    leases = (LeaseOptions, BranchLimits, BranchBudget, Usage, SweepReport, SweptBranch)
    for told in (*syncs, *leases, BranchReset, Grant):
        rows = [(f"`{field}`", meaning) for field, meaning in _described(told).items()]
        parts.append(f"### {told.__name__}\n\n{_summary(told)}\n\n{_table(('Field', 'Meaning'), rows)}\n")
    parts.append(
        f"## On another branch\n\n`LakebaseConfig.on_branch{_signature(LakebaseConfig.on_branch)}`\n\n"
        f"{_summary(LakebaseConfig.on_branch)}\n"
    )
    return "\n".join(parts)


def _methods(kind: type) -> str:
    """The table of the methods that people call, each with its twin for asyncio."""
    rows = []
    for name, call in inspect.getmembers(kind, inspect.isfunction):
        is_twin = inspect.iscoroutinefunction(call) or (name[0] == "a" and hasattr(kind, name[1:]))
        if not name.startswith("_") and not is_twin:
            twin = next((f"`{t}`" for t in (f"a{name}", f"a{name}_") if hasattr(kind, t)), "")
            rows.append((f"`{name}{_signature(call)}`", twin, _summary(call).splitlines()[0]))
    return _table(("Method", "For asyncio", "What it does"), rows)


def _signature(call: Callable[..., Any]) -> str:
    """The arguments without their types, which the docstrings tell in words."""
    _, *arguments = inspect.signature(call).parameters.values()
    plain = [one.replace(annotation=inspect.Parameter.empty) for one in arguments]
    return str(inspect.Signature(plain))


def _commands(command: argparse.ArgumentParser, about: str) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    groups = [action for action in command._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups or not about:
        yield command, about
    for group in groups:
        told = {choice.dest: choice.help or "" for choice in group._choices_actions}
        for name, inner in group.choices.items():
            yield from _commands(inner, told[name])


def _invocation(action: argparse.Action) -> str:
    names = ", ".join(action.option_strings) or action.dest
    return names if action.nargs == 0 else f"{names} {action.metavar or action.dest.upper()}"


def _meaning(action: argparse.Action) -> str:
    """What an option means, and which values it takes."""
    choices = f"one of {_codes(map(str, action.choices))}" if action.choices else ""
    return "; ".join(filter(None, (action.help, choices)))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _arguments(kind: type) -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of each argument of an operator, its own ones first."""
    seen = set()
    for one in kind.__mro__:
        if not one.__module__.startswith("lakebase_provider") or "__init__" not in vars(one):
            continue
        meanings = _described(one)
        for parameter in inspect.signature(vars(one)["__init__"]).parameters.values():
            if parameter.name in meanings and parameter.name not in seen | {"kwargs"}:
                seen.add(parameter.name)
                yield parameter.name, _default_of(parameter), meanings[parameter.name]


def _home(kind: type) -> str:
    """Where users import it from: the face of its room, if that has it."""
    face = kind.__module__.rpartition(".")[0]
    return face if kind.__name__ in getattr(sys.modules[face], "__all__", ()) else kind.__module__


def _default_of(parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return "required"
    # A template of several lines says nothing to a reader; the meaning does.
    return "" if len(repr(parameter.default)) > 40 else f"`{parameter.default!r}`"


def _default(row: Any) -> str:
    if row.is_required():
        return "required"
    return "" if "Undefined" in repr(row.default) or "UNSET" in repr(row.default) else f"`{row.default!r}`"


def _described(kind: type) -> dict[str, str]:
    """What the docstring of a class says of each argument or attribute."""
    parsed = docstring_parser.parse(inspect.getdoc(kind) or "", docstring_parser.DocstringStyle.GOOGLE)
    return {row.arg_name: _markdown(row.description or "") for row in parsed.params}


def _summary(kind: object) -> str:
    """The docstring of a class or function before its arguments."""
    parsed = docstring_parser.parse(inspect.getdoc(kind) or "", docstring_parser.DocstringStyle.GOOGLE)
    return _markdown(
        "\n\n".join(part for part in (parsed.short_description, parsed.long_description) if part)
    )


def _markdown(text: str) -> str:
    """Roles and literals of a docstring as Markdown has them."""
    text = re.sub(r":\w+:`[~.!]?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`")


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    parts = re.sub(r"\s+", " ", text).replace("|", "\\|").split("`")
    # Outside of code, <project> would be a tag of HTML, which shows nothing.
    parts[::2] = [part.replace("<", "\\<") for part in parts[::2]]
    return "`".join(parts)


PAGES = {
    "settings.md": settings_page,
    "errors.md": errors_page,
    "health-check.md": health_check_page,
    "inspection.md": inspection_page,
    "load-options.md": load_options_page,
    "types-table.inc": types_table,  # included by types.md
    "operators.md": operators_page,
    "components.md": components_page,
    "cli.md": cli_page,
    "workspace-objects.md": objects_page,
}


def outdated() -> list[str]:
    """Names of the pages that do not say what the code says."""
    return [
        name
        for name, page in PAGES.items()
        if not (HERE / name).exists() or (HERE / name).read_text() != _MADE + page()
    ]


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit("\n".join(outdated()) or None)
    for name, page in PAGES.items():
        (HERE / name).write_text(_MADE + page())
