"""Objects of the workspace that the environment names: ``lakebase branches`` and ``lakebase endpoints``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lakebase_provider.cli.database import without_other_settings
from lakebase_provider.core.base.plain_text import escaped
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.errors.remedy import without_options

if TYPE_CHECKING:
    from lakebase_provider.core import LakebaseClient
    from lakebase_provider.core.workspace.objects.object_kind import Named

_Commands = argparse._SubParsersAction
#: What remedies call by its name in Python, and commands by another.
_NOT_IN_A_SHELL = ("client", "ensure", "ttl", "no_expiry", "on_exists", "is_protected", "wait_for_budget")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_BRANCH = "name, projects/<project>/branches/<branch>, or id in the environment's project"
_ENDPOINT = "name, projects/…/endpoints/<endpoint>, or id in the environment's branch"
_COLUMNS = {
    "branches": ("name", "state", "is_default", "is_protected", "source_branch", "expire_time"),
    "sweep": ("name", "age", "size", "deleted", "reason"),
    "synced-tables": ("name", "state", "version", "sync_end_time", "pipeline_id"),
    "endpoints": (
        *("name", "endpoint_type", "state", "disabled"),
        *("min_cu", "max_cu", "suspend_timeout", "host"),
    ),
}


def add_parsers(commands: _Commands[argparse.ArgumentParser]) -> None:
    """Add the commands to `lakebase`."""
    _add_branches(commands)
    _add_endpoints(commands)


def _add_branches(commands: _Commands[argparse.ArgumentParser]) -> None:
    group = commands.add_parser("branches", help="list, create, delete, bring back, reset and sweep branches")
    actions = group.add_subparsers(required=True, metavar="ACTION")

    show = action(actions, "list", "list the branches of a project", _list_branches)
    show.add_argument("--project", help="name or id; default: the environment's")
    show.add_argument("--deleted", action="store_true", help="also those that can be brought back")

    create = action(actions, "create", "create a branch, and wait until logins succeed", _create_branch)
    create.add_argument("branch", help=_BRANCH)
    create.add_argument("--source", metavar="BRANCH", help="made from this; default: the default branch")
    data = create.add_mutually_exclusive_group()
    data.add_argument("--at", metavar="TIME", help="with the data of then, such as 2027-01-31T12:00:00Z")
    data.add_argument("--lsn", help="with the data up to that position in the log")
    data.add_argument("--snapshot", help="restore this snapshot instead")
    end = create.add_mutually_exclusive_group()
    end.add_argument("--ttl", type=seconds, metavar="DURATION", help="until deletion, such as 8h or 2d")
    end.add_argument("--no-expiry", action="store_true", help="it is not deleted by itself")
    create.add_argument(
        "--if-exists",
        choices=("fail", "reuse", "recreate"),
        default="fail",
        help="what to do with a branch of that name; reuse needs the same source; default: fail",
    )

    delete = action(actions, "delete", "delete a branch", _delete_branch)
    delete.add_argument("branch", help=_BRANCH)
    delete.add_argument("--purge", action="store_true", help="for good: it cannot be brought back")
    delete.add_argument("--missing-ok", action="store_true", help="succeed if there is none")

    back = action(
        actions, "undelete", "bring back a branch that was deleted and not purged", _undelete_branch
    )
    back.add_argument("branch", help=_BRANCH)

    again = action(actions, "reset", "give a branch the data that its source has now", _reset_branch)
    again.add_argument("branch", help=_BRANCH)
    action(actions, "recover", "finish resets that were killed half-way, on this machine", _recover)

    swept = action(actions, "sweep", "delete for good what leases of killed runs left behind", _sweep)
    swept.add_argument("--project", help="name or id; default: the environment's")
    swept.add_argument("--prefix", default="run", help="what the ids of the branches begin with; run")
    swept.add_argument(
        "--older-than",
        type=seconds,
        default=86_400.0,
        metavar="DURATION",
        help="since the creation; more than the longest run; 1d",
    )
    swept.add_argument(
        "--held",
        type=seconds,
        default=1800.0,
        metavar="DURATION",
        help="since the last change, as by a heartbeat, within which one is kept; 30m",
    )
    swept.add_argument("--dry-run", action="store_true", help="delete nothing, and say what would be")

    count = action(actions, "budget", "how many branches a project has, and may have", _budget)
    count.add_argument("--project", help="name or id; default: the environment's")


def _add_endpoints(commands: _Commands[argparse.ArgumentParser]) -> None:
    group = commands.add_parser("endpoints", help="list, create, change and delete endpoints")
    actions = group.add_subparsers(required=True, metavar="ACTION")

    show = action(actions, "list", "list the endpoints of a branch", _list_endpoints)
    show.add_argument("--branch", help=f"{_BRANCH}; default: the environment's")

    create = action(actions, "create", "create a read replica", _create_endpoint)
    create.add_argument("endpoint", help=_ENDPOINT)
    change = action(actions, "update", "change an endpoint's size", _update_endpoint)
    change.add_argument("endpoint", help=_ENDPOINT)
    for parser in (create, change):
        parser.add_argument("--min-cu", type=float, metavar="CU", help="least size in capacity units")
        parser.add_argument("--max-cu", type=float, metavar="CU", help="largest size in capacity units")
        parser.add_argument(
            "--suspend-timeout", type=seconds, metavar="DURATION", help="idle time until it is suspended"
        )
        parser.add_argument("--no-suspension", action="store_true", help="it is not suspended")

    for name, about, run in (
        ("suspend", "suspend an endpoint until it is enabled; no connection wakes it", _suspend),
        ("enable", "let connections wake an endpoint again", _enable),
        ("delete", "delete a read replica", _delete_endpoint),
    ):
        action(actions, name, about, run).add_argument("endpoint", help=_ENDPOINT)
    action(actions, "put-sizes-back", "undo what killed runs left resized, on this machine", _put_back)


def action(
    actions: _Commands[argparse.ArgumentParser],
    name: str,
    about: str,
    run: Callable[[argparse.Namespace], int],
    *,
    timeout: str = "5m",
) -> argparse.ArgumentParser:
    """Add something that a group of commands does, with the options that all have."""
    parser = actions.add_parser(name, help=about)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=seconds(timeout),
        metavar="DURATION",
        help=f"how long it may take; {timeout}",
    )
    parser.set_defaults(run=run)
    return parser


def add_lock_limits(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that try again what gets no lock."""
    parser.add_argument(
        "--lock-timeout",
        type=seconds,
        default=5.0,
        metavar="DURATION",
        help="how long to wait for a lock before it is tried again; 5s",
    )
    parser.add_argument(
        "--attempts", type=int, default=5, metavar="N", help="how often what gets no lock is tried; 5"
    )


