"""Processes that begin with all their imports done, forked from a server that has done them once.

What :mod:`multiprocessing` calls "forkserver" has one server for the whole process: the modules that it
imports are those of whoever named some last, and pytest imports all files of tests before it runs the first.
Here each user has a server of its own.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing import popen_forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.forkserver import ForkServer
from typing import Any
from unittest import mock

_SERVERS: dict[tuple[str, ...], ForkServer] = {}


class ForkedProcess(ForkServerProcess):
    """A process of :class:`Processes`, which alone makes them."""

    preloaded: tuple[str, ...]

    @staticmethod
    def _Popen(process_obj: ForkedProcess) -> Any:  # type: ignore[override] # noqa: N802 # multiprocessing's
        server = _SERVERS[process_obj.preloaded]
        with mock.patch.object(
            popen_forkserver.forkserver, "connect_to_new_process", server.connect_to_new_process
        ):
            return popen_forkserver.Popen(process_obj)  # type: ignore[attr-defined] # not on Windows


class Processes:
    """Makes processes that have imported some modules.

    Args:
        modules: Their names. The server imports them when the first process starts, with the environment of
            then.
    """

    def __init__(self, *modules: str) -> None:
        self._preloaded = modules

    def __call__(self, target: Any, args: tuple[Any, ...] = ()) -> ForkedProcess:
        """A process that has not started yet, as :class:`multiprocessing.Process` makes it."""
        if self._preloaded not in _SERVERS:
            _SERVERS[self._preloaded] = server = ForkServer()
            server.set_forkserver_preload([*self._preloaded])
        process = ForkedProcess(target=target, args=args)
        process.preloaded = self._preloaded
        return process

    @staticmethod
    def pipe() -> tuple[Connection, Connection]:
        """A connection to read from, and one that a process can be given, to write to."""
        return multiprocessing.Pipe(duplex=False)
