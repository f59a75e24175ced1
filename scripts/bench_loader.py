"""How true bench's loader is: what it and others report against the send times that a scheduled mock server logged.

    .venv/bin/python scripts/bench_loader.py [--streams 16,64,128,200] [--requests 20] [--repeat 3]
                                             [--clients dynctl,aiohttp,vllm,aiperf] [--no-realtime]

The server (C, absolute schedule; needs a C compiler) has one core, the client another. Both run under SCHED_FIFO where
that is permitted, so that what else the machine does delays neither. Beside our loader a plain aiohttp client with
uvloop, which reads the chunks and notes their times; `vllm bench serve` of the engine environment; and aiperf ($AIPERF,
the one on $PATH, or installed; it is many processes, which would starve each other under SCHED_FIFO, so it gets both
cores, beneath the server, at nice -20). Clients take turns; of several repeats each figure is
the median. Truth: from the arrival of the request's last byte (the kernel's stamp) to the write of its first token, and
as many requests per second as the streams' schedules allow.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import other_tools

from dynctl.bench.crew import Crew
from dynctl.bench.job import Job, Session, Shot
from dynctl.bench.sample import ttft_ms
from dynctl.bench.summary import Round, percentile, rates

FIRST_MS, GAP_MS, TOKENS = 50.0, 5.0, 32
LIFE_S = (FIRST_MS + (TOKENS - 1) * GAP_MS) / 1000
PATH = "/v1/completions"
BODY = json.dumps({"model": "mock", "prompt": "why " * 40, "max_tokens": TOKENS, "stream": True}).encode()
CLIENT_CORE, SERVER_CORE = 0, 1
REALTIME, FIRST = ["chrt", "-f", "10"], ["chrt", "-f", "20"]
WEIGHTY = ["nice", "-n", "-20"]
P50_LIMIT, P99_LIMIT, RATE_LIMIT = 0.01, 0.10, 0.97


class Figures(NamedTuple):
    """Of one run: TTFT in milliseconds, its ratios to the truth, requests per second over the ideal, the client's
    CPU microseconds per chunk and cores (NaN where a tool does not let them be known)."""

    p50_ms: float
    p50_ratio: float
    p99_ms: float
    p99_ratio: float
    rate_ratio: float
    us_per_chunk: float
    cores: float


class Host(NamedTuple):
    """The compiled server and how processes are put on cores; `realtime`: under SCHED_FIFO."""

    binary: Path
    realtime: bool

    def on(self, *cores: int, how: list[str] = REALTIME) -> list[str]:
        """What a command begins with."""
        return [*(how if self.realtime else []), "taskset", "-c", ",".join(map(str, cores))]

    @contextlib.contextmanager
    def mock(self, log: Path) -> Iterator[str]:
        """The mock server; its log is written when it ends."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        schedule = map(str, (FIRST_MS, GAP_MS, TOKENS))
        argv = [*self.on(SERVER_CORE, how=FIRST), str(self.binary), str(port), str(log), *schedule]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as server:
            if server.stdout is not None:
                server.stdout.readline()
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait()


def truth(log: Path) -> dict[str, float]:
    """By request, milliseconds from its arrival to its first token. Some tools name no request: a number does."""
    rows = [line.split() for line in log.read_text().splitlines()]
    return {
        row[0] if len(row) == 4 else f"#{n}": (int(row[-2]) - int(row[-3])) / 1e6 for n, row in enumerate(rows) if row
    }


