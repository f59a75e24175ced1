"""`dynctl bench` as its users run it, against runs of the fake engine."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.integration.mock_stream import DONE, HEAD, Mock, Writer, end, send, token, usage
from tests.integration.run_harness import Home, until

QUICK = ("--isl", "40", "--osl", "6", "--concurrency", "2", "--requests", "8")


def test_a_running_deployment(home: Home) -> None:
    """Metrics, exact lengths, the split by the frontend's clock, KV as it moved, every file of --output."""
    home.up()
    home.control(token_delay_ms=2, prefill_delay_ms=5, transfer_delay_ms=3)
    done = home.run("bench", *QUICK, "--json", "--output", "out", "--slo", "ttft=10s")
    document = done.json()
    (run,) = document["runs"]
    assert (run["layout"], run["requests"], run["failed"]) == (home.name, 8, 0), done.err
    assert run["metrics"]["ttft_ms"]["p50"] >= 8
    assert 0 < run["metrics"]["itl_ms"]["p50"] < run["metrics"]["request_latency_ms"]["p50"]
    assert run["metrics"]["goodput"] == pytest.approx(run["metrics"]["requests_per_s"])
    assert run["split"]["records"] == 8
    assert run["split"]["prefill"] >= 5
    assert run["split"]["modes"] == {"disaggregated": 8}
    assert run["kv"]["transfers"] >= 8
    assert run["kv"]["bytes"] > 0
    assert {load["id"] for load in run["worker_load"]} == {"prefill-0", "decode-0"}
    assert not any("longer or shorter" in note for note in document["notes"]), "lengths are exact"
    folder = home.dir / "work" / "out"
    rows = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    assert {row["phase"] for row in rows} == {"ramp", "measured", "tail"}
    assert json.loads((folder / "bench.json").read_text())["runs"][0]["requests"] == 8
    assert len(json.loads(next(folder.glob("vllm-*.json")).read_text())["ttfts"]) == 8
    assert json.loads(next(folder.glob("aiperf-*.json")).read_text())["time_to_first_token"]["count"] == 8
    again = home.run("bench", "diff", "out", "out", "--json")
    assert again.code == 0, again.err
    text = home.run("bench", *QUICK).out
    assert "TTFT split" in text
    assert max(map(len, text.splitlines())) <= 80, text


def test_two_files_are_brought_up_compared_and_taken_down(home: Home) -> None:
    """A, B, B, A; a plain difference is found; nothing is left; what was named is not touched."""
    home.control(prefill={"prefill_delay_ms": 40}, worker={"prefill_delay_ms": 10})
    first = home.topology(file="one.yaml")
    second = home.topology({"name": home.new_name()}, aggregated=True, file="two.yaml")
    done = home.run("bench", first, second, *QUICK, "--rounds", "4", "--json")
    assert done.code in (0, 1), done.err  # a busy machine may make the loader late
    document = done.json()
    assert [run["start_ups"] for run in document["runs"]] == [2, 2]
    assert [run["rounds"] for run in document["runs"]] == [4, 4]
    assert any("start-up confounded" in note for note in document["notes"])
    assert document["comparison"]["ttft_p50"]["ratio"] > 1.5
    assert document["comparison"]["ttft_p99"]["note"].startswith("p99 needs 500")
    assert document["runs"][0]["kv"]["transfers"] > 0
    assert document["runs"][1]["kv"] is None
    home.nothing_left()


def test_a_running_deployment_against_its_aggregated_counterpart(home: Home) -> None:
    """As many workers that do both, up beside it; afterwards only what ran before runs."""
    home.control(prefill={"prefill_delay_ms": 40}, worker={"prefill_delay_ms": 10})
    home.up()
    done = home.run("bench", "--compare", "agg", *QUICK, "--rounds", "2", "--aa", "--json")
    assert done.code in (0, 1), done.err
    document = done.json()
    assert [run["layout"] for run in document["runs"]] == [home.name, f"{home.name}-agg", f"{home.name}-agg again"]
    assert [run["workers"] for run in document["runs"]] == [2, 2, 2]
    assert [run["rounds"] for run in document["runs"]] == [2, 2, 2]
    assert document["comparison"]["ttft_p50"]["ratio"] > 1.5
    assert document["itself"]["ttft_p50"]["ratio"] < 1.5
    assert any("up at once" in note for note in document["notes"])
    assert home.status()["state"] == "ready"
    assert {record.parent.name for record in (home.dir / "state").glob("dynctl/*/*/run.json")} >= {home.name}
    assert home.run("status", f"{home.name}-agg-bench").code == 5