def seconds(text: str) -> float:
    """The seconds of a duration such as ``8h``."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    try:
        found = float(number) * _UNITS[unit]
    except ValueError:
        found = 0.0
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 90s, 8h or 2d")
    return found


@contextmanager
def connected(*not_in_a_shell: str) -> Iterator[LakebaseClient]:
    """A client by the environment, whose errors advise no option that a command has not.

    Args:
        not_in_a_shell: What remedies call by its name in Python, beyond what objects take.
    """
    from lakebase_provider.core import LakebaseClient, LakebaseConfig

    with (
        without_options(*_NOT_IN_A_SHELL, *not_in_a_shell),
        without_other_settings(),
        LakebaseClient(LakebaseConfig.from_env()) as client,
    ):
        yield client


def _list_branches(options: argparse.Namespace) -> int:
    with connected() as client:
        found = client.workspace.branches.list(options.project, show_deleted=options.deleted)
    return _show(options, "branches", found)


def _create_branch(options: argparse.Namespace) -> int:
    wanted: dict[str, Any] = {
        "source_branch": options.source,
        "source_branch_time": None if options.at is None else _moment(options.at),
        "source_branch_lsn": options.lsn,
        "source_snapshot": options.snapshot,
        "ttl": options.ttl,
        "no_expiry": options.no_expiry or None,
    }
    with connected() as client:
        client.workspace.branches.ensure(
            options.branch,
            on_exists=options.if_exists,
            timeout=options.timeout,
            **{name: value for name, value in wanted.items() if value is not None},
        )
        made = client.branches.wait_ready(options.branch, timeout=options.timeout)
    return _show(options, "branches", made)


def _moment(text: str) -> datetime:
    from lakebase_provider.core.workspace.answers import moment

    found = moment(text)
    if found is None or found.tzinfo is None:
        raise ConfigError(f"--at is {text!r}.", remedy="Give a time such as 2027-01-31T12:00:00Z.")
    return found


def _delete_branch(options: argparse.Namespace) -> int:
    with connected() as client:
        client.workspace.branches.delete(
            options.branch, purge=options.purge, missing_ok=options.missing_ok, timeout=options.timeout
        )
        return _gone(options, client.workspace.branches.full_name(options.branch))


def _undelete_branch(options: argparse.Namespace) -> int:
    with connected() as client:
        found = client.workspace.branches.undelete(options.branch, timeout=options.timeout)
    return _show(options, "branches", found)


def _reset_branch(options: argparse.Namespace) -> int:
    with connected() as client:
        done = client.branches.reset(options.branch, timeout=options.timeout)
    if options.json:
        print(json.dumps(dataclasses.asdict(done), indent=2, default=_plain))
        return 0
    _show(options, "branches", done.branch)
    if done.lost_roles:
        print(f"Roles that it has no more: {', '.join(done.lost_roles)}")
    for grant in done.lost_grants or ():
        print(f"Lost: {grant.privilege} on {grant.kind} {grant.name} for {grant.role}")
    if done.lost_grants is None:
        print("Which grants were lost is not known: one of the two branches could not be asked.")
    return 0


def _recover(options: argparse.Namespace) -> int:
    with connected() as client:
        names = [done.branch.name for done in client.branches.recover(timeout=options.timeout)]
    print(json.dumps(names) if options.json else "\n".join(names) or "No reset was left half-way.")
    return 0


def _sweep(options: argparse.Namespace) -> int:
    with connected() as client:
        report = client.branches.sweep(
            options.project,
            prefix=options.prefix,
            older_than=options.older_than,
            held=options.held,
            dry_run=options.dry_run,
            timeout=options.timeout,
        )
    if options.json:
        print(json.dumps(dataclasses.asdict(report), indent=2))
    else:
        told = {"deleted": "would be deleted"} if report.dry_run else {}
        _print_table(_COLUMNS["sweep"], report.branches, told)
    return 1 if report.failed else 0


def _budget(options: argparse.Namespace) -> int:
    with connected() as client:
        found = client.branches.budget(options.project)
    if options.json:
        print(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        print(found.to_text())
    return 0


def _list_endpoints(options: argparse.Namespace) -> int:
    with connected() as client:
        return _show(options, "endpoints", client.workspace.endpoints.list(options.branch))


def _size(options: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(options, name) for name in ("min_cu", "max_cu", "suspend_timeout")}
    given["no_suspension"] = options.no_suspension or None
    return {name: value for name, value in given.items() if value is not None}


def _create_endpoint(options: argparse.Namespace) -> int:
    with connected() as client:
        endpoints = client.workspace.endpoints
        endpoints.create(options.endpoint, timeout=options.timeout, **_size(options))
        return _show(options, "endpoints", endpoints.wait_ready(options.endpoint, timeout=options.timeout))


def _update_endpoint(options: argparse.Namespace) -> int:
    with connected() as client:
        endpoints = client.workspace.endpoints
        return _show(
            options,
            "endpoints",
            endpoints.update(options.endpoint, timeout=options.timeout, **_size(options)),
        )


def _suspend(options: argparse.Namespace) -> int:
    with connected() as client:
        found = client.workspace.endpoints.suspend(options.endpoint, timeout=options.timeout)
    return _show(options, "endpoints", found)


def _enable(options: argparse.Namespace) -> int:
    with connected() as client:
        found = client.workspace.endpoints.enable(options.endpoint, timeout=options.timeout)
    return _show(options, "endpoints", found)


def _delete_endpoint(options: argparse.Namespace) -> int:
    with connected() as client:
        client.workspace.endpoints.delete(options.endpoint, timeout=options.timeout)
        return _gone(options, client.workspace.endpoints.full_name(options.endpoint))


def _put_back(options: argparse.Namespace) -> int:
    with connected() as client:
        names = client.workspace.endpoints.put_sizes_back(timeout=options.timeout)
    print(json.dumps(names) if options.json else "\n".join(names) or "Nothing was left resized.")
    return 0


def _gone(options: argparse.Namespace, name: str) -> int:
    """Say in JSON what there is no more; without it, success needs no words."""
    if options.json:
        print(json.dumps({"name": name, "deleted": True}))
    return 0


def _show(options: argparse.Namespace, kind: str, found: Named | Iterable[Named]) -> int:
    """Print objects, as a table or in JSON; one object is one in JSON, too."""
    several = isinstance(found, tuple)
    items: tuple[Any, ...] = found if isinstance(found, tuple) else (found,)
    if options.json:
        rows = [dataclasses.asdict(item) for item in items]
        print(json.dumps(rows if several else rows[0], indent=2, default=_plain))
        return 0
    _print_table(_COLUMNS[kind], items)
    return 0


def _print_table(
    columns: tuple[str, ...], items: Iterable[object], told: Mapping[str, str] | None = None
) -> None:
    titles = tuple((told or {}).get(name, name) for name in columns)
    # Escaped before they are measured, and with their line breaks: a cell must not begin another row.
    lines = [titles, *(tuple(escaped(_cell(item, name)) for name in columns) for item in items)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(item: object, name: str) -> str:
    value = getattr(item, name)
    if value is None:
        return "never" if name in ("expire_time", "suspend_timeout") else "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "age" and isinstance(value, float):
        return f"{value / 3600:.1f} h"
    return f"{value:.15g}" if isinstance(value, float) else _plain(value)


def _plain(value: object) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)
