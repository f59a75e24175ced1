"""Health of a ready run: what is alive but serves nothing is taken out, and is back by itself or by a restart."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

from tests.integration.run_harness import Home, T, until
from tests.integration.test_degraded import health, ready_again, row, text

QUICK = {"health": {"canary": "500ms", "stall": "60s"}}
SHORT = {"health": {"canary": "500ms", "stall": "1s"}}
RULE = {"restart": {"max": 1, "backoff": "100ms"}}


def record(home: Home, role: str) -> T:
    """What the latest engine of a role recorded of itself."""
    (file,) = Path(home.dir / "record").glob(f"{role}-*.json")
    found: T = json.loads(file.read_text())
    return found


def said(home: Home, process: str, state: str) -> T:
    """The last event of a process's entering that state."""
    found: T = [e for e in home.events() if e.get("process") == process and e.get("state") == state][-1]
    return found


def test_a_stopped_worker_is_out_until_it_goes_on(home: Home) -> None:
    home.up({**QUICK, "roles": {"prefill": RULE}})
    expected = text(home)
    pid = row(home.status(), "prefill-0")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        home.await_status(lambda s: row(s, "prefill-0")["state"] == "unhealthy", "prefill is unhealthy")
        until(lambda: health(home)[1]["status"] == "degraded", "the frontend has heard of it")
        assert text(home) == expected, "decode serves alone"
    finally:
        os.kill(pid, signal.SIGCONT)
    status = home.await_status(lambda s: s["state"] == "ready", "prefill is back")
    assert row(status, "prefill-0")["restarts"] == 0
    assert row(status, "prefill-0")["pid"] == pid
    assert "is stopped by a signal" in said(home, "prefill-0", "unhealthy")["message"]
    assert text(home) == expected


def test_a_deadlocked_engine_is_killed_and_restarted(home: Home) -> None:
    """The server answers /health and /metrics all the while."""
    home.up({**SHORT, "roles": {"decode": RULE}})
    expected = text(home)
    home.control(decode={"stuck": True})
    home.await_status(lambda s: row(s, "decode-0")["state"] not in {"ready", "unhealthy"}, "decode is given up")
    assert "no token" in said(home, "decode-0", "unhealthy")["message"]
    home.control()
    status = home.await_status(ready_again("decode-0"), "decode is back")
    assert row(status, "decode-0")["restarts"] == 1
    assert text(home) == expected


def test_a_worker_that_calls_itself_unhealthy_is_believed(home: Home) -> None:
    home.up(QUICK)
    home.control(prefill={"health_status": 503})
    home.await_status(lambda s: row(s, "prefill-0")["state"] == "unhealthy", "prefill is unhealthy")
    assert said(home, "prefill-0", "unhealthy")["message"] == "/health answers 503"
    home.control()
    home.await_status(lambda s: s["state"] == "ready", "prefill is back")


def test_a_lost_engine_core_is_noticed_behind_a_server_that_answers(home: Home) -> None:
    home.up({"roles": {"decode": RULE}})
    expected = text(home)
    home.control(decode={"core_exit_delay_s": 3600})
    os.kill(record(home, "decode")["pids"]["core"], signal.SIGKILL)
    home.control()
    home.await_status(ready_again("decode-0"), "decode is back")
    # the worker under the core ends with it, and may be seen first
    assert re.match(r"VLLM::(EngineCore|Worker) \(pid [0-9]+\) ended", said(home, "decode-0", "crashed")["why"])
    assert text(home) == expected


def test_a_frontend_that_hangs_is_replaced(home: Home) -> None:
    home.up(SHORT)
    expected = text(home)
    os.kill(row(home.status(), "frontend")["pid"], signal.SIGSTOP)
    home.await_status(ready_again("frontend"), "the frontend is back")
    assert text(home) == expected


AFTER_PREFILL = """
import msgspec
from dynctl.runtime import managed
made = managed.Managed.__init__
def init(self, spec, *rest):
    if spec.role == "decode":
        rule = msgspec.structs.replace(spec.restart, after_restart_of="prefill")
        spec = msgspec.structs.replace(spec, restart=rule)
    made(self, spec, *rest)
managed.Managed.__init__ = init
"""


def test_an_engine_that_must_follow_its_partners_restart_does(home: Home) -> None:
    """No adapter asks for it yet: the rule is put into the specification on its way to the supervisor."""
    home.hook("_supervise", AFTER_PREFILL)
    home.up({"roles": {"prefill": RULE, "decode": RULE}})
    expected = text(home)
    os.kill(row(home.status(), "prefill-0")["pid"], signal.SIGKILL)
    status = home.await_status(ready_again("prefill-0"), "both are ready again")
    assert row(status, "decode-0")["restarts"] == 1
    assert said(home, "decode-0", "stopping")["why"] == "prefill-0 was restarted"
    assert text(home) == expected
