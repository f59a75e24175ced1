"""`bench --backend aiperf`: with a stand-in for aiperf (it is 1.2 GB), whose export has the shape of the real one's."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from tests.integration.mock_stream import Mock, Writer
from tests.integration.run_harness import Home

STAND_IN = """
import json, pathlib, sys, time
argv = sys.argv[1:]
value = lambda name: argv[argv.index(name) + 1]
folder = pathlib.Path(value("--artifact-dir"))
(folder.parent / "aiperf-argv").write_text(json.dumps(argv))
if "bad" in value("--tokenizer"):
    print("no such tokenizer"); sys.exit(1)
rows = [json.loads(line) for line in open(value("--input-file"))]
with open(folder / "profile_export.jsonl", "w") as out:
    for number, row in enumerate(rows):
        at = 1_700_000_000_000_000_000 + number * 100_000_000
        times = {"session_num": number, "request_start_ns": at, "request_end_ns": at + 50_000_000}
        gaps = [5.0] * (row["output_length"] - 1)
        metrics = {"time_to_first_token": {"value": 20.0 + number / 10, "unit": "ms"},
                   "inter_chunk_latency": {"value": gaps, "unit": "ms"},
                   "usage_completion_tokens": {"value": row["output_length"], "unit": "tokens"}}
        out.write(json.dumps({"metadata": times, "metrics": metrics}) + "\\n")
while "slow" in value("--tokenizer"):
    time.sleep(0.1)
"""
LOAD = ("--model", "m", "--isl", "20", "--osl", "4", "--concurrency", "2", "--requests", "10", "--backend", "aiperf")


@pytest.fixture
def command(home: Home) -> Path:
    path = home.dir / "aiperf"
    path.write_text(f"#!{sys.executable}\n{STAND_IN}")
    path.chmod(0o755)
    home.env["AIPERF"] = str(path)
    return path


async def nothing(writer: Writer, _: int) -> None:
    writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")


def test_it_measures_in_our_loaders_place(home: Home, command: Path) -> None:
    """Its figures in our document, table and files; that nobody looked after its own state is said."""
    with Mock(nothing) as mock:
        done = home.run("bench", "--url", mock.url, *LOAD, "--tokenizer", "t", "--json", "-o", "out")
    document = done.json()
    assert done.code == 0, done.err
    assert document["backend"] == "aiperf"
    assert document["client_health"]["valid"] is None
    (run,) = document["runs"]
    assert run["requests"] == 10
    assert run["metrics"]["ttft_ms"]["p50"] == pytest.approx(20.8, abs=0.2)
    assert run["metrics"]["itl_ms"]["p50"] == pytest.approx(5.0, abs=0.01)
    assert any("measured by aiperf" in note for note in document["notes"])
    assert "measured by aiperf" in (home.dir / "work" / "out" / "report.html").read_text()
    home.nothing_left()


def test_its_failure_is_told_in_its_own_words(home: Home, command: Path) -> None:
    with Mock(nothing) as mock:
        done = home.run("bench", "--url", mock.url, *LOAD, "--tokenizer", "bad")
    assert done.code == 1
    error = done.error()
    assert error["error"] == ["aiperf failed with exit code 1"]
    assert error["why"] == ["no such tokenizer"]
    assert "--tokenizer" in error["fix"][0]


def test_ctrl_c_ends_it(home: Home, command: Path) -> None:
    """What it had measured until then is kept."""
    with Mock(nothing) as mock:
        running = home.start("bench", "--url", mock.url, *LOAD, "--tokenizer", "slow", "--json", "-o", "out")
        running.says("round 1/1")
        running.signal(signal.SIGINT)
        done = running.wait()
    assert done.code == 130, done.err
    assert done.json()["partial"] is True
    assert json.loads((home.dir / "work" / "out" / "bench.json").read_text())["interrupted_in"] == "measuring"
    home.nothing_left()


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ((), 3, "aiperf is not installed"),
        (("--backend", "other"), 2, "not a backend"),
        (("--turns", "2"), 2, "single turns"),
        (("--api-key-file", "key"), 2, "no keys"),
    ],
)
def test_what_it_can_not_do_is_said_first(home: Home, more: tuple[str, ...], code: int, said: str) -> None:
    (home.dir / "work" / "key").write_text("secret\n")
    home.env["AIPERF"] = "/nowhere/aiperf"
    done = home.run("bench", "--url", "http://127.0.0.1:9", *LOAD, *more)
    assert done.code == code, done.err
    assert said in done.error()["error"][0]
    assert code != 3 or "pip install aiperf" in done.error()["fix"][0]
