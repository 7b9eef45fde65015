"""The account that Postgres runs as: the caller's or, if the caller is root, one that nobody else uses."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lakebase_provider.local.contract.errors import LocalLakebaseError

#: Numbers that no distribution, no systemd and no `useradd` gives to anybody (systemd's page "Users, Groups,
#: UIDs and GIDs"). In a container whose users are mapped there are often the first 65,536 alone, hence the
#: second range.
_RANGES = (range(1_879_048_192, 2_147_483_648), range(60_578, 61_184))
_ATTEMPTS = 100


@dataclass(frozen=True)
class Account:
    """Who runs Postgres; None in all fields is the caller itself.

    Attributes:
        uid: User that runs the server, known by its number alone.
        gid: Its group, of the same number.
        creator: User that runs initdb, which insists on an entry among the machine's users. It does so in
            the group `gid`: other processes of that user are not in it, so they reach neither its files nor
            its memory.
    """

    uid: int | None = None
    gid: int | None = None
    creator: int | None = None


@contextlib.contextmanager
def choose_account() -> Iterator[Account]:
    """Give the account for Postgres, which nobody else chooses meanwhile.

    Raises:
        LocalLakebaseError: The user id has no entry among the machine's users, which initdb insists on; or
            the caller is root, and may be nobody else here.
    """
    uid = os.geteuid()
    name = "nobody" if uid == 0 else None
    try:
        entry = pwd.getpwnam(name) if name else pwd.getpwuid(uid)
    except KeyError:
        raise LocalLakebaseError(
            f"This machine has no user {name or uid}, so Postgres cannot run as that user.",
            remedy="Add the user to /etc/passwd (in a container: useradd, or an image that has it).",
        ) from None
    if uid != 0:
        yield Account()
        return
    with contextlib.ExitStack() as claims:
        number = _claim_number(claims)
        yield Account(number, number, entry.pw_uid)


def _claim_number(claims: contextlib.ExitStack) -> int:
    ranges = [numbers for numbers in _RANGES if _mapped(numbers, "uid_map") and _mapped(numbers, "gid_map")]
    taken = _numbers_in_use()
    for numbers in ranges:
        for _ in range(_ATTEMPTS):
            number = secrets.choice(numbers)
            if number in taken:
                continue
            with contextlib.suppress(OSError):
                _claim(number, claims)
                return number
    raise LocalLakebaseError(
        "Root has no spare user id for Postgres here.", remedy="Start it as a user other than root."
    )


def _claim(number: int, claims: contextlib.ExitStack) -> None:
    """Claim a number by a name that the kernel lets one process hold, and frees when that ends."""
    if sys.platform == "linux":
        claim = claims.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        claim.bind(f"\0lakebase-provider/local/{number}")


def _mapped(numbers: range, table: str) -> bool:
    """Return whether the numbers exist in our user namespace."""
    try:
        lines = Path("/proc/self", table).read_text().splitlines()
    except OSError:
        return True  # No Linux, hence no such thing.
    spans = ((int(first), int(first) + int(size)) for first, _, size in map(str.split, lines))
    return any(first <= numbers[0] and numbers[-1] < end for first, end in spans)


def _numbers_in_use() -> set[int]:
    """User and group ids with an entry, or with a process that runs."""
    entries = {entry.pw_uid for entry in pwd.getpwall()} | {entry.pw_gid for entry in pwd.getpwall()}
    return entries.union(*_ids_of_processes())


def _ids_of_processes() -> Iterator[set[int]]:
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            lines = status.read_text(errors="replace").splitlines()
            yield {
                int(n)
                for line in lines
                if line.startswith(("Uid:", "Gid:", "Groups:"))
                for n in line.split()[1:]
            }
