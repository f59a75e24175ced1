"""What the frontend tells of the requests that it served."""

from __future__ import annotations

from frontend_harness import BODY, Router, on_uvloop
from stub_engine import StubEngine, prefill_reply, stream, text_event

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
