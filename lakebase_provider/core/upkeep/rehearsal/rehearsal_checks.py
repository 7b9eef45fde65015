"""What must be true after a change: each value of a query, or bounds of how many rows there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from lakebase_provider.core.base.clock import Clock
from lakebase_provider.core.base.sql.sql_text import is_query, without_end
from lakebase_provider.core.config import arguments
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.catalog import TableName
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.errors.redaction import redacted

_FORM = (
    "Give a query whose values must be true, or a dict with sql or table, min_rows and max_rows, and a name."
)
_KEYS = ("sql", "table", "min_rows", "max_rows", "name")
#: Characters of a check's name, and rows of which each must be true.
_LONGEST_NAME, _MOST_ROWS = 100, 1000


@dataclass(frozen=True)
class CheckResult:
    """A check, and what came of it.

    Attributes:
        name: Its name; by default its SQL, cut off.
        passed: Whether it holds.
        found: What was found, in words; no values but truth and numbers of rows.
        seconds: How long it took.
    """

    name: str
    passed: bool
    found: str
    seconds: float


@dataclass(frozen=True)
class Check:
    """A check.

    Attributes:
        name: What it is called.
        query: Its query; with bounds one that counts.
        least: How many rows there must be at least; None for no bound.
        most: How many there may be; None likewise.
    """

    name: str
    query: str
    least: int | None = None
    most: int | None = None

    @classmethod
    def of(cls, given: str | Mapping[str, Any]) -> Check:
        """A check as users write it.

        Raises:
            ConfigError: It is none.
        """
        if isinstance(given, str):
            return cls(_short(given), _query(given))
        if not isinstance(given, Mapping):
            raise arguments.wrong("A check", given, "be SQL or a dict", _FORM)
        for key in given:
            if key not in _KEYS:
                raise ConfigError(f"A check has no key {key!r}.", remedy=_FORM)
        if ("sql" in given) == ("table" in given):
            raise ConfigError("A check has sql or a table, and not both.", remedy=_FORM)
        least, most = (
            None if given.get(key) is None else arguments.count(f"'{key}'", given[key])
            for key in ("min_rows", "max_rows")
        )
        if "table" in given:
            table = TableName.parse(given["table"])
            query = sql.SQL("SELECT count(*) FROM {}").format(table.sql()).as_string(None)
            name = str(table)
        else:
            query, name = _query(given["sql"]), given["sql"]
            if least is not None or most is not None:
                # The user's own SQL, which may end in a comment.
                query = f"SELECT count(*) FROM (\n{query}\n) AS q"  # noqa: S608
        if "table" in given and least is None and most is None:
            raise ConfigError("A check of a table has no bound.", remedy="Give min_rows, max_rows or both.")
        return cls(_short(given.get("name") or name), query, least, most)

    def run(self, connection: LakebaseConnection, clock: Clock) -> CheckResult:
        """Ask the server, in a transaction that reads only and is rolled back.

        Args:
            connection: An idle session that only reads.
            clock: Where the time comes from.

        Raises:
            psycopg.Error: The session ended.
        """
        began = clock.elapsed()
        try:
            passed, found = self._asked(connection)
        except psycopg.Error as error:
            if connection.closed:
                raise
            said = error.diag.message_primary or str(error).partition("\n")[0]
            # It quotes the value.
            quotes = (error.sqlstate or "").startswith("22")
            passed, found = False, f"failed: {type(error).__name__ if quotes else said}"
        finally:
            if not connection.closed:
                connection.rollback()
        return CheckResult(self.name, passed, found, clock.elapsed() - began)

    def _asked(self, connection: LakebaseConnection) -> tuple[bool, str]:
        rows = plain_cursor(connection).execute(self.query.encode(), prepare=False).fetchmany(_MOST_ROWS + 1)
        if self.least is not None or self.most is not None:
            number = rows[0][0]
            low, high = self.least is None or number >= self.least, self.most is None or number <= self.most
            return low and high, f"{number:,} rows, {_range(self.least, self.most)}"
        if not rows:
            return False, "no row"
        if len(rows) > _MOST_ROWS:
            return False, f"more than {_MOST_ROWS} rows"
        wrong = sum(any(value is not True for value in row) for row in rows)
        if any(not isinstance(value, bool) for row in rows for value in row if value is not None):
            return False, "not of type boolean"
        return not wrong, "true" if not wrong else f"not true in {wrong} of {len(rows)} rows"


def _range(least: int | None, most: int | None) -> str:
    if least is None:
        return f"at most {most:,} allowed"
    return f"at least {least:,} wanted" if most is None else f"{least:,} to {most:,} wanted"


def _query(text: Any) -> str:
    found = without_end(arguments.text("A check", text, _FORM))
    if not is_query(found):
        raise ConfigError(f"A check is no query: {_short(found)}.", remedy=_FORM)
    return found


def _short(text: Any) -> str:
    line = redacted(" ".join(arguments.text("A check's name", text, _FORM).split()))
    return line if len(line) <= _LONGEST_NAME else f"{line[:_LONGEST_NAME]}…"
