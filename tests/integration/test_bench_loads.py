"""Every kind of load that `dynctl bench` makes, as a server sees it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.mock_stream import DONE, HEAD, Mock, Writer, end, send, token
from tests.integration.run_harness import Home

MOONCAKE = "".join(
    json.dumps({"timestamp": 1000 + 100 * n, "input_length": 600, "output_length": 2, "hash_ids": [7, 8 + n]}) + "\n"
    for n in range(5)
)
SHAREGPT = json.dumps([{"conversations": [{"value": f"question {n}"}, {"value": "answer"}]} for n in range(6)])
LOAD = ("--model", "m", "--isl", "30±20%", "--osl", "2", "--requests", "12", "--json", "-o", "out")


def measured(home: Home, *more: str) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """bench's document, the bodies that the server got, and the rows of requests.jsonl."""

    async def reply(writer: Writer, number: int) -> None:
        if b"max_tokens" not in mock.bodies[number]:
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        writer.write(HEAD)
        await send(writer, token() + token())
        await send(writer, DONE)
        await end(writer)

    with Mock(reply) as mock:
        done = home.run("bench", "--url", mock.url, *LOAD, *more)
        bodies = [json.loads(body) for body in mock.bodies if b'"stream":true' in body]  # the others count tokens
    assert done.code in (0, 1), done.err  # a busy machine may make the loader late
    document = done.json()
    assert all(problem["id"].startswith("client") for problem in document["problems"]), document["problems"]
    rows = (home.dir / "work" / "out" / "requests.jsonl").read_text().splitlines()
    return document, bodies, [json.loads(row) for row in rows]


def test_a_sweep(home: Home) -> None:
    """Each load is a run of its own; `diff` compares load by load."""
    document, bodies, _ = measured(home, "--concurrency", "1,3")
    assert [(run["load"], run["requests"]) for run in document["runs"]] == [
        ("concurrency 1", 12),
        ("concurrency 3", 12),
    ]
    assert len(bodies) == 12 + 3 + 12 + 9  # ramp and tail of its concurrency, twice the ramp at first
    diff = home.run("bench", "diff", "out", "out", "--json").json()
    assert [load["load"] for load in diff["loads"]] == ["concurrency 1", "concurrency 3"]


@pytest.mark.parametrize(
    ("more", "load"),
    [
        (("--rate", "40"), "40 req/s poisson"),
        (("--rate", "40", "--arrivals", "constant", "--ramp", "500ms"), "40 req/s constant"),
        (("--rate", "40", "--burstiness", "0.25"), "40 req/s gamma 0.25"),
        (("--rate", "40", "--concurrency", "2"), "40 req/s poisson"),
    ],
)
def test_open_loops(home: Home, more: tuple[str, ...], load: str) -> None:
    """Every request has a schedule and is never sent before it."""
    document, _, rows = measured(home, *more)
    assert [(run["load"], run["requests"]) for run in document["runs"]] == [(load, 12)]
    assert all(row["sent_s"] >= row["due_s"] for row in rows)
    gaps = {round(b["due_s"] - a["due_s"], 3) for a, b in zip(rows[-8:], rows[-7:], strict=False)}
    assert "constant" not in load or max(gaps) < 0.04


def test_a_mooncake_trace(home: Home) -> None:
    """Its times, at twice the speed, its lengths, and its shared blocks."""
    (home.dir / "work" / "trace.jsonl").write_text(MOONCAKE)
    document, bodies, rows = measured(home, "--trace", "trace.jsonl", "--speed", "2", "--requests", "5")
    assert [(run["load"], run["requests"]) for run in document["runs"]] == [("trace", 5)]
    assert rows[-1]["due_s"] - rows[0]["due_s"] == pytest.approx(0.2, abs=0.02)
    prompts = [body["prompt"].split() for body in bodies]
    assert {len(words) for words in prompts} == {600}
    assert len({tuple(words[:512]) for words in prompts}) == 1
    assert len({tuple(words[512:]) for words in prompts}) == 5


def test_a_sharegpt_file(home: Home) -> None:
    (home.dir / "work" / "chats.json").write_text(SHAREGPT)
    document, bodies, _ = measured(home, "--trace", "chats.json", "--requests", "6", "--chat")
    assert document["runs"][0]["requests"] == 6
    assert sorted(body["messages"][0]["content"] for body in bodies) == [f"question {n}" for n in range(6)]


def test_prefixes_turns_and_processes(home: Home) -> None:
    """Two groups share a beginning each; conversations carry what was said; two processes share the work."""
    _, bodies, _ = measured(home, "--prefix", "10", "--prefixes", "2", "--processes", "2")
    prompts = [body["prompt"].split() for body in bodies]
    assert len({tuple(words[:10]) for words in prompts}) == 2
    assert len({tuple(words) for words in prompts}) == len(prompts)
    document, bodies, rows = measured(home, "--turns", "3", "--processes", "2")
    assert document["client_health"]["processes"] == 2
    assert len(rows) == len(bodies) == len({row["id"] for row in rows})
    assert {len(body["messages"]) for body in bodies} == {1, 3, 5}
    said = {tuple(m["content"] for m in body["messages"][:-2]) for body in bodies if len(body["messages"]) == 5}
    assert said <= {tuple(m["content"] for m in body["messages"]) for body in bodies if len(body["messages"]) == 3}
