"""`status`: the document that other programs read."""

from __future__ import annotations

import time

from tests.integration.run_harness import PATIENCE_S, Home

PROCESS_KEYS = {
    "id", "role", "node", "pid", "state", "phase", "gpus", "gpu_uuids", "nics", "numa", "cpus", "ports", "restarts",
    "since", "rss_bytes",
}  # fmt: skip
SPLIT = {"queue", "prefill", "handover"}
WINDOW = {"prefill_queue", "prefill_compute", "transfer", "first_decode", "unattributed"}


def test_the_status_document_has_its_shape(home: Home) -> None:
    started = time.time()
    home.up()
    for _ in range(3):
        list(home.stream())
    status = home.await_status(lambda s: s["ttft_ms"]["window"]["transfer"] is not None, "figures of the window")
    assert {"schema", "name", "state", "supervisor", "frontend", "processes", "transport", "ttft_ms"} <= status.keys()
    assert (status["schema"], status["name"], status["state"]) == (1, home.name, "ready")
    assert status["frontend"]["url"] == home.url
    assert status["frontend"]["health"] == "ok"
    assert status["frontend"]["requests_total"] >= 3

    alive = {p.pid for p in home.processes()}
    assert status["supervisor"]["pid"] in alive
    assert [p["id"] for p in status["processes"]] == ["prefill-0", "decode-0", "frontend"]
    for process in status["processes"]:
        assert process.keys() >= PROCESS_KEYS
        assert process["pid"] in alive
        assert (process["state"], process["phase"], process["restarts"]) == ("ready", None, 0)
        assert process["rss_bytes"] > 1 << 20
        assert started - 1 <= process["since"] <= time.time()
        assert process["ports"]["http"] > 0

    transport = status["transport"]
    assert (transport["required"], transport["verdict"]) == ("auto", "shm")
    (pair,) = transport["pairs"]
    assert (pair["from"], pair["to"], pair["verdict"]) == ("prefill-0", "decode-0", "shm")
    assert pair["gigabytes_per_s"] > 0
    for item in (*transport["evidence"], *pair["evidence"]):
        assert item["kind"] in {"used", "planned", "lane", "counter"}
        assert "cma/memory" in item["line"]
        assert item["source"]

    ttft = status["ttft_ms"]
    assert ttft["p99"] >= ttft["p50"] > 0
    assert ttft["requests"] >= 3
    assert ttft["split"].keys() == SPLIT
    assert ttft["window"].keys() >= WINDOW


def test_status_is_readable_off_a_terminal(home: Home) -> None:
    home.up()
    shown = home.run("status")
    assert shown.code == 0, shown.err
    assert "\x1b" not in shown.out
    for word in (home.name, "ready", "prefill-0", "decode-0", "shm"):
        assert word in shown.out


def test_status_of_a_run_that_is_starting_names_phases(home: Home) -> None:
    home.control(decode={"hang_at_phase": "kv_cache"})
    up = home.start("up", home.topology())
    up.says("decode-0     loading weights")
    status = home.status()
    assert status["state"] == "starting"
    decode = next(p for p in status["processes"] if p["id"] == "decode-0")
    assert decode["state"] == "loading"
    assert decode["phase"]
    assert home.run("down", home.name, "--kill").code == 0
    assert up.wait(PATIENCE_S).code != 0
