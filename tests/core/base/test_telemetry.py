"""Spans and metrics, recorded by the real OpenTelemetry SDK."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.base import telemetry
from lakebase_provider.core.errors import PermissionDeniedError
from lakebase_provider.local import LocalLakebase


class Recorded:
    """What was recorded by providers of this test alone: the process's global ones can be set but once."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider(metric_readers=[self._metrics])

    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._spans.get_finished_spans()

    def counted(self, name: str) -> int:
        data = self._metrics.get_metrics_data()
        assert data is not None
        return sum(
            int(point.value)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
            if isinstance(point, NumberDataPoint)
        )

    def histogram(self, name: str) -> list[HistogramDataPoint]:
        data = self._metrics.get_metrics_data()
        assert data is not None
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
            if isinstance(point, HistogramDataPoint)
        ]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    found = Recorded()
    monkeypatch.setattr("opentelemetry.trace.get_tracer", found.tracers.get_tracer)
    monkeypatch.setattr("opentelemetry.metrics.get_meter", found.meters.get_meter)
    monkeypatch.setattr(telemetry, "_instruments", None)
    yield found
    found.tracers.shutdown()
    found.meters.shutdown()


def test_a_step_is_a_span_and_a_duration(recorded: Recorded) -> None:
    with telemetry.span("connect", database="d") as step:
        step.set(token_seconds_left=1800.0)
    [span] = recorded.spans()
    assert span.name == "lakebase.connect"
    assert dict(span.attributes or {}) == {
        "lakebase.database": "d",
        "lakebase.token.seconds_left": 1800.0,
        "lakebase.outcome": "ok",
    }
    [duration] = recorded.histogram("lakebase.connect.duration")
    assert (duration.count, dict(duration.attributes or {})) == (1, {"lakebase.outcome": "ok"})
    [life] = recorded.histogram("lakebase.token.seconds_left")
    assert life.sum == 1800.0


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(PermissionDeniedError("canary"), "permission_denied"), (ValueError("canary"), "ValueError")],
)
def test_the_outcome_of_a_failure_is_its_kind_and_nothing_that_it_says(
    recorded: Recorded, error: Exception, outcome: str
) -> None:
    with pytest.raises(type(error)), telemetry.span("mint"):
        raise error
    [span] = recorded.spans()
    assert span.attributes is not None
    assert span.attributes["lakebase.outcome"] == outcome
    assert not span.status.is_ok
    assert "canary" not in span.to_json()


def test_minting_is_recorded_without_the_token(lakebase_env: LocalLakebase, recorded: Recorded) -> None:
    client = LakebaseClient(lakebase_env.config())
    with recorded.tracers.get_tracer("test").start_as_current_span("caller") as caller:
        token = client.tokens.get()
    [mint] = [span for span in recorded.spans() if span.name == "lakebase.mint"]
    assert mint.attributes is not None
    assert mint.attributes["lakebase.outcome"] == "ok"
    assert 3500 < float(str(mint.attributes["lakebase.token.seconds_left"])) <= 3600
    # Although it runs on a thread of its own, it belongs to whom it was done for.
    assert mint.parent is not None
    assert mint.parent.span_id == caller.get_span_context().span_id
    assert token.reveal() not in "".join(span.to_json() for span in recorded.spans())
    [duration] = recorded.histogram("lakebase.mint.duration")
    assert duration.count == 1


def test_without_opentelemetry_nothing_is_imported_or_recorded() -> None:
    code = (
        "import sys\n"
        "from lakebase_provider.core import LakebaseClient\n"
        "from lakebase_provider.core.base import telemetry\n"
        "with telemetry.span('mint', a=1) as step: step.set(token_seconds_left=1.0, b=2)\n"
        "assert telemetry.span('mint') is telemetry.span('connect')\n"
        "assert not any(name.startswith('opentelemetry') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_checkout_is_traced_down_to_the_mint(lakebase_env: LocalLakebase, recorded: Recorded) -> None:
    with LakebaseClient(lakebase_env.config(host=None)) as client, client.connection():
        pass
    found = {span.name: span for span in recorded.spans()}
    assert {"lakebase.checkout", "lakebase.connect", "lakebase.resolve", "lakebase.mint"} <= set(found)
    for span in found.values():
        assert span.attributes is not None
        assert span.attributes["lakebase.outcome"] == "ok"
    assert found["lakebase.connect"].attributes is not None
    assert float(str(found["lakebase.connect"].attributes["lakebase.token.seconds_left"])) > 3000


def test_a_load_is_a_span_and_counts_its_rows_and_bytes(
    recorded: Recorded, lakebase_env: LocalLakebase
) -> None:
    with LakebaseClient(lakebase_env.config()) as client:
        with client.connection() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS counted (id int)")
        result = client.load([(1,), (2,), (3,)], "counted")
    assert recorded.counted("lakebase.load.rows") == 3
    assert recorded.counted("lakebase.load.bytes") == result.bytes
    (span,) = [span for span in recorded.spans() if span.name == "lakebase.load"]
    assert dict(span.attributes or {}) == {"lakebase.mode": "append", "lakebase.outcome": "ok"}
    assert len(recorded.histogram("lakebase.load.duration")) == 1
