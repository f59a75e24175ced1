"""Delays put into the engines' legs are found again by the TTFT split."""

from __future__ import annotations

import json
import signal

import httpx
import pytest

from dynctl.telemetry.scrape import sample
from tests.integration.run_harness import Home, T, until

PREFILL_MS, TRANSFER_MS, FIRST_MS = 900.0, 700.0, 500.0
REQUESTS = 3


def near(milliseconds: float) -> object:
    """Within 10%."""
    return pytest.approx(milliseconds, rel=0.1)


def test_injected_delays_are_recovered(home: Home) -> None:
    watching = home.start("up", home.topology(), "--json", "--verbose")
    watching.says(f"{home.name} is ready")
    home.control(
        prefill={"prefill_delay_ms": PREFILL_MS},
        decode={"transfer_delay_ms": TRANSFER_MS, "first_token_delay_ms": FIRST_MS},
    )
    for number in range(REQUESTS):
        assert list(home.stream(f"request {number} " * 30))[-1] == "[DONE]"

    def records() -> list[T]:
        events = [json.loads(line) for line in watching.out.splitlines() if line.endswith("}")]
        return [e["data"] for e in events if e["kind"] == "request"]

    served = until(lambda: len(found := records()) == REQUESTS and found, "every request is reported")
    best = min(served, key=lambda r: r["ttft_ms"])
    assert best["prefill_ms"] == near(PREFILL_MS)
    assert best["handover_ms"] == near(TRANSFER_MS + FIRST_MS)
    for record in served:
        parts = record["queue_ms"] + record["prefill_ms"] + record["handover_ms"]
        assert parts == pytest.approx(record["ttft_ms"], abs=0.01)
        assert (record["mode"], record["prefill"], record["decode"]) == ("disaggregated", "prefill-0", "decode-0")

    status = home.await_status(lambda s: s["ttft_ms"]["window"]["transfer"] is not None, "the window's figures")
    ttft = status["ttft_ms"]
    assert ttft["requests"] == REQUESTS
    assert ttft["split"]["prefill"] == near(PREFILL_MS)
    assert ttft["split"]["handover"] == near(TRANSFER_MS + FIRST_MS)
    assert ttft["p50"] == near(PREFILL_MS + TRANSFER_MS + FIRST_MS)
    assert ttft["window"]["prefill_compute"] == near(PREFILL_MS)
    assert ttft["window"]["transfer"] == near(TRANSFER_MS)
    watching.signal(signal.SIGINT)
    assert watching.wait().code == 130


SLOW_MS = 400.0


def test_canaries_and_proofs_are_in_no_figure(home: Home) -> None:
    """They take no time here, so that one which counted would pull the mean of a few slow requests down."""
    home.up({"health": {"canary": "1s"}})
    prefill = next(process for process in home.status()["processes"] if process["id"] == "prefill-0")

    def computed() -> int:
        text = httpx.get(f"http://127.0.0.1:{prefill['ports']['http']}/metrics", trust_env=False).text
        return int(sample(text, 0.0).prefills)

    def canaries(count: int) -> None:
        before = computed()
        until(lambda: computed() >= before + count, "canaries come")

    def figure(prompt: str) -> float:
        home.control(prefill={"prefill_delay_ms": SLOW_MS})
        assert list(home.stream(prompt))[-1] == "[DONE]"
        home.control()
        canaries(2)
        known = home.await_status(lambda s: s["ttft_ms"]["window"]["prefill_compute"] is not None, "the figure")
        found: float = known["ttft_ms"]["window"]["prefill_compute"]
        return found

    canaries(4)
    assert figure("a first word " * 30) > 0.8 * SLOW_MS
    assert home.run("restart", home.name, "decode-0").code == 0
    assert figure("another word " * 30) > 0.8 * SLOW_MS


def test_what_verification_computes_is_in_no_figure(home: Home) -> None:
    home.up(None, "--verify")
    home.control(prefill={"prefill_delay_ms": SLOW_MS})
    assert list(home.stream("a first word " * 30))[-1] == "[DONE]"
    known = home.await_status(lambda s: s["ttft_ms"]["window"]["prefill_compute"] is not None, "the figure")
    assert known["ttft_ms"]["window"]["prefill_compute"] > 0.8 * SLOW_MS


def test_each_request_has_a_line(home: Home) -> None:
    watching = home.start("up", home.topology(), "--verbose")
    watching.says(f"{home.name} is ready")
    list(home.stream())
    home.ask()
    watching.says("prefill-0→decode-0 200 TTFT")
    watching.says("prefill-0→decode-0 200 not streamed")
    watching.signal(signal.SIGINT)
    assert watching.wait().code == 130
