"""The sample request of `up --sample`: one streamed chat completion, and where its TTFT went."""

from __future__ import annotations

import json
import sys
import time

import httpx
import msgspec

from dynctl.frontend.keys import client_headers
from dynctl.frontend.messages import RequestRecord
from dynctl.http.pinned import trust
from dynctl.plan.values import Plan
from dynctl.runtime.client import Connection, SupervisorLost, attach
from dynctl.runtime.messages import Happened
from dynctl.store.run import RunStore
from dynctl.telemetry.status import RunStatus
from dynctl.ui.sample import sample_summary
from dynctl.ui.terminal import console

QUESTION = "Why does a long prompt make the first token wait, and what does it change to prefill somewhere else?"
OUTPUT_TOKENS = 32
RECORD_WAIT_S = 10.0


def show_sample(plan: Plan, status: RunStatus, *, no_color: bool) -> None:
    """Sends the request, prints its answer to stdout and its split to stderr."""
    socket = RunStore(plan.name).record().socket
    with attach(socket, requests=True) as viewer:
        request_id = f"sample-{time.time_ns():x}"
        text = _ask(plan, request_id)
        record = _record(viewer, request_id)
    talk = console(no_color=no_color, stderr=True)
    talk.print(f"you   {QUESTION}")
    print(f"model {text!r}", flush=True)  # noqa: T201 - stdout is data
    if record:
        talk.print(sample_summary(record, status))


def _ask(plan: Plan, request_id: str) -> str:
    body = {
        "model": plan.served_name,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": OUTPUT_TOKENS,
        "stream": True,
    }
    pieces: list[str] = []
    headers = httpx.Headers({"X-Request-Id": request_id, **client_headers(plan.frontend_keys)}, encoding="utf-8")
    with (
        httpx.Client(trust_env=False, timeout=120.0, verify=trust(plan.frontend_cert)) as http,
        http.stream("POST", f"{plan.frontend_url}/v1/chat/completions", json=body, headers=headers) as response,
    ):
        if response.status_code != 200:
            response.read()
            print(f"sample request: HTTP {response.status_code}: {response.text[:300]}", file=sys.stderr)  # noqa: T201
            return ""
        for line in response.iter_lines():
            if line.startswith("data: {"):
                choices = json.loads(line[6:]).get("choices", ())
                pieces.extend(choice["delta"].get("content") or "" for choice in choices)
    return "".join(pieces)


def _record(viewer: Connection, request_id: str) -> RequestRecord | None:
    deadline = time.monotonic() + RECORD_WAIT_S
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            messages = viewer.read(left_s)
        except SupervisorLost:
            return None
        for message in messages:
            if isinstance(message, Happened) and message.event.kind == "request":
                record = msgspec.convert(message.event.data, RequestRecord)
                if record.id == request_id:
                    return record
    return None
