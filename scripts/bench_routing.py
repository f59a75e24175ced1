"""Cache-aware routing against round-robin: multi-turn conversations over two prefill workers of real vLLM.

usage: bench_routing.py [--routings round-robin,cache-aware] [--repeats 2] [--json]

Brings up profiles/cpu-2p1d.yaml once, puts one `dynctl frontend` per routing before its workers, and sends each the
same kind of conversations in turns (ABBA): every conversation of a round begins with text of its own, so that nothing
of an earlier round is in a cache. Prints the prefill workers' prefix-cache hit rate (by their own metrics) and TTFT as
a client sees it. Needs the engine environment (`make engine`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx

ROOT = Path(__file__).parents[1]
MODEL = "tiny"
WORDS = re.findall(r"[a-z]+", (ROOT / "dynctl/engines/tiny_model.py").read_text().split('TEXT = """')[1].lower())
START_S = 600


class Workload(NamedTuple):
    """Conversations of a round, so many at a time; words of the first and of every further message of the user.

    Between answer and next message the user thinks for up to `think_s`: else an even number of conversations would take
    turns in step with two workers, and round-robin would send each always to the same.
    """

    conversations: int = 8
    at_once: int = 3
    turns: int = 4
    first_words: int = 900
    next_words: int = 100
    answer_tokens: int = 16
    think_s: float = 1.0


class Turn(NamedTuple):
    """One answer: which turn of its conversation, and its time to first token."""

    number: int
    ttft_ms: float


class Round(NamedTuple):
    """What a round showed: its turns, and tokens that prefill workers looked up and found in their caches."""

    turns: list[Turn]
    queried: float
    hit: float


def main() -> int:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--routings", default="round-robin,cache-aware", help="which to compare (%(default)s)")
    parser.add_argument("--repeats", type=int, default=2, help="rounds of each (2)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    routings = options.routings.split(",")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dynctl-routing-")))
        workers, sockets = stack.enter_context(deployed(folder, "kv-aware" if "kv-aware" in routings else routings[0]))
        urls = {name: stack.enter_context(frontend(name, workers, folder, sockets)) for name in routings}
        asyncio.run(one_round(urls[routings[0]], workers, -1, Workload(conversations=2, turns=2)))
        rounds: dict[str, list[Round]] = {name: [] for name in routings}
        for repeat in range(options.repeats):
            for name in routings if repeat % 2 == 0 else reversed(routings):
                seed = repeat * len(routings) + routings.index(name)
                rounds[name].append(asyncio.run(one_round(urls[name], workers, seed, Workload())))
    report(rounds, as_json=options.json)
    return 0


@contextlib.contextmanager
def deployed(folder: Path, routing: str) -> Iterator[tuple[dict[str, list[str]], str]]:
    """The deployment, ready; the URLs of its workers by role, and its directory of the engines' event sockets."""
    env = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
    command = [sys.executable, "-m", "dynctl"]
    sets = ("--set", f"frontend.port={free_port()}", "--set", f"frontend.routing={routing}")
    try:
        subprocess.run(
            [*command, "up", "-d", str(ROOT / "profiles/cpu-2p1d.yaml"), *sets],
            env=env,
            check=True,
            stdout=sys.stderr,
            timeout=START_S,
        )
        told = subprocess.run([*command, "status", "--json"], env=env, check=True, capture_output=True)
        urls: dict[str, list[str]] = {}
        sockets = ""
        for process in json.loads(told.stdout)["processes"]:
            urls.setdefault(process["role"], []).append(f"http://127.0.0.1:{process['ports']['http']}")
            if process["role"] == "frontend":
                variables = Path(f"/proc/{process['pid']}/environ").read_text().split("\0")
                sockets = dict(one.split("=", 1) for one in variables if "=" in one).get("DYNCTL_SOCKETS", "")
        yield urls, sockets
    finally:
        subprocess.run([*command, "down"], env=env, check=False, stdout=sys.stderr)