def dynctl(host: Host, streams: int, each: int, folder: Path) -> Figures:
    """Our loader, in a process of its own as in `dynctl bench`."""
    phases = ["ramp"] * streams + ["measured"] * streams * each + ["tail"] * streams
    shots = [Shot(id=f"r{n}", body=BODY, asked_tokens=TOKENS, phase=phase) for n, phase in enumerate(phases)]  # type: ignore[arg-type]
    sessions = tuple(Session((shot,)) for shot in shots)
    with (
        host.mock(folder / "log") as url,
        Crew([*(REALTIME if host.realtime else []), sys.executable, "-m", "dynctl"], 1, [CLIENT_CORE]) as crew,
    ):
        job = Job(url=url, path=PATH, sessions=sessions, concurrency=streams, connections=streams)
        result = crew.run(job, lambda _: None)
    true = truth(folder / "log")
    measured = [sample for sample in result.samples if sample.phase == "measured" and sample.served]
    seen, known = [ttft_ms(s) or 0.0 for s in measured], [true[s.id] for s in measured]
    found = rates(Round(number=0, samples=result.samples))
    rate = found.requests_per_s if found else 0.0
    return _figures(seen, known, rate, streams, result.health.cpu_us_per_chunk or 0.0, result.health.cpu_cores)


def aiohttp(host: Host, streams: int, each: int, folder: Path) -> Figures:
    """A plain aiohttp client."""
    with host.mock(folder / "log") as url:
        argv = [*host.on(CLIENT_CORE), sys.executable, __file__, "--plain", url, str(streams), str(each)]
        found = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    true = truth(folder / "log")
    ids = [name for name in found["ttft_ms"] if name in true][streams:-streams]
    seen, known = [found["ttft_ms"][name] for name in ids], [true[name] for name in ids]
    return _figures(seen, known, found["rate"], streams, found["us_per_chunk"], found["cores"])


def told(
    tool: Callable[..., other_tools.Told], *cores: int, how: list[str] = REALTIME
) -> Callable[[Host, int, int, Path], Figures]:
    """A client that is another's tool, on these cores, by its own words."""

    def run(host: Host, streams: int, each: int, folder: Path) -> Figures:
        with host.mock(folder / "log") as url:
            load = other_tools.Load(url, "mock", streams, streams * each, isl=40, osl=TOKENS)
            found = tool(load, folder, host.on(*cores, how=how))
        known = list(truth(folder / "log").values())
        return _of(found.ttft_p50_ms, found.ttft_p99_ms, known, found.rate, streams)

    return run


CLIENTS: dict[str, Callable[[Host, int, int, Path], Figures]] = {
    "dynctl": dynctl,
    "aiohttp": aiohttp,
    "vllm": told(other_tools.vllm, CLIENT_CORE),
    "aiperf": told(other_tools.aiperf, CLIENT_CORE, SERVER_CORE, how=WEIGHTY),
}


def _figures(
    seen: list[float], known: list[float], rate: float, streams: int, us: float = math.nan, cores: float = math.nan
) -> Figures:
    seen = sorted(seen)
    return _of(percentile(seen, 50), percentile(seen, 99), known, rate, streams, us, cores)


def _of(
    p50: float, p99: float, known: list[float], rate: float, streams: int, us: float = math.nan, cores: float = math.nan
) -> Figures:
    true = sorted(known)
    ideal = streams / LIFE_S
    return Figures(p50, p50 / percentile(true, 50), p99, p99 / percentile(true, 99), rate / ideal, us, cores)


def _runs(argv: list[str]) -> bool:
    try:
        return subprocess.run(argv, check=False, capture_output=True).returncode == 0
    except OSError:
        return False


async def plain(url: str, streams: int, each: int) -> None:
    """The plain client: a closed loop of `streams` workers; prints JSON."""
    import aiohttp

    ttft: dict[str, float] = {}
    ends: list[float] = []
    chunks, numbers = 0, iter(range(streams * (each + 2)))

    async def worker(http: aiohttp.ClientSession) -> None:
        nonlocal chunks
        for number in numbers:
            name, sent, first = f"r{number}", time.perf_counter(), True
            headers = {"x-request-id": name, "content-type": "application/json"}
            async with http.post(f"{url}{PATH}", data=BODY, headers=headers) as response:
                async for data in response.content.iter_any():
                    now = time.perf_counter()
                    chunks += 1
                    if first and b" word1" in data:
                        ttft[name], first = (now - sent) * 1000, False
            ends.append(time.perf_counter())

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        cpu, begin = time.process_time(), time.perf_counter()
        await asyncio.gather(*(worker(http) for _ in range(streams)))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - begin
    print(
        json.dumps({"ttft_ms": ttft, "rate": len(ends) / wall, "us_per_chunk": cpu * 1e6 / chunks, "cores": cpu / wall})
    )


