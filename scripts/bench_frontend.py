"""The frontend against vllm-router on the same mock workers: CPU per request, TTFT, requests per second, memory.

    .venv/bin/python scripts/bench_frontend.py [--full] [--no-starlette] [--repeats 6] [--check] [--json]

Each router is one process on core 0, round-robin over one prefill and one decode worker; workers (mock_pair.c) and load
(load_streams.c) share core 1. Rows alternate between the routers (ABBA) within one run. Figures are medians; a ratio is
the median of those of two rounds that follow each other, with the least and the greatest: what else the host does falls
on both. CPU is the router's own, all its threads, from the kernel (/proc/PID/task/*/schedstat). The peers are installed
once into environments of their own in the user's cache. --full: the long rows too (100,000 requests, 10,000
connections, 2,000 streams), minutes more. Needs a C compiler. --check: exit 1 where a row misses its limit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE, ROUTER_CORE, LOAD_CORE = Path(__file__).parent, "0", "1"
PEER = "vllm-router==0.1.17"
PAIR = ("dynctl", "vllm-router")
IDLE, HELD = 10_000, 2_000
SOAK = 100_000


class Shape(NamedTuple):
    """A load: connections, requests a round, events a stream, milliseconds between them.

    With `per_s` requests come at random, so many a second on average, on so many connections at most. In a closed loop
    the streams of a quick router end and begin together, and wait for one another: TTFT would tell of that.
    """

    connections: int
    requests: int
    events: int
    gap_ms: int
    per_s: int = 0
    rounds: int = 1  # as many times the rounds of other loads


class Row(NamedTuple):
    """A line of the table: `limit` on the ratio of ours to the router's; at most, or with `more` at least."""

    name: str
    figure: str
    shape: str
    limit: float
    unit: str
    more: bool = False


SHAPES = {
    "burst": Shape(32, 3000, 32, 0),
    "paced": Shape(64, 500, 64, 10),
    "64 streams": Shape(1024, 2000, 16, 20, 200, rounds=2),
    "512 streams": Shape(4096, 4000, 32, 40, 400, rounds=2),
}
ROWS = (
    Row("CPU per request, 32 chunks at once", "cpu_us", "burst", 0.7, "µs"),
    Row("CPU per request, 64 chunks 10 ms apart, 64 streams", "cpu_us", "paced", 0.7, "µs"),
    Row("requests per second at saturation", "per_s", "burst", 1.3, "", more=True),
    Row("TTFT p50, 64 streams on average", "p50_ms", "64 streams", 1.0, "ms"),
    Row("TTFT p99, 64 streams on average", "p99_ms", "64 streams", 1.0, "ms"),
    Row("TTFT p50, 512 streams on average", "p50_ms", "512 streams", 1.0, "ms"),
    Row("TTFT p99, 512 streams on average", "p99_ms", "512 streams", 1.0, "ms"),
)
Figures = dict[str, float]
Rounds = dict[str, list[Figures]]


class Router(NamedTuple):
    """A router that runs."""

    name: str
    port: int
    pid: int

    def cpu_us(self) -> float:
        """Microseconds that all its threads have had."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1000

    def rss_bytes(self) -> int:
        """Resident memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the long rows too")
    parser.add_argument("--no-starlette", action="store_true", help="leave the Starlette proxy out")
    parser.add_argument("--repeats", type=int, default=6, help="rounds of each load and router (6)")
    parser.add_argument("--check", action="store_true", help="exit 1 where a row misses its limit")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    python = peer_environment()
    with tempfile.TemporaryDirectory(prefix="dynctl-bench-") as folder, contextlib.ExitStack() as stack:
        tools = Path(folder)
        for name in ("mock_pair", "load_streams"):
            subprocess.run(["cc", "-O2", "-o", str(tools / name), str(HERE / f"{name}.c"), "-lm"], check=True)
        prefill, decode = (stack.enter_context(mock(tools)) for _ in range(2))
        with_peer = routers = [stack.enter_context(router(name, python, prefill, decode, tools)) for name in PAIR]
        if not options.no_starlette:
            peer = stack.enter_context(router("starlette+httpx", python, prefill, decode, tools))
            with_peer = [*routers, peer]
        found = {
            name: alternate(with_peer if name in ("burst", "paced") else routers, shape, options.repeats, tools)
            for name, shape in SHAPES.items()
        }
        held = [long_rows(one, tools) for one in routers] if options.full else []
    missed = report(found, held, as_json=options.json)
    return int(missed and options.check)


