"""An error that crosses to another process is the same one there."""

from __future__ import annotations

import json
import pickle

import psycopg
import pytest

from lakebase_provider.core.connect.pools.lending import PoolExhaustedTimeout
from lakebase_provider.core.errors import (
    BadRowError,
    LakebaseError,
    LoadError,
    LoginRejectedError,
    StatementError,
    TooManyConnectionsError,
)
from lakebase_provider.core.errors.plain_errors import from_plain, to_plain
from lakebase_provider.core.errors.sqlstates import retry_helps


def load_error() -> LoadError:
    error = LoadError("m", retryable=True)
    error.sqlstate = "23505"
    return error


ERRORS: list[Exception] = [
    LoginRejectedError("m", remedy="r"),
    TooManyConnectionsError("m", retry_after=7.5),
    StatementError("m", retryable=True),
    BadRowError("m", row=3, column="c", kind="str"),
    PoolExhaustedTimeout("m"),
    load_error(),
]
FOREIGN: list[Exception] = [
    psycopg.errors.UndefinedTable('relation "t" does not exist\nLINE 1: select'),
    psycopg.errors.DeadlockDetected("deadlock"),
    psycopg.errors.QueryCanceled("canceling statement due to statement timeout"),
    psycopg.errors.QueryCanceled("canceling statement due to user request"),
    psycopg.OperationalError("the connection is lost"),
    PermissionError("no place"),
]


def crossed(error: Exception) -> Exception:
    return from_plain(json.loads(json.dumps(to_plain(error))))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_ours_is_the_same(error: LakebaseError) -> None:
    for found in (crossed(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 # our own
        assert type(found) is type(error)
        assert str(found) == str(error)
        assert isinstance(found, LakebaseError)
        assert (found.retry_after, found.details()) == (error.retry_after, error.details())
        assert found.retryable is error.retryable


@pytest.mark.parametrize("error", FOREIGN, ids=lambda error: f"{type(error).__name__} {error}")
def test_the_drivers_and_the_systems_are_the_same(error: Exception) -> None:
    found = crossed(error)
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert getattr(found, "sqlstate", None) == getattr(error, "sqlstate", None)
    assert retry_helps(found) is retry_helps(error)


def test_a_sqlstate_without_a_class_is_kept() -> None:
    error = psycopg.DatabaseError("m")
    error.sqlstate = "57PXX"
    assert getattr(crossed(error), "sqlstate", None) == "57PXX"
    assert retry_helps(crossed(error)) is True


def test_what_is_not_known_is_named() -> None:
    class SomethingElseError(Exception):
        pass

    found = crossed(SomethingElseError("m"))
    assert isinstance(found, StatementError)
    assert found.message == "SomethingElseError: m"
    assert found.retryable


def test_an_event_of_an_earlier_version_is_read() -> None:
    event = {"kind": "UndefinedTable", "message": "m", "remedy": None, "retryable": False}
    found = from_plain(event)
    assert isinstance(found, psycopg.errors.UndefinedTable)
    assert found.sqlstate == "42P01"


def test_a_class_that_is_not_imported_there_is_told_by_its_code() -> None:
    plain = {**to_plain(PoolExhaustedTimeout("m")), "kind": "OfAModuleThatIsNotImported"}
    found = from_plain(plain)
    assert isinstance(found, LakebaseError)
    assert found.code == "pool_exhausted"
