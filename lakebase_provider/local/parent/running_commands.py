"""The commands `lakebase local branch`, `suspend`, `crash` and `fault`: what a running one is told to do."""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

from lakebase_provider.core.base.secret import Secret
from lakebase_provider.local.contract.errors import LocalLakebaseError
from lakebase_provider.local.contract.options import BRANCH, ENDPOINT, FAULT_METHODS, PROJECT, Running
from lakebase_provider.local.parent import run_file

_ROOT = "/api/2.0/postgres"
_PROJECT = f"projects/{PROJECT}"
#: Seconds that an operation may take, and between two looks at it.
_TIMEOUT, _POLL = 300.0, 0.02

Find = Callable[[argparse.Namespace], Running]


def add_parsers(actions: argparse._SubParsersAction[argparse.ArgumentParser], find: Find) -> None:
    """Add the commands to `lakebase local`.

    Args:
        actions: Of `lakebase local`.
        find: Returns the running one that the arguments name.
    """
    branch = actions.add_parser("branch", help="its branches: create, list, delete, reset")
    verbs = branch.add_subparsers(required=True, metavar="VERB")

    create = verbs.add_parser("create", help="copy a branch, and print the environment that points to it")
    create.add_argument("branch", help="id of the new one")
    create.add_argument("--source", metavar="BRANCH", help=f"what to copy; default: {BRANCH}")
    moment = create.add_mutually_exclusive_group()
    moment.add_argument("--at-time", metavar="TIME", help="data of that moment, such as 2026-01-31T12:00:00Z")
    moment.add_argument("--at-lsn", metavar="LSN", help="data at that log sequence number")
    create.set_defaults(run=_with(find, _create))

    show = verbs.add_parser("list", help="print id, state, source and host of each")
    show.add_argument("--json", action="store_true", help="print them as the API answers")
    show.set_defaults(run=_with(find, _list))

    for name, run, text in (
        ("delete", _delete, "delete a branch for good"),
        ("reset", _reset, "give a branch the data of its parent again; its host changes"),
    ):
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("branch", help="id")
        verb.set_defaults(run=_with(find, run))

    suspend = actions.add_parser("suspend", help="put a branch's endpoint to sleep; a login wakes it")
    suspend.set_defaults(run=_with(find, _suspend))
    crash = actions.add_parser("crash", help="end a branch's Postgres as a crash does")
    crash.add_argument(
        "--downtime", type=float, default=0.0, metavar="SECONDS", help="until it starts again; default: 0"
    )
    crash.set_defaults(run=_with(find, _crash))
    for action in (suspend, crash):
        action.add_argument("branch", nargs="?", default=BRANCH, help=f"id; default: {BRANCH}")

    fault = actions.add_parser("fault", help="let the control plane misbehave, or clear all faults")
    fault.add_argument(
        "method", nargs="?", type=str.upper, choices=FAULT_METHODS, help="of HTTP; * is each of them"
    )
    fault.add_argument(
        "path", nargs="?", help="path of the route, such as /api/2.0/postgres/*; * and ? as in file names"
    )
    fault.add_argument("--clear", action="store_true", help="clear all faults instead")
    fault.add_argument("--status", type=int, help="answer with this status")
    fault.add_argument("--error-code", default="TEMPORARILY_UNAVAILABLE", metavar="CODE")
    fault.add_argument("--message", default="scripted fault", metavar="TEXT")
    fault.add_argument("--retry-after", type=float, metavar="SECONDS")
    fault.add_argument("--hang", type=float, metavar="SECONDS", help="wait before answering")
    fault.add_argument("--times", type=int, metavar="N", help="how many requests; default: all")
    fault.set_defaults(run=_with(find, _fault))

    for parser in (
        create,
        show,
        *(verbs.choices[name] for name in ("delete", "reset")),
        suspend,
        crash,
        fault,
    ):
        parser.add_argument("--name", default="default", help="distinguishes several instances of one user")


def _with(
    find: Find, act: Callable[[argparse.Namespace, Running, _Api], None]
) -> Callable[[argparse.Namespace], int]:
    def run(arguments: argparse.Namespace) -> int:
        running = find(arguments)
        try:
            act(arguments, running, _Api(running))
        except ValueError as error:
            # The server refuses what makes no sense, whoever asks for it.
            told = str(error)
            raise LocalLakebaseError(
                f"{told[:1].upper()}{told[1:]}.", remedy="Correct the option that the message names."
            ) from None
        return 0

    return run


