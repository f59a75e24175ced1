"""OpenTelemetry: spans of requests and their legs, as they arrive at a collector."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from frontend_harness import until
from frontend_process import frontend
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from stub_engine import StubEngine, hang_up, prefill_reply, stream, text_event

DONE = b"data: [DONE]\n\n"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@contextmanager
def collector() -> Iterator[tuple[str, list[Any]]]:
    """An OTLP/HTTP receiver: its URL, and the spans that came."""
    spans: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                names = {item.key: item.value.string_value for item in resource.resource.attributes}
                assert names["service.name"] == "dynctl-frontend"
                spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", spans
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_a_request_and_its_legs_are_one_trace() -> None:
    """The client's trace goes on through the frontend into both engines; a failed leg says so."""
    with collector() as (url, spans):
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        async with (
            StubEngine(prefill_reply()) as p,
            StubEngine(stream(text_event("a"), DONE)) as d,
            frontend(env, prefill=[p.url], decode=[d.url]) as process,
        ):
            given = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=1", "x-request-id": "mine"}
            assert (await process.ask(given)).status_code == 200
            await until(lambda: len(spans) >= 3)
            told = [engine.asked[0].headers for engine in (p, d)]
            d.script = hang_up()
            assert (await process.ask()).status_code == 502
        # the rest is sent at the end
    by_name = {span.name: span for span in spans[:3]}
    root, prefill, decode = (by_name[name] for name in ("POST /v1/completions", "prefill prefill-0", "decode decode-0"))
    assert {span.trace_id.hex() for span in by_name.values()} == {TRACE}
    assert root.parent_span_id.hex() == PARENT
    assert {prefill.parent_span_id, decode.parent_span_id} == {root.span_id}
    assert [headers["traceparent"].split("-")[1:3] for headers in told] == [
        [TRACE, prefill.span_id.hex()],
        [TRACE, decode.span_id.hex()],
    ]
    assert [headers["tracestate"] for headers in told] == ["a=1", "a=1"]
    attributes = {item.key: item.value for item in root.attributes}
    assert attributes["dynctl.request_id"].string_value == "mine"
    assert attributes["http.response.status_code"].int_value == 200
    assert attributes["dynctl.ttft_ms"].double_value > 0
    assert prefill.end_time_unix_nano <= decode.start_time_unix_nano
    lost = [span for span in spans[3:] if span.name == "decode decode-0"]
    assert lost
    assert all(span.status.code == span.status.STATUS_CODE_ERROR for span in lost)
    assert len({span.trace_id for span in spans[3:]}) == 1


async def test_off_nothing_of_it_is_loaded() -> None:
    """Without an endpoint the library is not imported, and the client's context goes through as it is."""
    code = "import sys; from dynctl.frontend.command import serve; from dynctl.frontend.tracing import by_environment"
    code += "; print(by_environment(print), [name for name in sys.modules if name.startswith('opentelemetry')])"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, env={"PATH": "/usr/bin"}
    )
    out, _ = await child.communicate()
    assert out.decode().strip() == "None []"
