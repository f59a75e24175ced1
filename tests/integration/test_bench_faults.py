"""`dynctl bench` on targets that fail, and interrupted in each of its phases: an outcome that is clear, its exit code,
what was measured kept and marked, and nothing left running."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.integration.mock_stream import DONE, HEAD, Mock, Writer, end, send, token, usage
from tests.integration.run_harness import Home

LOAD = ("--model", "m", "--isl", "20", "--osl", "2", "--concurrency", "2", "--requests", "40")
BUSY = b'{"error": {"message": "the queue is full"}}'
Reply = Callable[[Writer, int], Awaitable[None]]


async def served(writer: Writer) -> None:
    """An answer of two tokens, as it should be."""
    writer.write(HEAD)
    await send(writer, token() + token() + usage(20, 2))
    await send(writer, DONE)
    await end(writer)


async def refused(writer: Writer, status: int = 503) -> None:
    """An answer that is none."""
    writer.write(b"HTTP/1.1 %d Busy\r\ncontent-length: %d\r\n\r\n%s" % (status, len(BUSY), BUSY))
    await writer.drain()


@contextlib.contextmanager
def completions(reply: Reply) -> Iterator[Mock]:
    """A server that answers completions by their number, counted from 0; everything else is not found."""
    asked = itertools.count()

    async def answer(writer: Writer, number: int) -> None:
        if b'"stream":true' in mock.bodies[number]:
            await reply(writer, next(asked))
        else:
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

    with Mock(answer) as mock:
        yield mock


def measured(home: Home, reply: Reply, *more: str) -> tuple[int, dict[str, Any]]:
    """bench's exit code and document, of a server that answers so. The document is on disk, too."""
    with completions(reply) as mock:
        done = home.run("bench", "--url", mock.url, *LOAD, *more, "--json", "-o", "out")
    assert "Traceback" not in done.err, done.err
    document: dict[str, Any] = done.json()
    assert json.loads((home.dir / "work" / "out" / "bench.json").read_text()) == document
    home.nothing_left()
    return done.code, document


def problems(document: dict[str, Any]) -> dict[str, str]:
    """What is wrong by its id; the loader's own lag on a busy machine is another matter."""
    return {item["id"]: item["what"] for item in document["problems"] if not item["id"].startswith("client")}


def test_a_server_that_dies_in_the_middle(home: Home) -> None:
    """What came before counts, and the rest is not tried a thousand times."""

    async def reply(writer: Writer, number: int) -> None:
        if number < 20:
            await served(writer)
        else:
            writer.transport.abort()

    code, document = measured(home, reply, "--requests", "1000")
    assert code == 1
    assert "gave_up" in problems(document)
    assert document["partial"] is True
    assert document["runs"][0]["requests"] == 16  # of 20, four were ramp
    assert document["runs"][0]["failed"] < 100


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_burst_of_refusals(home: Home, status: int) -> None:
    """The round goes on; the result is invalid, with how many and the server's words."""

    async def reply(writer: Writer, number: int) -> None:
        await (refused(writer, status) if 10 <= number < 15 else served(writer))

    code, document = measured(home, reply)
    assert code == 1
    assert problems(document) == {
        "errors": f"http: 5 of 40 requests failed; 5 with: HTTP {status}: the queue is full".replace(
            "http:", f"{document['runs'][0]['layout']}:", 1
        )
    }
    assert document["runs"][0]["requests"] == 35


@pytest.mark.parametrize(
    ("fault", "said"),
    [("stalls", "stalled: nothing came for 0.5 s"), ("is malformed", "malformed event"), ("is cut", "without [DONE]")],
)
def test_streams_that_go_wrong(home: Home, fault: str, said: str) -> None:
    async def reply(writer: Writer, number: int) -> None:
        if number % 8:
            await served(writer)
            return
        writer.write(HEAD)
        await send(writer, token())
        if fault == "stalls":
            await asyncio.sleep(3600)
        if fault == "is malformed":
            await send(writer, b"data: {oops\n\n" + DONE)
        await end(writer)

    code, document = measured(home, reply, "--stall", "500ms")
    assert code == 1
    assert said in problems(document)["errors"]
    assert document["runs"][0]["requests"] + document["runs"][0]["failed"] == 40


def test_one_failure_in_two_hundred_is_noted(home: Home) -> None:
    """Not more than 1 % failed: valid, and said."""

    async def reply(writer: Writer, number: int) -> None:
        await (refused(writer) if number == 50 else served(writer))

    _, document = measured(home, reply, "--requests", "200")
    assert problems(document) == {}
    assert any("1 request failed" in note for note in document["notes"])


