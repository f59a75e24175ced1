"""OpenTelemetry spans of requests and their legs: of the optional extra `otel`, and only where an endpoint is set."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dynctl.frontend.job import Job
from dynctl.frontend.legs import Handover, LegFailed, Legs, OnLeg
from dynctl.frontend.messages import RequestRecord
from dynctl.frontend.routing import Worker
from dynctl.frontend.watch import Timeouts
from dynctl.http.client import Client
from dynctl.http.message import Headers

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_CONTEXT_FIELDS = frozenset({b"traceparent", b"tracestate"})


class Tracing:
    """A span for each request, beneath the client's where it sent `traceparent`, and one beneath that for each leg."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()
        self._provider = provider
        self._tracer = provider.get_tracer("dynctl.frontend")
        self._requests: dict[Job, Span] = {}

    def begin(self, job: Job) -> None:
        """The request came."""
        request = job.request
        carrier = {key.decode(): value.decode("latin-1") for key, value in request.headers if key in _CONTEXT_FIELDS}
        self._requests[job] = self._tracer.start_span(
            f"{request.method} {request.path[:200]}",
            context=self._propagator.extract(carrier),
            kind=self._trace.SpanKind.SERVER,
            attributes={
                "http.request.method": request.method,
                "url.path": request.path[:200],
                "dynctl.request_id": job.id.decode(),
            },
        )

    def end(self, job: Job, record: RequestRecord) -> None:
        """It has ended."""
        span = self._requests.pop(job)
        span.set_attribute("http.response.status_code", record.status)
        for name in ("mode", "queue_ms", "prefill_ms", "handover_ms", "ttft_ms", "itl_ms"):
            if (value := getattr(record, name)) is not None:
                span.set_attribute(f"dynctl.{name}", value)
        if record.error is not None:
            span.set_status(self._trace.StatusCode.ERROR, record.error)
        span.end()

    def leg(self, job: Job, leg: str, worker: Worker) -> Span:
        """A leg is sent: it becomes the parent of the engine's own spans."""
        context = self._trace.set_span_in_context(self._requests[job])
        span = self._tracer.start_span(
            f"{leg} {worker.id}",
            context=context,
            kind=self._trace.SpanKind.CLIENT,
            attributes={
                "dynctl.leg": leg,
                "dynctl.worker": worker.id,
                "server.address": worker.origin.host,
                "server.port": worker.origin.port,
            },
        )
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._trace.set_span_in_context(span))
        told: Headers = [(key.encode(), value.encode("latin-1")) for key, value in carrier.items()]
        job.request.headers = [item for item in job.request.headers if item[0] not in _CONTEXT_FIELDS] + told
        return span

    def failed(self, span: Span, error: BaseException) -> None:
        """A leg brought no usable answer, or its client left."""
        span.set_status(self._trace.StatusCode.ERROR, str(error) or type(error).__name__)

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()


class TracedLegs(Legs):
    """Legs, each with a span of its own."""

    def __init__(
        self,
        tracing: Tracing,
        client: Client,
        clock: Callable[[], float],
        *,
        handover: Handover | None,
        timeouts: Timeouts | None,
        engine_headers: Headers | None,
        on_leg: OnLeg,
    ) -> None:
        super().__init__(
            client, clock, handover=handover, timeouts=timeouts, engine_headers=engine_headers, on_leg=on_leg
        )
        self._tracing = tracing

    async def prefill(self, worker: Worker, job: Job, body: bytes) -> bytes:
        """As `Legs` does."""
        span = self._tracing.leg(job, "prefill", worker)
        try:
            return await super().prefill(worker, job, body)
        except BaseException as error:
            self._tracing.failed(span, error)
            raise
        finally:
            span.end()

    async def answer(
        self,
        worker: Worker,
        job: Job,
        body: bytes,
        *,
        leg: str = "decode",
        hold: bool = False,
        resend: bool = False,
    ) -> None:
        """As `Legs` does."""
        span = self._tracing.leg(job, leg, worker)
        try:
            await super().answer(worker, job, body, leg=leg, hold=hold, resend=resend)
            if job.error is not None:
                self._tracing.failed(span, LegFailed(leg, worker, job.error, "closed"))
        except BaseException as error:
            self._tracing.failed(span, error)
            raise
        finally:
            span.end()


def by_environment(log: Callable[[str], None]) -> Tracing | None:
    """As OpenTelemetry's own variables say; None where they name no endpoint, or, said in the log, without its code."""
    if not any(os.environ.get(name) for name in ENDPOINT_VARIABLES) or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log(f"an OTLP endpoint is set, but there will be no spans: {error}; pip install 'dynctl[otel]'")
        return None
    own: dict[str, Any] = {SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", "dynctl-frontend")}
    provider = TracerProvider(resource=Resource.create(own))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
