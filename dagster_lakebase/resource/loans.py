"""Connections that a resource has lent and that were not returned before its teardown."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from logging import Logger

    from lakebase_provider.core.connect.connection import AsyncLakebaseConnection, LakebaseConnection


class _Loan(NamedTuple):
    connection: LakebaseConnection | AsyncLakebaseConnection
    loop: asyncio.AbstractEventLoop | None


class Loans:
    """The connections that one resource has lent at the moment."""

    def __init__(self) -> None:
        self._open: dict[int, _Loan] = {}

    @contextmanager
    def noted(
        self,
        connection: LakebaseConnection | AsyncLakebaseConnection,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> Iterator[None]:
        """Keep track of a loan for the duration of the block.

        Args:
            connection: What is lent.
            loop: The event loop that it belongs to, if any.
        """
        self._open[id(connection)] = _Loan(connection, loop)
        try:
            yield
        finally:
            self._open.pop(id(connection), None)

    def end(self, log: Logger | None) -> None:
        """Close what is still lent, and log where it was lent.

        Args:
            log: The run's log.
        """
        for loan in list(self._open.values()):
            self._open.pop(id(loan.connection), None)
            where = loan.connection.lent_at()
            if where is None:
                # It was returned by its own close().
                continue
            if log is not None:
                log.warning(
                    "A connection that was lent at %s was not returned before the resource's teardown. It "
                    "is closed, and its uncommitted work is rolled back.\nRemedy: use get_connection() and "
                    "get_async_connection() in a `with` block.",
                    where,
                )
            _close(loan)


def _close(loan: _Loan) -> None:
    from lakebase_provider.core.connect.connection import AsyncLakebaseConnection

    if not isinstance(loan.connection, AsyncLakebaseConnection):
        loan.connection.close()
    elif loan.loop is not None and can_run(loan.loop):
        loan.loop.run_until_complete(loan.connection.close())


def can_run(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether that loop can still be run from here: it is paused, and so is this thread's."""
    return not (loop.is_closed() or loop.is_running() or asyncio._get_running_loop() is not None)
