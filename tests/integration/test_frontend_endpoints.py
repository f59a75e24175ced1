"""Paths, methods and bodies: what is passed on, what is not there, what needs an API key, what reaches no engine."""

from __future__ import annotations

import pytest
from frontend_harness import TOKEN, Router, on_uvloop
from pair_harness import error_of, pair
from stub_engine import reply


@on_uvloop
async def test_everything_else_under_v1_is_passed_on() -> None:
    async with pair(decode=reply('{"data":[]}')) as (router, prefill, decode):
        assert (await router.http.get("/v1/models?x=1")).json() == {"data": []}
        assert (await router.ask(b"\x00\xff", "/v1/audio/transcriptions")).status_code == 200
        assert (await router.ask(b"{}", "/tokenize")).status_code == 200
        assert (await router.http.head("/v1/models")).headers["content-length"] == "11"
        seen = [(asked.method, asked.target) for asked in decode.asked]
        assert seen == [
            ("GET", "/v1/models?x=1"),
            ("POST", "/v1/audio/transcriptions"),
            ("POST", "/tokenize"),
            ("GET", "/v1/models"),
        ]
        assert decode.asked[1].body == b"\x00\xff"
        assert prefill.asked == []


@on_uvloop
@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/metrics/x", "/%761/models", "//v1/models", "/reset_prefix_cache", "/v1"]
)
async def test_what_is_not_there(path: str) -> None:
    async with pair() as (router, _, decode):
        answer = await router.http.get(router.url + path)
        assert answer.status_code == 404
        assert error_of(answer)["type"] == "not_found_error"
        assert decode.asked == []


@on_uvloop
async def test_methods() -> None:
    async with pair() as (router, _, _d):
        assert (await router.http.options("/v1/completions")).status_code == 204
        assert (await router.http.post("/health")).status_code == 405
        head = await router.http.head("/health")
        assert (head.status_code, head.content) == (200, b"")
        gzip = await router.ask(headers={"content-encoding": "gzip"})
        assert gzip.status_code == 415


@on_uvloop
async def test_api_keys_guard_the_engines() -> None:
    async with pair(router=Router(keys=(b"sk-1",))) as (router, _, decode):
        for path in ("/v1/completions", "/v1/models", "/tokenize"):
            answer = await router.ask(path=path)
            assert answer.status_code == 401
            assert error_of(answer)["code"] == "invalid_api_key"
        assert decode.asked == []
        assert (await router.ask(headers={"Authorization": "Bearer sk-1"})).status_code == 200
        directed = {"X-Dynctl-Token": TOKEN.decode(), "X-Dynctl-Pair": "decode-0"}
        assert (await router.ask(headers=directed)).status_code == 200
        assert (await router.http.get("/health")).status_code == 200


@on_uvloop
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[1]", "invalid_json"),
        (b"\xff", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"prompt":"a","kv_transfer_params":{"do_remote_prefill":true}}', "reserved_field"),
    ],
)
async def test_bad_bodies_are_the_clients_error_and_reach_no_engine(body: bytes, code: str) -> None:
    async with pair() as (router, prefill, decode):
        answer = await router.ask(body)
        assert answer.status_code == 400
        assert error_of(answer)["code"] == code
        assert prefill.asked == decode.asked == []
        assert (await router.record()).status == 400
