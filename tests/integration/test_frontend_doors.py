"""By which ways clients come: a unix socket, web pages of other origins; and what is written down of them."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path

import httpx
import pytest
from frontend_harness import BODY, Router, on_uvloop, until
from frontend_process import frontend
from stub_engine import StubEngine, prefill_reply, reply, stream, text_event

from dynctl.errors import UsageError
from dynctl.frontend.cors import Cors
from dynctl.frontend.listen import bind_unix, is_loopback

DONE = b"data: [DONE]\n\n"
PAGE = "https://app.example"


@on_uvloop
async def test_a_unix_socket_in_the_place_of_a_port(tmp_path: Path) -> None:
    path = tmp_path / "s"
    bind_unix(path).close()  # what a killed frontend leaves
    async with (
        StubEngine(prefill_reply()) as p,
        StubEngine(stream(text_event("a"), DONE)) as d,
        frontend(prefill=[p.url], decode=[d.url], uds=str(path)) as process,
    ):
        assert process.url == f"http+unix://{path}"
        assert stat.S_IMODE(path.stat().st_mode) & 0o022 == 0
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport, base_url="http://frontend", timeout=30) as http:
            assert (await http.post("/v1/completions", content=BODY)).content.endswith(DONE)
            assert (await http.get("/dynctl/requests")).json()["requests"][0]["status"] == 200
        with pytest.raises(UsageError, match="another process listens"):
            bind_unix(path)
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(UsageError, match="a file in the socket's place"):
        bind_unix(path)
    assert path.read_text() == "mine"


@on_uvloop
async def test_pages_of_the_named_origins_may_use_it() -> None:
    async with StubEngine(stream(text_event("a"), DONE)) as engine, Router(keys=(b"k",)) as router:
        router.table(worker_0=engine.url)
        router.server.handler = Cors(router.app.handle, [PAGE]).handle
        asks = {"origin": PAGE, "access-control-request-method": "POST"}
        wanted = {"access-control-request-headers": "authorization,content-type"}
        flight = await router.http.options("/v1/completions", headers={**asks, **wanted})
        assert (flight.status_code, flight.content) == (204, b"")
        assert flight.headers["access-control-allow-origin"] == PAGE
        assert flight.headers["access-control-allow-headers"] == "authorization,content-type"
        assert "POST" in flight.headers["access-control-allow-methods"]
        for key, status in (("k", 200), ("other", 401)):
            answer = await router.ask(headers={"origin": PAGE, "authorization": f"Bearer {key}"})
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, PAGE)
            assert "x-request-id" in answer.headers["access-control-expose-headers"]
            assert answer.headers["vary"] == "origin"
        for other in ("https://evil.example", "null"):
            answer = await router.http.options("/v1/completions", headers={**asks, "origin": other})
            assert "access-control-allow-origin" not in answer.headers
            assert answer.headers["vary"] == "origin"
        plain = await router.http.options("/v1/completions", headers={"origin": PAGE})
        assert plain.headers["allow"] == "GET, HEAD, POST, OPTIONS"


@on_uvloop
async def test_every_page_or_none() -> None:
    async with StubEngine(reply("{}")) as engine, Router() as router:
        router.table(worker_0=engine.url)
        assert "access-control-allow-origin" not in (await router.ask(headers={"origin": PAGE})).headers
        router.server.handler = Cors(router.app.handle, ["*"]).handle
        assert (await router.ask(headers={"origin": PAGE})).headers["access-control-allow-origin"] == "*"
    for wrong in ("app.example", "https://app.example/", "ftp://a"):
        with pytest.raises(UsageError):
            Cors(router.app.handle, [wrong])


async def test_the_access_log_is_json_lines_and_follows_rotation(tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    async with (
        StubEngine(prefill_reply()) as p,
        StubEngine(stream(text_event("a"), text_event("b"), DONE)) as d,
        frontend(prefill=[p.url], decode=[d.url], access_log=str(log)) as process,
    ):
        await process.ask({"x-request-id": "one", "user-agent": "test/1", "authorization": "Bearer secret"})
        await until(lambda: log.stat().st_size > 0)  # written once the answer has gone
        (line,) = [json.loads(text) for text in log.read_text().splitlines()]
        assert {"id": "one", "client": "127.0.0.1", "method": "POST", "path": "/v1/completions"}.items() <= line.items()
        assert {"status": 200, "streamed": True, "prefill": "prefill-0", "decode": "decode-0"}.items() <= line.items()
        assert line["user_agent"] == "test/1"
        assert line["ttft_ms"] > 0
        assert line["time"].endswith("+00:00")
        assert "secret" not in log.read_text()
        log.rename(tmp_path / "old")
        process.process.send_signal(signal.SIGHUP)
        await until(log.exists)
        await process.ask({"x-request-id": "two"})
        await until(lambda: log.stat().st_size > 0)
        assert [json.loads(text)["id"] for text in log.read_text().splitlines()] == ["two"]
        await process.http.get(process.url + "/health")
        assert len(log.read_text().splitlines()) == 1


@on_uvloop
async def test_ids_and_trace_contexts_go_in_and_out() -> None:
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=1"}
    async with (
        StubEngine(prefill_reply()) as p,
        StubEngine(stream(text_event("a"), DONE)) as d,
        Router() as router,
    ):
        router.table(prefill_0=p.url, decode_0=d.url)
        answer = await router.ask(headers={"x-request-id": "mine", **trace})
        assert answer.headers["x-request-id"] == "mine"
        for engine in (p, d):
            assert {"x-request-id": "mine", **trace}.items() <= engine.asked[0].headers.items()
        made = (await router.ask(headers={"x-request-id": "not fit"})).headers["x-request-id"]
        assert len(made) == 32
        assert p.asked[1].headers["x-request-id"] == d.asked[1].headers["x-request-id"] == made


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), (None, True), ("10.0.0.1", False), ("x", False)],
)
def test_who_is_on_this_machine(host: str | None, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_an_access_log_that_can_not_be_written_is_said(tmp_path: Path) -> None:
    from dynctl.frontend.access_log import AccessLog

    with pytest.raises(UsageError, match="access log"):
        AccessLog(tmp_path / "nowhere" / "log")
    log = AccessLog(tmp_path / "log")
    os.rename(tmp_path, tmp_path.with_name("moved"))
    with pytest.raises(UsageError):
        log.reopen()
