"""The window has a beginning before the first request and an end after the last one."""

from __future__ import annotations

import httpx
import pytest

from dynctl.frontend.messages import Report, RequestRecord
from dynctl.runtime.observer import Observer
from tests.unit.plan.machines import made


def engines(counter: dict[str, int]) -> httpx.AsyncClient:
    """Engines whose transfer counter rises a moment after the request that moved the bytes was reported."""

    def answer(request: httpx.Request) -> httpx.Response:
        counter["scrapes"] += 1
        count = counter["transfers"]
        text = f"vllm:nixl_xfer_time_seconds_count {count}\nvllm:nixl_xfer_time_seconds_sum {count * 0.004}\n"
        return httpx.Response(200, text=text)

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


async def test_one_request_right_after_ready_has_its_figures() -> None:
    """The counter is late: the round after the report still sees the old value, the next one the new."""
    observer, counter = Observer(made()), {"transfers": 7, "scrapes": 0}
    async with engines(counter) as http:
        await observer.scrape(http)
        record = RequestRecord(id="a", at=0, path="/v1/completions", mode="disaggregated", status=200, streamed=True)
        observer.take(Report(requests=(record,), requests_total=1))
        await observer.scrape(http)
        counter["transfers"] = 8
        await observer.scrape(http)
        transfer_ms = observer.ttft().window["transfer"]
        assert transfer_ms is not None
        assert abs(transfer_ms - 4.0) < 1e-6


async def test_idle_engines_are_left_alone() -> None:
    """No request, no scraping."""
    observer, counter = Observer(made()), {"transfers": 0, "scrapes": 0}
    async with engines(counter) as http:
        for _ in range(6):
            await observer.scrape(http)
    workers = 2
    assert counter["scrapes"] <= 2 * workers


async def test_the_first_request_counts_whenever_the_engine_has_come() -> None:
    """Also where nothing was asked of it before, as of an aggregated worker, or of one that was started anew."""
    observer, answer = Observer(made()), httpx.Response(503)
    name = "vllm:request_prefill_time_seconds"

    def counted(prefills: int) -> httpx.Response:
        return httpx.Response(200, text=f'{name}_count{{engine="0"}} {prefills}\n{name}_sum{{engine="0"}} {prefills}\n')

    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: answer)) as http:
        for _ in range(4):
            await observer.scrape(http)
        for requests in (1, 2):
            answer = counted(0)
            await observer.scrape(http)
            record = RequestRecord(
                id="a", at=0, path="/v1/completions", mode="disaggregated", status=200, streamed=True
            )
            observer.take(Report(requests=(record,), requests_total=requests))
            answer = counted(1)
            await observer.scrape(http)
            assert observer.ttft().window["prefill_compute"] == pytest.approx(1000)
            await observer.scrape(http)
            for worker in ("prefill-0", "decode-0"):
                observer.restarted(worker)


async def test_figures_are_told_while_there_are_requests_and_once_after_them() -> None:
    observer = Observer(made())
    assert observer.news() is not None
    assert observer.news() is None, "nothing is new"
    record = RequestRecord(id="a", at=0, path="/v1/completions", mode="disaggregated", status=200, streamed=True)
    observer.take(Report(requests=(record,), requests_total=1))
    assert observer.news() is not None
    assert observer.news() is not None, "engines count late"


async def test_canaries_of_an_idle_time_are_none_of_the_window() -> None:
    observer, now = Observer(made()), ""

    def text(prefills: int, prefill_s: float) -> str:
        name = "vllm:request_prefill_time_seconds"
        return f'{name}_count{{engine="0"}} {prefills}\n{name}_sum{{engine="0"}} {prefill_s}\n'

    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, text=now))) as http:
        assert (observer.counts_canaries("prefill-0"), observer.counts_canaries("decode-0")) == (True, False)
        now = text(0, 0.0)
        await observer.scrape(http)
        for number in range(1, 900):
            observer.canary_begins("prefill-0")
            observer.canary_ends("prefill-0", text(number, number * 0.01), answered=True)
        record = RequestRecord(id="a", at=0, path="/v1/completions", mode="disaggregated", status=200, streamed=True)
        observer.take(Report(requests=(record,), requests_total=1))
        now = text(900, 10.99)
        await observer.scrape(http)
        assert observer.ttft().window["prefill_compute"] == pytest.approx(2000)
        observer.restarted("prefill-0")
        assert observer.ttft().window["prefill_compute"] is None