class _Api:
    """The control plane, asked as the developer."""

    def __init__(self, running: Running) -> None:
        self._port = running.http_port
        self._token = Secret(running.pat)

    def send(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """Send one request, and return the answer; one that is an operation when that has ended."""
        answer = self._send(method, f"{path}?{urlencode(query)}", body)
        deadline = time.monotonic() + _TIMEOUT
        while answer.get("done") is False:
            if time.monotonic() > deadline:
                raise LocalLakebaseError(f"{answer['name']} has not ended within {_TIMEOUT:.0f} seconds.")
            time.sleep(_POLL)
            answer = self._send("GET", quote(answer["name"], safe="/="), None)
        if "error" in answer:
            raise _refused(answer["error"])
        return answer

    def _send(self, method: str, path: str, body: Any) -> Any:
        # http.client, since it ignores the environment's proxies.
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT)
        headers = {"Authorization": f"Bearer {self._token.reveal()}", "Content-Type": "application/json"}
        try:
            connection.request(method, f"{_ROOT}/{path}", json.dumps(body or {}), headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise LocalLakebaseError(f"The local Lakebase does not answer: {error}.") from None
        finally:
            connection.close()
        if response.status >= 400:
            raise _refused(answer)
        return answer


def _refused(error: Any) -> LocalLakebaseError:
    return LocalLakebaseError(
        f"{error.get('error_code')}: {error.get('message')}", remedy="See `lakebase local branch list`."
    )


def _branch(branch_id: str) -> str:
    return f"{_PROJECT}/branches/{quote(branch_id, safe='')}"


def _endpoint(branch_id: str) -> str:
    return f"{_branch(branch_id)}/endpoints/{ENDPOINT}"


def _create(arguments: argparse.Namespace, running: Running, api: _Api) -> None:
    spec = {"no_expiry": True, "source_branch": _branch(arguments.source or BRANCH)}
    if arguments.at_time:
        spec["source_branch_time"] = arguments.at_time
    if arguments.at_lsn:
        spec["source_branch_lsn"] = arguments.at_lsn
    api.send("POST", f"{_PROJECT}/branches", {"spec": spec}, branch_id=arguments.branch)
    _point_to(arguments.branch, api)


def _list(arguments: argparse.Namespace, running: Running, api: _Api) -> None:
    found = api.send("GET", f"{_PROJECT}/branches")["branches"]
    if arguments.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    lines = [("BRANCH", "STATE", "SOURCE", "HOST")]
    for branch in found:
        status = branch["status"]
        source = (status.get("source_branch") or status.get("source_snapshot") or "-").rpartition("/")[2]
        lines.append((branch["branch_id"], status["current_state"], source, _host(branch["branch_id"], api)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


def _delete(arguments: argparse.Namespace, running: Running, api: _Api) -> None:
    api.send("DELETE", _branch(arguments.branch), purge="true")


def _reset(arguments: argparse.Namespace, running: Running, api: _Api) -> None:
    source = api.send("GET", _branch(arguments.branch))["status"].get("source_branch")
    if source is None:
        raise LocalLakebaseError(
            f"The branch {arguments.branch} has no parent.", remedy="Reset one that was copied from another."
        )
    _delete(arguments, running, api)
    spec = {"no_expiry": True, "source_branch": source}
    api.send("POST", f"{_PROJECT}/branches", {"spec": spec}, branch_id=arguments.branch)
    _point_to(arguments.branch, api)


def _suspend(arguments: argparse.Namespace, running: Running, api: _Api) -> None:
    run_file.admin(running).suspend(_known(arguments.branch, api))


def _crash(arguments: argparse.Namespace, running: Running, api: _Api) -> None:
    endpoint = _known(arguments.branch, api)
    run_file.admin(running).crash_postgres(downtime=arguments.downtime, endpoint=endpoint)


def _known(branch_id: str, api: _Api) -> str:
    """The endpoint's name, of a branch that exists."""
    name: str = api.send("GET", _endpoint(branch_id))["name"]
    return name


def _fault(arguments: argparse.Namespace, running: Running, api: _Api) -> None:
    admin = run_file.admin(running)
    if arguments.clear:
        admin.clear_faults()
        return
    if not arguments.path or (arguments.status is None and arguments.hang is None):
        raise LocalLakebaseError(
            "A fault needs a method, a path, and --status or --hang.",
            remedy="For example: lakebase local fault POST '*/credentials' --status 503 --times 2",
        )
    admin.fault(
        arguments.method,
        arguments.path,
        status=arguments.status,
        error_code=arguments.error_code,
        message=arguments.message,
        retry_after=arguments.retry_after,
        hang=arguments.hang,
        times=arguments.times,
    )


def _host(branch_id: str, api: _Api) -> str:
    hosts = api.send("GET", _endpoint(branch_id))["status"].get("hosts") or {}
    return str(hosts.get("host", "-"))


def _point_to(branch_id: str, api: _Api) -> None:
    name = _endpoint(branch_id)
    for variable, value in (
        ("ENDPOINT_NAME", name),
        ("LAKEBASE_ENDPOINT", name),
        ("PGHOST", _host(branch_id, api)),
    ):
        sys.stdout.write(f"export {variable}='{value}'\n")