def row(name: str, streams: int, found: Figures) -> str:
    """One line of the table."""
    cpu = f"{found.us_per_chunk:.1f} | {found.cores:.2f}" if found.us_per_chunk == found.us_per_chunk else "- | -"
    return (
        f"| {name} | {streams} | {found.p50_ms:.2f} | {found.p50_ratio:.3f} | {found.p99_ms:.2f}"
        f" | {found.p99_ratio:.3f} | {found.rate_ratio:.3f} | {cpu} |"
    )


def within(found: Figures) -> bool:
    """Whether TTFT and rate are as true as bench claims."""
    true = abs(found.p50_ratio - 1) <= P50_LIMIT and abs(found.p99_ratio - 1) <= P99_LIMIT
    return true and found.rate_ratio >= RATE_LIMIT


def measure(host: Host, names: list[str], streams: int, each: int, repeat: int) -> dict[str, Figures]:
    """Each client's medians; they take turns."""
    found: dict[str, list[Figures]] = {name: [] for name in names}
    for _ in range(repeat):
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(CLIENTS[name](host, streams, each, Path(folder)))
    return {name: Figures(*map(statistics.median, zip(*rows, strict=True))) for name, rows in found.items()}


def options() -> argparse.Namespace:
    """As typed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", default="16,64,128,200")
    parser.add_argument("--requests", type=int, default=20, help="per stream")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--clients", default="dynctl,aiohttp", help=f"of {', '.join(CLIENTS)}")
    parser.add_argument("--no-realtime", action="store_true", help="the kernel's ordinary scheduling")
    return parser.parse_args()


def main() -> int:
    """Prints the table."""
    if sys.argv[1:2] == ["--plain"]:
        import uvloop

        uvloop.run(plain(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
        return 0
    asked = options()
    names = asked.clients.split(",")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    permitted = not asked.no_realtime and _runs([*REALTIME, "true"])
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "mock_stream"
        source = Path(__file__).with_name("mock_stream.c")
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-o", str(binary), str(source)], check=True)
        host = Host(binary, permitted)
        scheduling = "SCHED_FIFO" if permitted else "ordinary scheduling"
        print(
            f"first token after {FIRST_MS:g} ms, {TOKENS} of them every {GAP_MS:g} ms; {scheduling}; medians of"
            f" {asked.repeat}; load average {os.getloadavg()[0]:.1f}\n"
        )
        print("| client | streams | TTFT p50 ms | / truth | p99 ms | / truth | rate / ideal | CPU us/chunk | cores |")
        print("|---|---|---|---|---|---|---|---|---|")
        missed, dearer = [], []
        for streams in map(int, asked.streams.split(",")):
            found = measure(host, names, streams, asked.requests, asked.repeat)
            for name in names:
                print(row(name, streams, found[name]), flush=True)
            ours, theirs = found.get("dynctl"), found.get("aiohttp")
            missed += [streams] if ours and not within(ours) else []
            dearer += [streams] if ours and theirs and ours.us_per_chunk > theirs.us_per_chunk else []
    if "dynctl" not in names:
        return 0
    claim = f"TTFT p50 within {P50_LIMIT:.0%}, p99 within {P99_LIMIT:.0%}, rate at least {RATE_LIMIT:.0%} of the ideal"
    print(f"\ndynctl: {claim}: {f'missed at {missed} streams' if missed else 'yes'}")
    print(f"a chunk costs no more than aiohttp's: {f'it does at {dearer} streams' if dearer else 'yes'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
