"""The dispatcher under random failures of its legs: the real dispatcher, legs and relay over a scripted client.

Each request ends once: served whole, or with a clean error. No answer is mixed from two, no parameters are used twice.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from dynctl.frontend.dispatch import Dispatcher
from dynctl.frontend.errors import Failure
from dynctl.frontend.job import Job
from dynctl.frontend.legs import Legs
from dynctl.frontend.messages import WorkerEntry, WorkerTable
from dynctl.frontend.metrics import Metrics
from dynctl.frontend.retry import MAX_ANSWERS, MAX_PREFILLS, Budget, RetryLimits
from dynctl.frontend.workers import Workers
from dynctl.http.call import Call, ClientError, Sink
from dynctl.http.client import Client
from dynctl.http.message import Headers, Request
from dynctl.http.origin import Origin
from dynctl.http.responder import Responder

FATES = ("good", "connect", "closed", "stale", "timeout", "error", "headless", "broken", "event", "bad json", "busy")
SSE: Headers = [(b"content-type", b"text/event-stream")]
JSON: Headers = [(b"content-type", b"application/json")]


def pieces(answer: int) -> list[bytes]:
    return [b'data: {"choices":[{"text":"<%d.%d>"}]}\n\n' % (answer, part) for part in range(3)]


class Wire:
    """The client's side of the server: what was written, and whether it was cut."""

    def __init__(self) -> None:
        self.data = b""
        self.cut = False

    def write(self, data: bytes) -> None:
        assert not self.cut
        self.data += data

    def get_extra_info(self, name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return self.cut

    def abort(self) -> None:
        self.cut = True


class Engines:
    """Stands in for the HTTP client: every leg meets a random fate. `asked` holds (port, body) of each."""

    def __init__(self, chance: random.Random, ill: float) -> None:
        self.chance, self.ill = chance, ill
        self.asked: list[tuple[int, bytes]] = []
        self.whole: set[int] = set()

    def send(
        self, origin: Origin, method: str, target: bytes, headers: Headers, body: bytes, sink: Sink, **_: Any
    ) -> Call:
        number = len(self.asked)
        self.asked.append((origin.port, body))
        call = Call(cast("Client", self), origin, b"", body, sink, bodiless=False, resend=False)
        fate = self.chance.choice(FATES) if self.chance.random() < self.ill else "good"
        asyncio.get_running_loop().call_soon(self._play, call, fate, number)
        return call

    def forget(self, origin: Origin) -> None:
        pass

    def _play(self, call: Call, fate: str, number: int) -> None:
        if call.over:
            return
        if fate in ("connect", "closed", "stale", "timeout"):
            call.failed(ClientError(cast("Any", fate), fate))
        elif fate in ("error", "busy"):
            call.headed(500 if fate == "error" else 503, JSON)
            call.sink.on_body(b'{"error":{"message":"engine"}}')
            call.ended()
        elif b'"do_remote_decode":true' in call.body:
            call.headed(200, JSON)
            call.sink.on_body(b"<html>" if fate == "bad json" else b'{"kv_transfer_params":{"blocks":%d}}' % number)
            call.ended()
        else:
            self._stream(call, fate, number)

    def _stream(self, call: Call, fate: str, number: int) -> None:
        call.headed(200, SSE)
        if fate == "event":
            call.sink.on_body(b'data: {"error":{"message":"KV load failed"}}\n\n')
        elif fate != "headless":
            parts = pieces(number)
            for part in parts[: 1 if fate == "broken" else 3]:
                call.sink.on_body(part)
        if call.over:
            return
        if fate in ("broken", "headless"):
            call.failed(ClientError("closed", fate))
        else:
            if fate != "event":
                self.whole.add(number)
            call.ended()


def table(prefills: int, decodes: int) -> WorkerTable:
    entries = [
        WorkerEntry(id=f"prefill-{n}", role="prefill", url=f"http://h:{100 + n}", state="ready")
        for n in range(prefills)
    ]
    entries += [
        WorkerEntry(id=f"decode-{n}", role="decode", url=f"http://h:{200 + n}", state="ready") for n in range(decodes)
    ]
    return WorkerTable(workers=tuple(entries), expected={"prefill": prefills, "decode": decodes})


async def one(dispatcher: Dispatcher, engines: Engines) -> bool:
    """One request; whether it was served. Everything that must hold of it is checked here."""
    before = len(engines.asked)
    wire = Wire()
    head = {"method": "POST", "target": b"/v1/completions", "path": "/v1/completions", "headers": []}
    request = Request(**head, body=b'{"prompt":"hi","stream":true}', received=0.0, keep_alive=True, http10=False)  # type: ignore[arg-type]
    responder = Responder(cast("asyncio.Transport", wire), request)
    job = Job(request, responder, 0.0, "disaggregated")
    failure: Failure | None = None
    try:
        await asyncio.wait_for(dispatcher.generate(job), 20)
    except Failure as error:
        failure = error
    asked = engines.asked[before:]
    answers = [(before + i, body) for i, (port, body) in enumerate(asked) if port >= 200]
    assert len(answers) <= MAX_ANSWERS
    assert len(asked) - len(answers) <= MAX_PREFILLS + MAX_ANSWERS
    handed = [body for _, body in answers if b'"blocks"' in body]
    assert len(set(handed)) == len(handed)
    seen = {number for number in range(before, before + len(asked)) if b"<%d." % number in wire.data}
    if failure is not None:
        assert wire.data == b""
        assert failure.status >= 500
        assert failure.body.startswith(b'{"error":')
        return False
    assert responder.ended
    assert seen <= {answers[-1][0]}
    if seen and seen <= engines.whole:
        for piece in pieces(answers[-1][0]):
            assert wire.data.count(piece) == 1
        assert b'"error"' not in wire.data
        return True
    assert wire.data.count(b'{"error":') == 1  # as the only body, or as a stream's last event
    return False


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    ill=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    prefills=st.integers(0, 3),
    decodes=st.integers(1, 3),
    burst=st.sampled_from([0.0, 2.0, 64.0]),
)
def test_each_request_is_served_once_or_fails_cleanly(
    seed: int, ill: float, prefills: int, decodes: int, burst: float
) -> None:
    async def run() -> None:
        engines = Engines(random.Random(seed), ill)
        workers = Workers(clock=lambda: 0.0)
        workers.update(table(prefills, decodes))
        legs = Legs(cast("Client", engines), time.perf_counter)
        budget = Budget(RetryLimits(ratio=0.2, burst=burst))
        dispatcher = Dispatcher(workers, legs, Metrics(workers), budget)
        served = [await one(dispatcher, engines) for _ in range(20)]
        if ill == 0.0:
            assert all(served)
        if prefills == 0:
            assert len(engines.asked) <= 20 + burst + 0.2 * 20

    asyncio.run(run())