def peer_environment() -> str:
    """The interpreter of an environment with the peers, made on first use."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dynctl" / "peers"
    home = cache / PEER.replace("==", "-")
    if not (home / ".done").exists():
        print(f"installing {PEER} and a Starlette proxy's libraries into {home}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        wanted = [PEER, "starlette", "httpx", "uvicorn", "uvloop", "httptools"]
        subprocess.run([str(home / "bin/python"), "-m", "pip", "install", "-qq", *wanted], check=True)
        (home / ".done").touch()
    return str(home / "bin/python")


@contextlib.contextmanager
def process(core: str, argv: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process on one core; ended on leaving."""
    with log.open("wb") as out, subprocess.Popen(["taskset", "-c", core, *argv], stdout=out, stderr=out) as running:
        try:
            yield running
        finally:
            running.send_signal(signal.SIGTERM)
            try:
                running.wait(10)
            except subprocess.TimeoutExpired:
                running.kill()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listening(port: int, log: Path, running: subprocess.Popen[bytes]) -> None:
    """Return once the port answers."""
    end = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > end or running.poll() is not None:
            raise SystemExit(f"{running.args} did not start: {log.read_text()[-2000:]}")
        time.sleep(0.05)


@contextlib.contextmanager
def mock(tools: Path) -> Iterator[str]:
    """A mock worker; its URL."""
    port = free_port()
    log = tools / f"mock-{port}.log"
    with process(LOAD_CORE, [str(tools / "mock_pair"), str(port)], log) as running:
        listening(port, log, running)
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def router(name: str, python: str, prefill: str, decode: str, tools: Path) -> Iterator[Router]:
    """One of the routers, answering."""
    port = free_port()
    argv = {
        "dynctl": [
            *(sys.executable, "-m", "dynctl", "frontend", "--host", "127.0.0.1", "--port", str(port)),
            *("--prefill", prefill, "--decode", decode),
        ],
        "vllm-router": [
            *(str(Path(python).parent / "vllm-router"), "--vllm-pd-disaggregation", "--kv-connector", "nixl"),
            *("--prefill", prefill, "none", "--decode", decode, "--policy", "round_robin", "--log-level", "error"),
            *("--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())),
            *("--max-concurrent-requests", "100000"),
        ],
        "starlette+httpx": [python, str(HERE / "starlette_proxy.py"), str(port), prefill, decode],
    }[name]
    log = tools / f"{name}.log"
    with process(ROUTER_CORE, argv, log) as running:
        listening(port, log, running)
        yield Router(name, port, running.pid)


def load(target: Router, shape: Shape, tools: Path) -> Figures:
    """One round: the figures of a row."""
    body = tools / "body.json"
    said = {"role": "user", "content": "why " * 40}
    document = {"model": "mock", "messages": [said], "stream": True}
    document |= {"max_tokens": shape.events, "mock_gap_ms": shape.gap_ms}
    body.write_text(json.dumps(document, separators=(",", ":")))
    counts = [str(n) for n in (target.port, shape.connections, shape.requests, shape.events + 1)]
    argv = ["taskset", "-c", LOAD_CORE, str(tools / "load_streams"), *counts, str(body)]
    if shape.per_s:
        argv.append(str(shape.per_s))
    before = target.cpu_us()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"load on {target.name}: {done.stderr[-2000:]}")
    found: Figures = json.loads(done.stdout)
    found["cpu_us"] = (target.cpu_us() - before) / shape.requests
    found["per_s"] = found["requests"] / found["seconds"]
    return found


