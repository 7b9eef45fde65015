"""How far a load is: in the log every few seconds, on a terminal, and in OpenTelemetry's counters."""

from __future__ import annotations

import importlib.util
import logging
import sys
from types import TracebackType
from typing import Any

from lakebase_provider.core.base import telemetry
from lakebase_provider.core.base.clock import SYSTEM_CLOCK, Clock

logger = logging.getLogger(__name__)

#: Seconds between two lines of the log.
INTERVAL = 5.0


class Progress:
    """Follows one load; called with the rows and bytes sent so far.

    Args:
        table: The table's name, for the log.
        clock: Where the time comes from.
        interval: Seconds between two lines of the log.
        bar: Whether to draw a bar; by default if standard error is a terminal and rich is installed.
    """

    def __init__(
        self,
        table: str,
        *,
        clock: Clock = SYSTEM_CLOCK,
        interval: float = INTERVAL,
        bar: bool | None = None,
    ) -> None:
        self._table = table
        self._clock = clock
        self._interval = interval
        self._wants_bar = _can_draw() if bar is None else bar
        self._bar: Any = None
        self._phase = "start"
        self._began = self._phase_began = self._logged = clock.elapsed()
        self._counted = (0, 0)
        self.rows = 0
        self.bytes = 0

    def __enter__(self) -> Progress:
        if self._wants_bar:
            from rich.console import Console
            from rich.progress import Progress as Bar
            from rich.progress import SpinnerColumn, TextColumn

            # A stream's total is unknown: only the count moves.
            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self._line(), total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    @property
    def seconds(self) -> float:
        """Seconds since the load began."""
        return self._clock.elapsed() - self._began

    def phase(self, name: str) -> None:
        """Set what is done from now on, such as ``"copy"``."""
        self._phase = name
        self._phase_began = self._clock.elapsed()
        self._show()

    def __call__(self, rows: int, size: int) -> None:
        """Set how many rows and bytes have been sent."""
        self.rows, self.bytes = rows, size
        telemetry.count("load.rows", rows - self._counted[0])
        telemetry.count("load.bytes", size - self._counted[1])
        self._counted = (rows, size)
        self._show()

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=self._line())
        now = self._clock.elapsed()
        if now - self._logged >= self._interval:
            self._logged = now
            logger.info("%s", self._line())

    def _line(self) -> str:
        seconds = max(self._clock.elapsed() - self._phase_began, 1e-9)
        size = self.bytes / 1e6
        pace = f", {size / seconds:,.1f} MB/s" if self._phase == "copy" and self.bytes else ""
        return f"Loading {self._table}: {self._phase}, {self.rows:,} rows, {size:,.1f} MB{pace}"


def _can_draw() -> bool:
    return sys.stderr.isatty() and importlib.util.find_spec("rich") is not None
