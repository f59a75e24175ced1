"""`/metrics`: what it counts, by Prometheus' own rules, and the dashboard that shows it."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from frontend_harness import Router, on_uvloop, until
from prometheus_client.parser import text_string_to_metric_families
from promlint import problems
from stub_engine import StubEngine, hang_up, prefill_reply, reply, silent, stream, text_event

from dynctl.frontend.admission import AdmissionLimits
from dynctl.frontend.shaping import Shaping

DONE = b"data: [DONE]\n\n"
DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana.json"
MANY = stream(*(text_event(letter) for letter in "abcdef"), DONE)


async def shown(router: Router) -> dict[str, float]:
    """Every sample by name and labels."""
    text = (await router.http.get("/metrics")).text
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


@on_uvloop
async def test_what_happened_is_counted_by_leg_and_worker() -> None:
    async with (
        StubEngine(prefill_reply()) as p,
        StubEngine(MANY) as d,
        StubEngine(hang_up()) as bad,
        Router() as router,
    ):
        router.table({"prefill": 1, "decode": 2}, prefill_0=p.url, decode_0=d.url, decode_1=bad.url)
        for _ in range(2):  # one of both goes to decode-1 first
            assert (await router.ask()).content.endswith(DONE)
        d.script = reply('{"error":{"message":"no","type":"x","param":null,"code":null}}', 404)
        assert (await router.ask()).status_code == 404
        router.table({"prefill": 1, "decode": 1}, decode_0=d.url)
        d.script = MANY
        assert (await router.ask()).content.endswith(DONE)
        d.script = silent()
        asking = asyncio.create_task(router.ask())
        await until(lambda: len(d.asked) == 5)
        asking.cancel()
        await router.record(5)
        seen = await shown(router)
    assert seen["dynctl_legs_total{leg=decode,outcome=ok,worker=decode-0}"] == 3
    assert seen["dynctl_legs_total{leg=decode,outcome=refused,worker=decode-0}"] == 1
    assert seen["dynctl_legs_total{leg=decode,outcome=closed,worker=decode-1}"] >= 1
    assert seen["dynctl_legs_total{leg=decode,outcome=left,worker=decode-0}"] == 1
    assert seen["dynctl_legs_total{leg=prefill,outcome=ok,worker=prefill-0}"] >= 3
    assert seen["dynctl_leg_seconds_count{leg=decode,worker=decode-0}"] == 3
    assert seen["dynctl_itl_seconds_count{mode=disaggregated}"] == 2
    assert seen["dynctl_itl_seconds_count{mode=decode-only}"] == 1
    assert (
        0
        < seen["dynctl_itl_seconds_sum{mode=disaggregated}"]
        < seen["dynctl_leg_seconds_sum{leg=decode,worker=decode-0}"]
    )
    assert seen["dynctl_worker_ready{role=decode,worker=decode-0}"] == 1
    assert seen["dynctl_worker_requests_in_flight{role=decode,worker=decode-0}"] == 0
    assert seen["dynctl_health_seconds_total{status=ok}"] > 0
    assert seen["dynctl_health_seconds_total{status=degraded}"] > 0


@on_uvloop
async def test_load_is_shown_by_worker_while_it_lasts() -> None:
    key = "dynctl_worker_requests_in_flight{role=worker,worker=worker-0}"
    async with StubEngine(silent()) as engine, Router() as router:
        router.table(worker_0=engine.url)
        asking = asyncio.create_task(router.ask())
        await until(lambda: bool(engine.asked))
        assert (await shown(router))[key] == 1
        asking.cancel()
        await router.record()
        assert (await shown(router))[key] == 0


@on_uvloop
async def test_prometheus_finds_no_fault_and_grafana_every_metric() -> None:
    shaping = Shaping(admission=AdmissionLimits(running=1, queue=0), alone=1)
    async with StubEngine(prefill_reply()) as p, StubEngine(MANY) as d, Router(shaping=shaping) as router:
        router.table(prefill_0=p.url, decode_0=d.url)
        p.script = silent()
        waiting = asyncio.create_task(router.ask())
        await until(lambda: bool(p.asked))
        assert (await router.ask()).status_code == 429
        waiting.cancel()
        await router.record(2)
        p.script = prefill_reply()
        router.app.metrics.window({"transfer": 6.5, "gigabytes_per_s": 2.0})
        for _ in range(2):
            await router.ask()
        router.app.metrics.degraded("no_prefill")
        router.app.metrics.retried("decode", "closed")
        answer = await router.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert problems(answer.text) == []
    names = {sample.name for family in text_string_to_metric_families(answer.text) for sample in family.samples}
    assert "dynctl_kv_transfer_bytes_per_second 2e+09" in answer.text
    wanted = expressions(json.loads(DASHBOARD.read_text()))
    assert len(wanted) >= 12
    used = {name for text in wanted for name in re.findall(r"\b(?:dynctl|process)_[a-z_]+", text)}
    assert used - names == set()
    own = {name for name in names if name.startswith("dynctl_") and not name.endswith(("_count", "_sum", "_created"))}
    assert own - used == set(), "every metric is on the dashboard"


def expressions(dashboard: dict[str, Any]) -> list[str]:
    """Every query of it."""
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def test_panels_do_not_overlap_and_name_their_source() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["datasource"] == {"type": "prometheus", "uid": "${source}"}
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("# TYPE a_requests_total counter\na_requests_total 1\n", "no help"),
        ("# HELP a_wait_milliseconds x\n# TYPE a_wait_milliseconds gauge\na_wait_milliseconds 1\n", "use seconds"),
        ("# HELP a_total x\n# TYPE a_total gauge\na_total 1\n", "only counters"),
        ("# HELP a_ms x\n# TYPE a_ms gauge\na_ms 1\n", "abbreviation"),
        ("# HELP a x\n# TYPE a gauge\na 1\na 2\n", "more than once"),
    ],
)
def test_the_rules_find_faults(text: str, fault: str) -> None:
    assert any(fault in problem for problem in problems(text))