def alternate(routers: list[Router], shape: Shape, repeats: int, tools: Path) -> Rounds:
    """Each router's rounds, there and back again."""
    rounds: Rounds = {one.name: [] for one in routers}
    for one in routers:
        load(one, shape._replace(requests=shape.requests // 4), tools)
    for turn in range(repeats * shape.rounds):
        for one in routers if turn % 2 == 0 else reversed(routers):
            slow = one.name not in PAIR
            if slow and turn:
                continue
            rounds[one.name].append(load(one, shape._replace(requests=shape.requests // (4 if slow else 1)), tools))
    return rounds


def long_rows(target: Router, tools: Path) -> dict[str, Any]:
    """What takes its time: memory over many requests, many idle connections, many streams at once."""
    load(target, Shape(32, 20_000, 8, 0), tools)
    before = target.rss_bytes()
    soaked = load(target, Shape(32, SOAK, 8, 0), tools)
    after = target.rss_bytes()
    with idle_connections(target.port) as count:
        idle_bytes = target.rss_bytes() - after
        beside = load(target, Shape(32, 1000, 8, 0), tools)
    held = load(target, Shape(HELD, 2 * HELD, 32, 200), tools)
    return {
        "name": target.name,
        "soak_mb": (after - before) / 1e6,
        "idle": count,
        "idle_kb_each": idle_bytes / max(1, count) / 1e3,
        "errors": soaked["errors"] + beside["errors"],
        "held": held["requests"] - held["errors"],
        "held_ttft_p99_ms": held["p99_ms"],
    }


@contextlib.contextmanager
def idle_connections(port: int) -> Iterator[int]:
    """As many as IDLE keep-alive connections that have each had an answer; how many are open then."""
    with contextlib.ExitStack() as stack:
        count = 0
        for _ in range(IDLE):
            try:
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
                sock.sendall(b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n")
                count += bool(sock.recv(4096))
            except OSError:
                break
        yield count


def ratios_of(row: Row, rounds: Rounds) -> list[float]:
    """Ours to the router's, of each two rounds that follow each other; in order."""
    ours, theirs = (rounds[name] for name in PAIR)
    return sorted(mine[row.figure] / peers[row.figure] for mine, peers in zip(ours, theirs, strict=True))


def report(found: dict[str, Rounds], held: list[dict[str, Any]], *, as_json: bool) -> bool:
    """The table, or one JSON document; whether a limit is missed."""
    errors = sum(one["errors"] for rounds in found.values() for figures in rounds.values() for one in figures)
    ratios = {row: ratios_of(row, found[row.shape]) for row in ROWS}
    middle = {row: statistics.median(of_rounds) for row, of_rounds in ratios.items()}
    missed = [row for row, ratio in middle.items() if (ratio < row.limit if row.more else ratio > row.limit)]
    cores, load_average = os.cpu_count() or 1, os.getloadavg()[0]
    if as_json:
        rows = [
            {**row._asdict(), "ratio": middle[row], "ratios": of_rounds, "met": row not in missed}
            for row, of_rounds in ratios.items()
        ]
        print(json.dumps({"schema": 1, "cores": cores, "rows": rows, "rounds": found, "long": held}))
        return bool(missed)
    print("| one process on one core | dynctl | vllm-router 0.1.17 | ratio | limit | starlette+httpx |")
    print("|---|---|---|---|---|---|")
    for row, of_rounds in ratios.items():
        figures = {
            name: statistics.median(one[row.figure] for one in rounds) for name, rounds in found[row.shape].items()
        }
        ours, theirs = (f"{figures[name]:,.{1 if row.unit == 'ms' else 0}f} {row.unit}" for name in PAIR)
        peer = figures.get("starlette+httpx")
        other = f"{peer:,.0f} {row.unit}" if peer else "not measured"
        ratio = f"{middle[row]:.2f} ({of_rounds[0]:.2f} to {of_rounds[-1]:.2f})"
        limit = f"{'≥' if row.more else '≤'} {row.limit}{'' if row not in missed else ' missed'}"
        print(f"| {row.name} | {ours} | {theirs} | {ratio} | {limit} | {other} |")
    for line in held:
        print(
            f"{line['name']}: {line['soak_mb']:+.1f} MB over {SOAK:,} requests; {line['idle']:,} idle connections at "
            f"{line['idle_kb_each']:.1f} kB; {line['held']:,} of {2 * HELD:,} streams, {HELD:,} at once, "
            f"TTFT p99 {line['held_ttft_p99_ms']:.0f} ms; {line['errors']:.0f} errors"
        )
    print(f"{errors:.0f} errors; {cores} cores, load average {load_average:.1f} at the end")
    if cores < 4:
        print("fewer than 4 cores: routers and load share them with all else, so only ratios say something;")
        print("what several processes of the frontend cost: scripts/bench_workers.py")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
