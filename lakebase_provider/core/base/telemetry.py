"""Spans and metrics with OpenTelemetry if the process uses it; next to no cost if it does not.

Five steps are recorded: ``mint``, ``resolve``, ``connect``, ``checkout`` and ``load``. Each is a span
``lakebase.<step>`` and a histogram ``lakebase.<step>.duration`` of seconds, both with ``lakebase.outcome``:
``ok``, or the code of the error. The token's remaining seconds of life are on the span as
``lakebase.token.seconds_left``, and in a histogram of that name.

A checkout that finds a connection that was used a moment ago is not recorded: it takes microseconds.

Loads count what they send in ``lakebase.load.rows`` and ``lakebase.load.bytes``.

Nothing here imports OpenTelemetry. A process that wants telemetry configures it, and so has imported it; one
without pays for no import and only one look-up per step.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Literal

from lakebase_provider.core.errors import LakebaseError
from lakebase_provider.version import __version__

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.metrics import Counter, Histogram
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

Step = Literal["mint", "resolve", "connect", "checkout", "load"]
#: What is counted, with its unit.
Count = Literal["load.rows", "load.bytes"]
#: What an attribute may be; never a secret, and never text from other software.
Attribute = str | bool | int | float

_NAME = "lakebase-provider"
_LIFE = "lakebase.token.seconds_left"


class Span:
    """One step under way; this one records nothing."""

    def set(self, *, token_seconds_left: float | None = None, **attributes: Attribute) -> None:
        """Add what became known on the way.

        Args:
            token_seconds_left: The token's remaining seconds of life when it was used.
            attributes: Further attributes; each name is prefixed with ``lakebase.``.
        """

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


class _RecordedSpan(Span):
    def __init__(self, instruments: _Instruments, step: Step, attributes: dict[str, Attribute]) -> None:
        self._instruments = instruments
        self._step = step
        self._attributes = attributes

    def __enter__(self) -> Span:
        self._start = time.perf_counter()
        self._span: OtelSpan = self._instruments.tracer.start_span(f"lakebase.{self._step}")
        self._set(self._attributes)
        return self

    def _set(self, attributes: dict[str, Attribute]) -> None:
        for name, value in attributes.items():
            self._span.set_attribute(f"lakebase.{name}", value)

    def set(self, *, token_seconds_left: float | None = None, **attributes: Attribute) -> None:
        self._set(attributes)
        # A native password never expires, which is not a number that a backend can show.
        if token_seconds_left is not None and token_seconds_left != float("inf"):
            self._span.set_attribute(_LIFE, token_seconds_left)
            self._instruments.life.record(token_seconds_left, {"lakebase.step": self._step})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Neither message nor traceback: we cannot vouch for a driver's text.
        outcome = "ok"
        if error is not None:
            outcome = error.code if isinstance(error, LakebaseError) else type(error).__name__
            self._span.set_status(self._instruments.failed)
        self._span.set_attribute("lakebase.outcome", outcome)
        self._span.end()
        seconds = time.perf_counter() - self._start
        self._instruments.durations[self._step].record(seconds, {"lakebase.outcome": outcome})


class _Instruments:
    """OpenTelemetry's tracer and instruments; its proxies follow a provider that is configured later."""

    def __init__(self) -> None:
        from opentelemetry import metrics, trace

        self.tracer: Tracer = trace.get_tracer(_NAME, __version__)
        self.failed = trace.Status(trace.StatusCode.ERROR)
        meter = metrics.get_meter(_NAME, __version__)
        steps: tuple[Step, ...] = ("mint", "resolve", "connect", "checkout", "load")
        self.durations: dict[Step, Histogram] = {
            step: meter.create_histogram(f"lakebase.{step}.duration", "s", f"Seconds that a {step} took.")
            for step in steps
        }
        self.counters: dict[Count, Counter] = {
            "load.rows": meter.create_counter("lakebase.load.rows", "{row}", "Rows sent by loads."),
            "load.bytes": meter.create_counter("lakebase.load.bytes", "By", "Bytes sent by loads."),
        }
        self.life: Histogram = meter.create_histogram(
            _LIFE, "s", "Seconds of life that a used token had left."
        )


_NOTHING = Span()
_instruments: _Instruments | None = None


def span(step: Step, **attributes: Attribute) -> Span:
    """A span around one step, as a context manager; an exception that passes through is its outcome.

    Args:
        step: Which one.
        attributes: What is known beforehand; each name is prefixed with ``lakebase.``. No secrets.

    Example:
        >>> with span("connect") as step:
        ...     step.set(token_seconds_left=3000.0)
    """
    instruments = _in_use()
    return _NOTHING if instruments is None else _RecordedSpan(instruments, step, attributes)


def count(name: Count, amount: int) -> None:
    """Add to a counter.

    Args:
        name: Which one.
        amount: How much.
    """
    instruments = _in_use()
    if instruments is not None and amount > 0:
        instruments.counters[name].add(amount)


def _in_use() -> _Instruments | None:
    global _instruments
    if _instruments is None and "opentelemetry.trace" in sys.modules:
        _instruments = _Instruments()
    return _instruments