def test_a_running_deployment_makes_way_for_its_counterpart_and_comes_back(home: Home) -> None:
    """A as it runs, B, B, and A again, which stays: at its old address, from its own topology."""
    home.control(prefill={"prefill_delay_ms": 40}, worker={"prefill_delay_ms": 10})
    home.up()
    before = home.status()
    done = home.run("bench", "--compare", "agg", "--alternate", *QUICK, "--rounds", "4", "--json")
    assert done.code in (0, 1), done.err
    document = done.json()
    assert [run["layout"] for run in document["runs"]] == [home.name, f"{home.name}-agg"]
    assert [run["start_ups"] for run in document["runs"]] == [2, 2]
    assert [run["rounds"] for run in document["runs"]] == [4, 4]
    assert document["comparison"]["ttft_p50"]["ratio"] > 1.5
    assert any("brought up again" in note for note in document["notes"])
    after = home.status()
    assert (after["state"], after["frontend"]["url"]) == ("ready", before["frontend"]["url"])
    assert after["supervisor"]["pid"] != before["supervisor"]["pid"]
    assert home.run("status", f"{home.name}-agg-bench").code == 5


@pytest.mark.parametrize(
    ("phase", "how"),
    [
        ("stopping {}", signal.SIGINT),
        ("stopping {}", signal.SIGKILL),
        ("bringing up", signal.SIGTERM),
        ("bringing up", signal.SIGKILL),
        ("measuring {}-agg", signal.SIGINT),
        ("measuring {}-agg", signal.SIGKILL),
        ("again", signal.SIGINT),
        ("again", signal.SIGKILL),
    ],
)
def test_what_made_way_comes_back_whatever_happens(home: Home, phase: str, how: signal.Signals) -> None:
    """Interrupted or killed while it is ended, its counterpart is started or measured, and it is brought back."""
    home.up()
    before = home.status()["supervisor"]["pid"]
    command = home.start("bench", "--compare", "agg", "--alternate", *QUICK, "--rounds", "2", "--json")
    command.says(phase.format(home.name))
    command.signal(how)
    done = command.wait()
    if how != signal.SIGKILL:
        assert done.code == 128 + how, done.err
        assert done.json()["partial"] is True
    _comes_back(home, before)


def test_what_made_way_comes_back_where_its_counterpart_does_not_start(home: Home) -> None:
    """bench's exit code is that of the counterpart's `up`."""
    home.up()
    before = home.status()["supervisor"]["pid"]
    home.control(worker={"die_at_phase": "weights"})
    done = home.run("bench", "--compare", "agg", "--alternate", *QUICK, "--rounds", "2", "-o", "out")
    assert done.code == 1
    assert f"`{home.name}-agg` did not come up" in done.err
    _comes_back(home, before)


def test_where_those_that_hold_it_were_killed_too_it_is_brought_back_by_hand(home: Home) -> None:
    """The counterpart is a run as any other, and what made way is known by its name."""
    home.up()
    before = home.status()["supervisor"]["pid"]
    command = home.start("bench", "--compare", "agg", "--alternate", *QUICK, "--rounds", "2")
    command.says(f"measuring {home.name}-agg")
    for process in home.processes():
        if {"_hold", "bench"} & set(process.cmdline()):
            process.kill()
    assert home.run("down", f"{home.name}-agg-bench").code == 0
    assert home.run("up", "-d", home.name).code == 0
    _comes_back(home, before)


def _comes_back(home: Home, before: int) -> None:
    """The run, under another supervisor than before, and nothing else."""
    home.await_status(lambda s: s["state"] == "ready" and s["supervisor"]["pid"] != before, "it is back")
    until(lambda: not any("_hold" in process.cmdline() for process in home.processes()), "who held it has ended")
    assert home.run("status", f"{home.name}-agg-bench").code == 5
    assert home.run("down", home.name).code == 0
    home.nothing_left()


@pytest.mark.parametrize("phase", ["bringing up", "measuring"])
def test_ctrl_c_keeps_what_there_is_and_leaves_nothing(home: Home, phase: str) -> None:
    """130, a partial result that says so, and no process."""
    home.control(token_delay_ms=50, **({"start_delay_s": 20} if phase == "bringing up" else {}))
    file = home.topology()
    command = home.start("bench", file, "--isl", "40", "--osl", "6", "--requests", "5000", "--json", "-o", "out")
    command.says("round 1/1" if phase == "measuring" else phase)
    command.signal(signal.SIGINT)
    done = command.wait()
    assert done.code == 130, done.err
    assert done.json()["partial"] is True
    assert phase in done.json()["interrupted_in"]
    assert json.loads((home.dir / "work" / "out" / "bench.json").read_text())["partial"] is True
    home.nothing_left()


