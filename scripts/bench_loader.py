"""How true bench's loader is: what it reports against the send times that a scheduled mock server logged.

usage: bench_loader.py [--streams 16,64,128,200] [--requests 20]
The loader runs on one core, the server (C, absolute schedule; needs a C compiler) on another. Beside it a plain aiohttp
client with uvloop, which reads the chunks and notes their times, for its CPU per chunk.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from dynctl.bench.crew import Crew
from dynctl.bench.job import Job, Session, Shot
from dynctl.bench.sample import ttft_ms
from dynctl.bench.summary import percentile

FIRST_MS, GAP_MS, TOKENS = 50.0, 5.0, 32
LIFE_S = (FIRST_MS + (TOKENS - 1) * GAP_MS) / 1000
BODY = json.dumps({"model": "mock", "messages": [{"role": "user", "content": "why " * 40}], "stream": True}).encode()
LOADER_CORE, SERVER_CORE = 0, 1


@contextlib.contextmanager
def mock(binary: Path, log: Path) -> Iterator[str]:
    """The mock server; its log is written when it ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [
        "taskset",
        "-c",
        str(SERVER_CORE),
        str(binary),
        str(port),
        str(log),
        str(FIRST_MS),
        str(GAP_MS),
        str(TOKENS),
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as server:
        if server.stdout is not None:
            server.stdout.readline()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()


def truth(log: Path) -> dict[str, float]:
    """Per request, milliseconds from its last byte read to its first token written."""
    rows = [line.split() for line in log.read_text().splitlines()]
    return {row[0]: (int(row[2]) - int(row[1])) / 1e6 for row in rows if len(row) == 4}


def dynctl_row(binary: Path, streams: int, each: int) -> list[str]:
    """Our loader: figures of the table."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        shots = [
            Session((Shot(id=f"r{n}", body=BODY, asked_tokens=TOKENS, phase=phase),))  # type: ignore[arg-type]
            for n, phase in enumerate(["ramp"] * streams + ["measured"] * streams * each + ["tail"] * streams)
        ]
        with mock(binary, log) as url, Crew([sys.executable, "-m", "dynctl"], cores=[LOADER_CORE]) as crew:
            job = Job(
                url=url, path="/v1/chat/completions", sessions=tuple(shots), concurrency=streams, connections=streams
            )
            result = crew.run(job, lambda _: None)
        true = truth(log)
    measured = [s for s in result.samples if s.phase == "measured" and s.served]
    seen = sorted(ttft_ms(s) or 0.0 for s in measured)
    known = sorted(true[s.id] for s in measured)
    ended = sorted(s.end_s for s in measured)
    rate = (len(ended) - 1) / (ended[-1] - ended[0])
    return _row("dynctl", streams, seen, known, rate, result.health.cpu_us_per_chunk or 0, result.health.cpu_cores)


def aiohttp_row(binary: Path, streams: int, each: int) -> list[str]:
    """A plain aiohttp client, in a process of its own on the loader's core."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with mock(binary, log) as url:
            argv = [
                "taskset",
                "-c",
                str(LOADER_CORE),
                sys.executable,
                __file__,
                "--plain",
                url,
                str(streams),
                str(each),
            ]
            found = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
        true = truth(log)
    ids = [name for name in found["ttft_ms"] if name in true][streams:-streams]
    seen, known = sorted(found["ttft_ms"][name] for name in ids), sorted(true[name] for name in ids)
    return _row("aiohttp", streams, seen, known, found["rate"], found["us_per_chunk"], found["cores"])


def _row(
    name: str, streams: int, seen: list[float], true: list[float], rate: float, us: float, cores: float
) -> list[str]:
    ideal = streams / LIFE_S
    return [
        name,
        str(streams),
        f"{percentile(seen, 50):.2f}",
        f"{percentile(seen, 50) / percentile(true, 50):.3f}",
        f"{percentile(seen, 99):.2f}",
        f"{percentile(seen, 99) / percentile(true, 99):.3f}",
        f"{rate / ideal:.3f}",
        f"{us:.1f}",
        f"{cores:.2f}",
    ]


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
            async with http.post(f"{url}/v1/chat/completions", data=BODY, headers=headers) as response:
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
    kept = sorted(ends)[streams:-streams]
    rate = (len(kept) - 1) / (kept[-1] - kept[0])
    print(json.dumps({"ttft_ms": ttft, "rate": rate, "us_per_chunk": cpu * 1e6 / chunks, "cores": cpu / wall}))


def main() -> int:
    """Prints the table."""
    if sys.argv[1:2] == ["--plain"]:
        import uvloop

        uvloop.run(plain(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", default="16,64,128,200")
    parser.add_argument("--requests", type=int, default=20, help="per stream")
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "mock_stream"
        source = Path(__file__).with_name("mock_stream.c")
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-o", str(binary), str(source)], check=True)
        print(
            "| client | streams | TTFT p50 ms | / truth | TTFT p99 ms | / truth | rate / ideal | CPU us/chunk | cores |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for streams in map(int, options.streams.split(",")):
            for row in (dynctl_row, aiohttp_row):
                print("| " + " | ".join(row(binary, streams, options.requests)) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
