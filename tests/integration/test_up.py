"""`up` from nothing to a served request, and `down` back to nothing."""

from __future__ import annotations

import json

from tests.integration.run_harness import Home

TOKENS = 8


def test_a_detached_run_serves_shows_itself_and_ends(home: Home) -> None:
    home.up()
    assert home.status()["state"] == "ready"

    whole = home.ask(max_tokens=TOKENS)
    assert whole.status_code == 200
    text = whole.json()["choices"][0]["text"]
    assert len(text) == TOKENS
    *chunks, done = home.stream(max_tokens=TOKENS)
    assert done == "[DONE]"
    assert "".join(json.loads(chunk)["choices"][0]["text"] for chunk in chunks) == text
    assert all(request["kv_bytes"] > 0 for request in home.requests("decode")[-2:])

    assert "Loading weights took" in home.run("logs", home.name).out
    assert "Loading weights took" in home.run("logs", "decode-0").out
    one = home.run("logs", home.name, "prefill-0", "-n", "500").out
    assert "Loading weights took" in one
    assert "remote memory" not in one
    assert "remote memory read" in home.run("logs", home.name, "decode-0", "--ucx", "-n", "500").out
    events = [json.loads(line) for line in home.run("events", home.name, "--json").out.splitlines()]
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    assert [e["state"] for e in events if e["kind"] == "run.state"] == ["starting", "ready"]

    down = home.run("down", home.name)
    assert down.code == 0, down.err
    home.nothing_left()
    after = home.run("status", home.name, "--json")
    assert (after.code, after.json()["state"]) == (5, "stopped")
    assert home.states()[-2:] == ["stopping", "stopped"]
    assert home.run("down", home.name).code == 5


def test_a_stopped_run_is_started_again_by_its_name(home: Home) -> None:
    durations = {"ready": {"timeout": "5m", "stall": "90s"}, "transport": {"lease": "1m30s"}, "slo": {"ttft": "300ms"}}
    home.up(durations)
    before = json.loads((home.run_dir / "plan.json").read_text())
    home.run("down", home.name)
    again = home.run("up", "-d", home.name)
    assert again.code == 0, again.err
    assert json.loads((home.run_dir / "plan.json").read_text()) == before
    assert home.ask().status_code == 200
    # with an ended run beside it, a live one is still "the only run"
    assert home.run("status").code == 0


def test_two_runs_side_by_side_have_ports_of_their_own(home: Home) -> None:
    home.up()
    first = json.loads((home.run_dir / "plan.json").read_text())
    one, port = home.name, home.port
    home.name, home.port = home.new_name(), home.free_port()
    home.up()
    second = json.loads((home.run_dir / "plan.json").read_text())
    ports = [[port for p in plan["processes"] for port in p["ports"].values()] for plan in (first, second)]
    assert len(set(ports[0] + ports[1])) == len(ports[0]) + len(ports[1])
    assert home.ask().status_code == 200
    unnamed = home.run("status")
    assert unnamed.code == 2
    assert one in unnamed.err
    assert home.name in unnamed.err
    assert home.run("down", one).code == 0
    assert home.ask().status_code == 200
    home.port = port
    assert home.run("status", one).code == 5


def test_every_pair_is_proven(home: Home) -> None:
    home.up({"roles": {"prefill": {"workers": 2}}})
    pairs = home.status()["transport"]["pairs"]
    assert sorted((pair["from"], pair["to"]) for pair in pairs) == [
        ("prefill-0", "decode-0"),
        ("prefill-1", "decode-0"),
    ]
    assert all(pair["bytes"] > 0 and pair["verdict"] == "shm" and pair["evidence"] for pair in pairs)
    for _ in range(2):
        assert home.ask().status_code == 200
    prefills = {p["ports"]["http"] for p in home.status()["processes"] if p["role"] == "prefill"}
    assert len(prefills) == 2


def test_an_aggregated_run_needs_no_pair(home: Home) -> None:
    home.up(aggregated=True)
    status = home.status()
    assert status["state"] == "ready"
    assert [p["id"] for p in status["processes"]] == ["worker-0", "frontend"]
    assert status["transport"]["pairs"] == []
    assert home.ask().status_code == 200
    assert list(home.stream())[-1] == "[DONE]"


def test_pushed_kv_is_proven_at_the_prefill_worker(home: Home) -> None:
    home.up({"transport": {"direction": "push"}})
    (pair,) = home.status()["transport"]["pairs"]
    assert pair["bytes"] > 0
    assert home.ask().status_code == 200


def test_of_two_starts_of_one_name_one_is_refused(home: Home) -> None:
    file = home.topology()
    both = [home.start("up", "-d", file) for _ in range(2)]
    codes = sorted(command.wait().code for command in both)
    # the later one finds the name taken, or, before that, the port
    assert codes in ([0, 5], [0, 2])
    assert home.status()["state"] == "ready"
    assert home.ask().status_code == 200


def test_looking_on_does_not_get_in_the_way_of_a_start(home: Home) -> None:
    """Whether a run is alive shows in its lock: who looks holds it for an instant, and must not be taken for a run."""
    looking = home.python(
        "-c",
        "import sys, time; from dynctl.store import paths, run\n"
        "while True:\n"
        "    with run.try_lock(paths.lock_path(sys.argv[1]), shared=True) or open('/dev/null'):\n"
        "        print('looking', flush=True); time.sleep(0.1)\n"
        "    time.sleep(0.01)",
        home.name,
    )
    looking.says("looking")
    home.up(aggregated=True)
    assert home.run("down", home.name).code == 0
