"""A program in the foreground: it has this process's terminal, gets its signals, and says the exit code."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

from lakebase_provider.core.errors import ConfigError

#: What is handed on.
_HANDED_ON = ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2")
#: What a terminal sends to each process in its foreground, so that the program has it already.
_OF_A_KEYBOARD = ("SIGINT", "SIGQUIT")


class Foreground:
    """Hands the signals of this process on to the program that it runs, until the block ends.

    One that comes before the program has begun ends this process by SystemExit; one that comes after it has
    ended has no effect, so that the block cleans up. What is ignored, as by ``nohup``, stays ignored. Only in
    the main thread are signals handed on.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        #: What has come since the program is being started; None before.
        self._waiting: list[int] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Foreground:
        for name in _HANDED_ON:
            number = getattr(signal, name)
            if signal.getsignal(number) is signal.SIG_IGN:
                continue
            try:
                self._before[number] = signal.signal(number, self._hand_on)
            except ValueError:  # not the main thread
                return self
        return self

    def __exit__(self, *_exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def run(self, words: Sequence[str], variables: Mapping[str, str]) -> int:
        """Run a program to its end.

        Args:
            words: The program and its arguments.
            variables: Its environment.

        Returns:
            Its exit code; 128 and the signal's number if a signal ended it, as a shell says.

        Raises:
            ConfigError: It cannot be started; the cause is an OSError.
        """
        self._waiting = []
        try:
            # By the search path in the program's environment, which is the caller's.
            self._process = subprocess.Popen(list(words), env=dict(variables))  # noqa: S603 # as told
        except OSError as error:
            raise ConfigError(
                f"The program {words[0]!r} cannot be started: {error.strerror or error}.",
                remedy="Check its name: it is looked for in PATH.",
            ) from error
        for number in self._waiting:
            self._send(number)
        code = self._process.wait()
        return 128 - code if code < 0 else code

    def _hand_on(self, number: int, _frame: FrameType | None) -> None:
        if self._process is None:
            if self._waiting is None:
                raise SystemExit(128 + number)
            # It is about to begin: what is raised now would leave it running.
            self._waiting.append(number)
            return
        if signal.Signals(number).name not in _OF_A_KEYBOARD or not _has_the_terminal():
            self._send(number)

    def _send(self, number: int) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.send_signal(number)


def _has_the_terminal() -> bool:
    """Whether what is typed into the terminal is for this process's group."""
    for descriptor in (0, 1, 2):
        with suppress(OSError):
            return os.tcgetpgrp(descriptor) == os.getpgrp()
    return False