def test_outputs_that_end_early_are_invalid(home: Home) -> None:
    async def reply(writer: Writer, _: int) -> None:
        await served(writer)

    code, document = measured(home, reply, "--osl", "9")
    assert code == 1
    assert problems(document)["short_outputs"].endswith("80 output tokens came where 360 were asked for")


def test_an_output_directory_that_goes_away_costs_the_files_alone(home: Home) -> None:
    """The result was printed before they are written."""
    out = home.dir / "work" / "out"

    async def reply(writer: Writer, number: int) -> None:
        if out.is_dir():
            shutil.rmtree(out)
            out.write_text("a file in its place")
        await served(writer)

    with completions(reply) as mock:
        done = home.run("bench", "--url", mock.url, *LOAD, "--json", "-o", "out")
    assert done.code == 1
    assert done.json()["runs"][0]["requests"] == 40
    assert done.error()["error"] == ["can't write the results: Not a directory"]
    home.nothing_left()


# Ctrl-C


def test_ctrl_c_while_the_tokenizer_is_asked(home: Home) -> None:
    """Nothing was measured: 130, and a document that says so."""
    signalled = threading.Event()

    async def reply(writer: Writer, number: int) -> None:
        while not signalled.is_set():
            await asyncio.sleep(0.01)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n" + b'{"count": %d}' % (2 + number % 2))

    with Mock(reply) as mock:
        command = home.start("bench", "--url", mock.url, *LOAD, "--json", "-o", "out")
        command.says("asking the tokenizer")
        command.signal(signal.SIGINT)
        signalled.set()
        done = command.wait()
    assert done.code == 130, done.err
    document = done.json()
    assert (document["partial"], document["interrupted_in"], document["runs"]) == (True, "asking the tokenizer", [])
    home.nothing_left()


def interrupted(home: Home, said: str, *more: str) -> dict[str, Any]:
    """The document of a bench whose server never ends a stream, after a Ctrl-C once it `said` that."""

    async def reply(writer: Writer, _: int) -> None:
        writer.write(HEAD)
        await send(writer, token())
        await asyncio.sleep(3600)

    with completions(reply) as mock:
        command = home.start("bench", "--url", mock.url, *more, "--json", "-o", "out")
        command.says(said)
        command.signal(signal.SIGINT)
        done = command.wait()
    assert done.code == 130, done.err
    home.nothing_left()
    document: dict[str, Any] = done.json()
    return document


def test_ctrl_c_while_the_pace_is_tried(home: Home) -> None:
    """Before the first round of a comparison: nothing was measured."""
    document = interrupted(home, "trying the pace", "--aa", "--model", "m", "--isl", "20", "--osl", "2")
    assert (document["partial"], document["interrupted_in"], document["runs"]) == (True, "trying the pace", [])


def test_ctrl_c_while_warming_up(home: Home) -> None:
    """Requests are under way, none that counts has ended."""
    document = interrupted(home, "round 1/1", *LOAD)
    assert (document["partial"], document["interrupted_in"]) == (True, "measuring")
    assert document["runs"][0]["requests"] == 0
    rows = [json.loads(line) for line in (home.dir / "work" / "out" / "requests.jsonl").read_text().splitlines()]
    assert [(row["phase"], row["error"]) for row in rows] == [("ramp", "stopped")] * 2


def test_ctrl_c_in_the_start_up_of_the_second_layout(home: Home) -> None:
    """Between the arms: the first one's rounds are kept, nothing is compared, and neither runs on."""
    home.control(worker={"start_delay_s": 60})
    first = home.topology(file="one.yaml")
    second = home.topology({"name": home.new_name()}, aggregated=True, file="two.yaml")
    command = home.start("bench", first, second, "--isl", "20", "--osl", "3", "--requests", "6", "--json", "-o", "out")
    command.says("measuring")
    command.says(f"bringing up {second_name(second)}")
    command.signal(signal.SIGINT)
    done = command.wait()
    assert done.code == 130, done.err
    document = done.json()
    assert document["partial"] is True
    assert document["interrupted_in"].startswith("bringing up")
    assert [run["layout"] for run in document["runs"]] == [home.name]
    assert document["runs"][0]["requests"] > 0
    assert document["comparison"] == {}
    home.nothing_left()


def second_name(path: Any) -> str:
    """The topology's name."""
    return next(line.split()[1] for line in path.read_text().splitlines() if line.startswith("name:"))
