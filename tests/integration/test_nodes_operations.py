"""What operators do to a run of several nodes, asked for on any of them: its users feel nothing of it."""

from __future__ import annotations

from collections.abc import Callable

from tests.integration.nodes_harness import nodes
from tests.integration.run_harness import Home, T, until
from tests.integration.test_operations import row, steady

MakeHome = Callable[[], Home]
SPREAD = {"prefill-0": "a", "decode-0": "a", "decode-1": "b"}


def pids(status: T) -> dict[str, int]:
    return {p["id"]: p["pid"] for p in status["processes"]}


def test_a_rolling_restart_goes_over_all_nodes_and_fails_no_request(make_home: MakeHome) -> None:
    with nodes(make_home, SPREAD) as two:
        two.ready("a", "b")
        before = pids(two.status("a"))
        with steady(two.first) as load:
            done = two.homes["b"].run("restart", two.first.name, *SPREAD)
            sent = len(load.answers)
            until(lambda: len(load.answers) > sent + 5, "the load goes on")
        assert done.code == 0, done.err
        assert load.failed() == [], load.failed()[:5]
        after = pids(two.await_status("a", lambda s: s["state"] == "ready", "all are back"))
        assert {process for process in before if before[process] != after[process]} == set(SPREAD)
        states: dict[str, str] = {}
        for event in two.first.events():
            if event["kind"] == "operation" and event["message"].startswith("restart"):
                states[event["process"]] = event["message"]
        assert list(states.values()) == ["restart 1 of 3", "restart 2 of 3", "restart 3 of 3"]
        assert list(states)[-1] == "prefill-0"


def test_a_worker_of_another_node_is_drained_and_taken_in_again(make_home: MakeHome) -> None:
    with nodes(make_home, SPREAD) as two:
        two.ready("a", "b")
        for home in two.homes.values():
            home.control(decode={"token_delay_ms": 300})

        def served() -> int:
            return len(two.homes["b"].requests("decode"))

        before = served()
        streams = [two.first.stream(f"a long answer {number}", max_tokens=60) for number in range(2)]
        for stream in streams:
            next(stream)
        done = two.homes["b"].run("drain", two.first.name, "decode-1", "--timeout", "1")
        assert (done.code, "1 request in flight" in done.error()["error"][0]) == (1, True)
        for node in "ab":
            two.await_status(node, lambda s: row(s, "decode-1")["state"] == "draining", "it is taken out")
        for home in two.homes.values():
            home.control()
        assert [list(stream)[-1] for stream in streams] == ["[DONE]", "[DONE]"]
        until(lambda: served() == before + 1, "its stream is recorded")
        assert [two.first.ask(f"question {number}").status_code for number in range(4)] == [200] * 4
        assert served() == before + 1
        done = two.first.run("drain", two.first.name, "decode-1", "--undo")
        assert done.code == 0, done.err
        two.await_status("a", lambda s: s["state"] == "ready", "it is in again")
        assert two.homes["b"].run("drain", two.first.name, "decode-7").code == 2