@contextlib.contextmanager
def frontend(routing: str, workers: dict[str, list[str]], folder: Path, sockets: str) -> Iterator[str]:
    """A frontend with that routing, answering; its URL."""
    port = free_port()
    argv = [sys.executable, "-m", "dynctl", "frontend", "--port", str(port), "--routing", routing]
    if routing == "kv-aware":
        argv += ["--kv-events", sockets]
    for role in ("prefill", "decode"):
        argv += [word for url in workers[role] for word in (f"--{role}", url)]
    with (folder / f"{routing}.log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as running:
        try:
            url = f"http://127.0.0.1:{port}"
            end = time.monotonic() + 60
            while not _healthy(url):
                if time.monotonic() > end or running.poll() is not None:
                    raise SystemExit(f"the frontend did not start: {(folder / f'{routing}.log').read_text()}")
                time.sleep(0.1)
            yield url
        finally:
            running.terminate()


def _healthy(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return bool(httpx.get(f"{url}/health", timeout=5).json()["status"] == "ok")
    return False


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def one_round(url: str, workers: dict[str, list[str]], seed: int, workload: Workload) -> Round:
    """Conversations that nobody has had before."""
    chance = random.Random(seed)
    told = [random.Random(chance.random()) for _ in range(workload.conversations)]
    places = asyncio.Semaphore(workload.at_once)
    async with httpx.AsyncClient(timeout=300) as client:
        before = [await _cache_counters(client, one) for one in workers["prefill"]]
        found = await asyncio.gather(*(_converse(client, url, one, places, workload) for one in told))
        after = [await _cache_counters(client, one) for one in workers["prefill"]]
    queried, hit = (
        sum(late[key] - early[key] for early, late in zip(before, after, strict=True)) for key in ("queries", "hits")
    )
    return Round([turn for turns in found for turn in turns], queried, hit)


async def _converse(
    client: httpx.AsyncClient, url: str, chance: random.Random, places: asyncio.Semaphore, workload: Workload
) -> list[Turn]:
    """One conversation: each message waits for the answer before; between them others may come."""
    said: list[dict[str, str]] = []
    turns = []
    for number in range(1, workload.turns + 1):
        count = workload.first_words if number == 1 else workload.next_words
        said.append({"role": "user", "content": " ".join(chance.choice(WORDS) for _ in range(count))})
        async with places:
            answer, ttft_ms = await _ask(client, url, said, workload.answer_tokens)
        said.append({"role": "assistant", "content": answer})
        await asyncio.sleep(chance.uniform(0, workload.think_s))
        turns.append(Turn(number, ttft_ms))
    return turns


async def _ask(client: httpx.AsyncClient, url: str, said: list[dict[str, str]], tokens: int) -> tuple[str, float]:
    """The answer and its time to first token."""
    body = {"model": MODEL, "messages": said, "stream": True, "max_tokens": tokens, "temperature": 0}
    start = time.perf_counter()
    first: float | None = None
    text = ""
    async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            raise SystemExit(f"{response.status_code}: {(await response.aread())[:500]!r}")
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise SystemExit(str(event["error"]))
            content = event["choices"][0]["delta"].get("content") if event["choices"] else None
            if content:
                first = first or time.perf_counter()
                text += content
    return text, ((first or time.perf_counter()) - start) * 1000


async def _cache_counters(client: httpx.AsyncClient, url: str) -> dict[str, float]:
    """Tokens that the worker looked up in its prefix cache, and those that it found."""
    text = (await client.get(f"{url}/metrics")).text
    return {
        key: sum(float(value) for value in re.findall(rf"^vllm:prefix_cache_{key}_total{{[^}}]*}} (\S+)", text, re.M))
        for key in ("queries", "hits")
    }


def report(rounds: dict[str, list[Round]], *, as_json: bool) -> None:
    """The table, or one JSON document."""
    found: dict[str, dict[str, Any]] = {}
    for name, some in rounds.items():
        every = [turn.ttft_ms for one in some for turn in one.turns]
        later = [turn.ttft_ms for one in some for turn in one.turns if turn.number > 1]
        found[name] = {
            "hit_rate": sum(one.hit for one in some) / max(1.0, sum(one.queried for one in some)),
            "hit_rates": [one.hit / max(1.0, one.queried) for one in some],
            "ttft_ms": {"p50": _at(every, 50), "p90": _at(every, 90), "p99": _at(every, 99)},
            "ttft_later_ms": {"p50": _at(later, 50), "p90": _at(later, 90)},
            "turns": len(every),
        }
    if as_json:
        print(json.dumps({"schema": 1, "workload": Workload()._asdict(), "routings": found}))
        return
    print("| routing | prefix-cache hit rate of prefill | TTFT p50 / p90 | of turns after the first | turns |")
    print("|---|---|---|---|---|")
    for name, one in found.items():
        every_ms, later_ms = one["ttft_ms"], one["ttft_later_ms"]
        print(
            f"| {name} | {one['hit_rate']:.0%} | {every_ms['p50']:.0f} / {every_ms['p90']:.0f} ms | "
            f"{later_ms['p50']:.0f} / {later_ms['p90']:.0f} ms | {one['turns']} |"
        )
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the end")


def _at(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


if __name__ == "__main__":
    sys.exit(main())