@pytest.mark.parametrize("phase", ["bringing up", "measuring"])
def test_sigkill_of_bench_ends_what_it_brought_up(home: Home, phase: str) -> None:
    """Nobody is left to end the run but the process that holds it."""
    home.control(token_delay_ms=50, **({"start_delay_s": 20} if phase == "bringing up" else {}))
    command = home.start("bench", home.topology(), "--isl", "40", "--osl", "6", "--requests", "5000")
    command.says("round 1/1" if phase == "measuring" else phase)
    command.process.kill()
    home.nothing_left()


def test_a_target_with_neither_tokenizer_nor_usage(home: Home) -> None:
    """It is measured all the same, chunks are counted, and both are said."""

    async def reply(writer: Writer, number: int) -> None:
        if b"prompt" not in mock.bodies[number] or b"max_tokens" not in mock.bodies[number]:
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        writer.write(HEAD)
        await send(writer, token() + token())
        await send(writer, DONE)
        await end(writer)

    with Mock(reply) as mock:
        done = home.run("bench", "--url", f"{mock.url}/v1", "--model", "m", *QUICK, "--json")
    document = done.json()
    assert document["runs"][0]["requests"] == 8, done.err
    assert any("no /tokenize" in note for note in document["notes"])
    assert any("no usage" in note for note in document["notes"])


def test_a_target_without_a_tokenizer_counts_by_its_usage(home: Home) -> None:
    """As Dynamo's frontend: prompts have the lengths that were asked for, in its own tokens."""

    def tokens(body: bytes) -> int:
        """Three for what it adds to every prompt, then one for every two letters."""
        text: str = json.loads(body)["prompt"]
        return 3 + sum((len(word) + 1) // 2 for word in text.split())

    async def reply(writer: Writer, number: int) -> None:
        body = mock.bodies[number]
        if b"max_tokens" not in body:
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        elif b"stream" not in body:
            whole = json.dumps({"usage": {"prompt_tokens": tokens(body)}}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(whole), whole))
        else:
            lengths.append(tokens(body))
            writer.write(HEAD)
            await send(writer, token() + token() + usage(lengths[-1], 2) + DONE)
            await end(writer)

    lengths: list[int] = []
    with Mock(reply) as mock:
        done = home.run("bench", "--url", f"{mock.url}/v1", "--model", "m", *QUICK, "--json")
    assert not any("exact" in note or "longer or shorter" in note for note in done.json()["notes"]), done.err
    assert set(lengths) == {int(QUICK[QUICK.index("--isl") + 1])}


def test_a_target_that_refuses_everything_is_invalid(home: Home) -> None:
    """Exit 1, with the server's own words."""

    async def reply(writer: Writer, _: int) -> None:
        body = b'{"error": {"message": "no capacity today"}}'
        writer.write(b"HTTP/1.1 503 Busy\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    with Mock(reply) as mock:
        done = home.run("bench", "--url", mock.url, "--model", "m", *QUICK)
    assert done.code == 1
    assert "INVALID" in done.out
    assert "no capacity today" in " ".join(done.out.split())
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--url", "http://127.0.0.1:9"), 1, "can't be reached"),
        (("--url", "ftp://x"), 2, "not an http URL"),
        (("--slo", "ttft=300"), 2, "must be a duration"),
        (("--slo", "speed=3s"), 2, "not an objective"),
        (("--isl", "many"), 2, "count of tokens"),
        (("--concurrency", "0"), 2, "not a count"),
        (("--rate", "x"), 2, "not a rate"),
        (("--trace", "absent.jsonl"), 2, "can't read"),
        (("--output", "/proc/nowhere"), 2, "can't write"),
        (("--url", "http://127.0.0.1:9", "--alternate"), 2, "--alternate goes with --compare agg"),
        (("nowhere",), 5, "no run"),
        (("absent.yaml",), 2, "no such file"),
        (("diff", "one"), 2, "two saved results"),
        (("diff", "one", "two"), 2, "can't read"),
        ((), 5, "nothing is running"),
    ],
)
def test_bad_input_costs_nothing(home: Home, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = home.run("bench", *arguments)
    assert done.code == code, done.err
    assert said in " ".join(done.error()["error"]), done.err
    assert done.out == ""


def test_a_wrong_trace_names_its_line(home: Home) -> None:
    path = Path(home.dir / "work" / "trace.jsonl")
    path.write_text('{"timestamp": 0, "input_length": 5, "output_length": 5}\n{"timestamp": 0}\n')
    done = home.run("bench", "--url", "http://127.0.0.1:9", "--trace", path)
    assert done.code == 2
    assert done.error()["at"][0].endswith("trace.jsonl:2")
