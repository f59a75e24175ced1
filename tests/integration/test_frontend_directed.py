"""Requests that are directed to a pair of workers."""

from __future__ import annotations

import pytest
from frontend_harness import BODY, TOKEN, on_uvloop
from pair_harness import error_of, pair
from stub_engine import hang_up, prefill_reply, reply


@on_uvloop
async def test_directed_requests_go_exactly_where_they_are_told() -> None:
    async with pair() as (router, prefill, decode):
        router.table(prefill_0=f"proving@{prefill.url}", decode_0=f"proving@{decode.url}")
        token = {"X-Dynctl-Token": TOKEN.decode()}
        answer = await router.ask(headers={**token, "X-Dynctl-Pair": "prefill-0>decode-0"})
        assert answer.status_code == 200
        record = await router.record()
        assert (record.directed, record.mode, record.prefill, record.decode) == (
            True,
            "disaggregated",
            "prefill-0",
            "decode-0",
        )
        assert record.ttft_ms is not None
        assert "dynctl_ttft_seconds_count{" not in (await router.http.get("/metrics")).text
        answer = await router.ask(headers={**token, "X-Dynctl-Pair": "decode-0"})
        assert answer.status_code == 200
        assert decode.asked[1].body == BODY
        assert (await router.record(2)).mode == "decode-only"
        assert "x-dynctl-token" not in decode.asked[1].headers


@on_uvloop
@pytest.mark.parametrize("token", [None, "wrong", ""])
async def test_directed_requests_need_the_token(token: str | None) -> None:
    async with pair() as (router, prefill, decode):
        headers = {"X-Dynctl-Pair": "decode-0"} if token is None else {"X-Dynctl-Pair": "d", "X-Dynctl-Token": token}
        answer = await router.ask(headers=headers)
        assert answer.status_code == 403
        assert error_of(answer)["type"] == "permission_error"
        assert prefill.asked == decode.asked == []


@on_uvloop
async def test_directed_requests_know_no_fall_back() -> None:
    async with pair(prefill=reply("boom", 500)) as (router, prefill, decode):
        token = {"X-Dynctl-Token": TOKEN.decode()}
        directed = {**token, "X-Dynctl-Pair": "prefill-0>decode-0"}
        answer = await router.ask(headers=directed)
        assert answer.status_code == 500
        assert "prefill leg on prefill-0" in str(error_of(answer)["message"])
        assert decode.asked == []
        prefill.script = prefill_reply("null")
        answer = await router.ask(headers=directed)
        assert (answer.status_code, error_of(answer)["code"]) == (502, "no_handover")
        prefill.script, decode.script = prefill_reply(), hang_up()
        answer = await router.ask(headers=directed)
        assert answer.status_code == 502
        assert "decode leg on decode-0" in str(error_of(answer)["message"])
        answer = await router.ask(headers={**token, "X-Dynctl-Pair": "prefill-9>decode-0"})
        assert (answer.status_code, error_of(answer)["code"]) == (400, "no_such_worker")
        router.table(prefill_0=f"down@{prefill.url}", decode_0=decode.url)
        assert (await router.ask(headers=directed)).status_code == 503
