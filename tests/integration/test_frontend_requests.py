"""What the frontend tells of the requests that it served."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import psutil
import pytest
from frontend_harness import BODY, Router, on_uvloop
from frontend_process import frontend
from stub_engine import StubEngine, prefill_reply, reply, stream, text_event

DONE = b"data: [DONE]\n\n"


@on_uvloop
async def test_the_last_requests_are_shown_with_their_splits_to_those_who_have_a_key() -> None:
    key = {"authorization": "Bearer k"}
    async with (
        StubEngine(prefill_reply()) as p,
        StubEngine(stream(text_event("a"), DONE)) as d,
        Router(keys=(b"k",)) as router,
    ):
        router.table(prefill_0=p.url, decode_0=d.url)
        for number in range(505):
            await router.ask(b"[" if number == 504 else BODY, headers={**key, "x-request-id": f"r{number}"})
        await router.record(505)
        refused = await router.http.get("/dynctl/requests")
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        document = (await router.http.get("/dynctl/requests", headers=key)).json()
        assert document["schema"] == 1
        latest, before, *_ = found = document["requests"]
        assert len(found) == 500
        assert (latest["id"], latest["status"], latest["ttft_ms"]) == ("r504", 400, None)
        assert (before["id"], before["prefill"], before["decode"]) == ("r503", "prefill-0", "decode-0")
        assert before["queue_ms"] + before["prefill_ms"] + before["handover_ms"] == before["ttft_ms"]
        assert (await router.http.post("/dynctl/requests", headers=key)).status_code == 405


def outside_address() -> str:
    """An address of this machine that is not loopback: who connects to it comes from it."""
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    for name, addresses in psutil.net_if_addrs().items():
        for address in addresses:
            if name in up and address.family == socket.AF_INET and not address.address.startswith("127."):
                return str(address.address)
    pytest.skip("this machine has no address but loopback")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
@on_uvloop
async def test_others_are_told_of_no_requests_where_no_key_is_asked_for(host: str) -> None:
    """Completions they get; `::` sees IPv4 addresses as mapped ones."""
    outside = outside_address()
    async with (
        StubEngine(reply("{}")) as engine,
        frontend(worker=[engine.url], host=host, allow_public=True) as router,
    ):
        port = urlsplit(router.url).port
        router.url = f"http://{outside}:{port}"
        assert (await router.ask()).status_code == 200
        refused = await router.http.get(f"{router.url}/dynctl/requests")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_local")
        told = await router.http.get(f"http://127.0.0.1:{port}/dynctl/requests")
        assert [record["status"] for record in told.json()["requests"]] == [200]
