"""Commands of others that migrate, such as Alembic, dbmate or Flyway, with a token in their environment."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from lakebase_provider.core.base.clock import Clock, Deadline
from lakebase_provider.core.base.plain_text import escaped
from lakebase_provider.core.base.threads import start_for_caller, to_its_end
from lakebase_provider.core.errors import ConfigError, MigrationError
from lakebase_provider.core.errors.redaction import lines_redactor
from lakebase_provider.core.errors.tracebacks import without_frames
from lakebase_provider.core.tokens.token import Token
from lakebase_provider.core.upkeep.programs.program_environment import check_words

logger = logging.getLogger(__name__)

#: Seconds between two looks whether it has ended, and those it has to end by itself once it is told to.
_POLL, _GRACE = 0.05, 3.0
#: Seconds for which the reader of the output waits for a line before it is left alone.
_READING = 2.0
#: Lines of the output that are kept, and characters of each that are logged.
_KEPT, _LONGEST = 200, 10_000
#: A terminal's codes by ECMA-48: control sequences, such as of colours; strings, such as of titles; others.
_CODES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
)


@dataclass(frozen=True)
class CommandReport:
    """What a command did.

    Attributes:
        program: The program.
        seconds: How long it took.
        output: The last lines that it wrote, without secrets and a terminal's codes; at most 200.
    """

    program: str
    seconds: float
    output: tuple[str, ...]


def run_command(
    words: Sequence[str],
    folder: str | os.PathLike[str] | None,
    variables: Callable[[], Mapping[str, str]],
    token: Token,
    deadline: Deadline,
    clock: Clock,
) -> CommandReport:
    """Run a command, log what it writes, and end it, with all that it started, at the deadline.

    Args:
        words: The program and its arguments.
        folder: Where it runs; here by default.
        variables: Returns its environment, which no frame that an error passes through holds.
        token: The password in it.
        deadline: When it has to be done.
        clock: Where the time comes from.

    Raises:
        ConfigError: It cannot be started, or its arguments hold the token.
        MigrationError: It failed, or was not done in time.
    """
    check_words(words, token)
    began = clock.elapsed()
    program = words[0]
    kept: deque[str] = deque(maxlen=_KEPT)
    begun: list[subprocess.Popen[str]] = []
    reader, progress, ended = None, _Progress(), False
    # Prepared before there is something to read.
    redacted = lines_redactor()
    try:
        # In a thread, since a signal between its start and this block would leave it running.
        refusal = to_its_end(lambda: _start(words, folder, variables, begun), "lakebase-command-start")
        if refusal is not None:
            raise ConfigError(
                f"The command {program!r} cannot be started: {refusal}.",
                remedy="Check the program's name and the folder.",
            )
        [process] = begun
        assert process.stdout is not None
        reader = start_for_caller(
            _read, process.stdout, program, redacted, kept, progress, name="lakebase-command-output"
        )
        while process.poll() is None and deadline.remaining() > 0:
            clock.sleep(_POLL)
        late = process.poll() is None
        ended = not late
    finally:
        for started in begun:
            _end(started)
            if reader is not None:
                _await_last(reader, progress, lambda: ended and deadline.remaining() > 0)
            if started.stdout is not None and (reader is None or not reader.is_alive()):
                started.stdout.close()
    if late:
        raise _failed(f"{program} was not done within {deadline.seconds:g} s, and was ended", kept, True)
    if process.returncode:
        raise _failed(f"{program} ended with {process.returncode}", kept, False)
    seconds = clock.elapsed() - began
    logger.info("%s: done in %.3f s", program, seconds)
    return CommandReport(program, seconds, tuple(kept.copy()))


def _start(
    words: Sequence[str],
    folder: str | os.PathLike[str] | None,
    variables: Callable[[], Mapping[str, str]],
    begun: list[subprocess.Popen[str]],
) -> str | None:
    """Add the process to a list; or return why there is none, whose error would show the environment."""
    try:
        begun.append(
            subprocess.Popen(  # noqa: S603 # what the caller wants to be run
                list(words),
                cwd=folder,
                env=dict(variables()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        )
        return None
    except OSError as error:
        return error.strerror or type(error).__name__
    except BaseException as error:
        raise without_frames(error) from error.__cause__


class _Progress:
    """How far the reader of the output is: how much it has read, and whether it waits for more."""

    def __init__(self) -> None:
        self.pieces = 0
        self.waits = False

    def next_piece(self, output: IO[str]) -> str:
        self.waits = True
        piece = output.readline(2 * _LONGEST)
        self.waits = False
        self.pieces += 1
        return piece


def _read(
    output: IO[str], program: str, redacted: Callable[[str], str], kept: deque[str], progress: _Progress
) -> None:
    while piece := progress.next_piece(output):
        # A secret at the end of the piece, cut in two, is beyond what is kept.
        # Colours go first, since a secret may be cut in two by them; a terminal obeys nothing else either.
        line = escaped(redacted(_CODES.sub("", piece.rstrip("\n"))), keep="\t")[:_LONGEST]
        while piece and not piece.endswith("\n"):
            piece = progress.next_piece(output)
        kept.append(line)
        logger.info("%s: %s", program, line)


def _await_last(reader: threading.Thread, progress: _Progress, has_time: Callable[[], bool]) -> None:
    """Wait for the last lines, and not for the end, which a process in a session of its own may put off."""
    before = progress.pieces
    reader.join(_READING)
    # To look through a line may take long where much else is done.
    while reader.is_alive() and (progress.pieces > before or not progress.waits) and has_time():
        before = progress.pieces
        reader.join(_READING)


def _failed(message: str, kept: deque[str], late: bool) -> MigrationError:
    last = next((line for line in reversed(kept.copy()) if line.strip()), "")
    return MigrationError(
        f"{message}. {last}".rstrip(),
        remedy="Raise timeout; see in the log what it waited for."
        if late
        else "See the log for what it wrote.",
        retryable=late,
    )


def _end(process: subprocess.Popen[str]) -> None:
    """End the command and what it started, if anything of that is left, even without the command itself."""
    until = time.monotonic() + _GRACE
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < until:
            process.poll()
            os.killpg(process.pid, 0)
            # Not the clock's, which ends where the caller has gone.
            time.sleep(_POLL)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
