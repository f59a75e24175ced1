"""One process of the frontend against several: CPU per request, and requests per second where cores are free.

    .venv/bin/python scripts/bench_workers.py [--workers 2] [--repeats 4]

Both frontends route round-robin over the same mock workers and the same loads as in bench_frontend.py; rounds alternate
(ABBA), figures are medians. CPU is that of all processes of a frontend. What several processes gain in requests per
second needs a core for each of them besides those of workers and load: with fewer it is said that it can't be measured.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import bench_frontend as bench
import psutil

SHAPES = {
    "CPU per request, 32 chunks at once": "burst",
    "CPU per request, 64 chunks 10 ms apart, 64 streams": "paced",
}
SATURATION = "requests per second at saturation"


class Several(bench.Router):
    """A frontend of one process or more."""

    def cpu_us(self) -> float:
        """Of all its processes."""
        own = psutil.Process(self.pid)
        return sum(bench.Router(self.name, self.port, one.pid).cpu_us() for one in (own, *own.children()))


def main() -> int:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="processes of the second frontend (2)")
    parser.add_argument("--repeats", type=int, default=4, help="rounds of each load and frontend (4)")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    enough = len(cores) >= options.workers + 2
    mine = ",".join(map(str, cores[: options.workers])) if enough else bench.ROUTER_CORE
    with tempfile.TemporaryDirectory(prefix="dynctl-bench-") as folder, contextlib.ExitStack() as stack:
        tools = Path(folder)
        for name in ("mock_pair", "load_streams"):
            source = str(bench.HERE / f"{name}.c")
            subprocess.run(["cc", "-O2", "-o", str(tools / name), source, "-lm"], check=True)
        if enough:
            bench.LOAD_CORE = ",".join(map(str, cores[options.workers :]))
        prefill, decode = (stack.enter_context(bench.mock(tools)) for _ in range(2))
        both = [stack.enter_context(frontend(count, mine, prefill, decode, tools)) for count in (1, options.workers)]
        found = {name: alternate(both, bench.SHAPES[shape], options.repeats, tools) for name, shape in SHAPES.items()}
    print(f"| | 1 process | {options.workers} processes | ratio |\n|---|---|---|---|")
    for name, (one, more) in found.items():
        print(f"| {name} | {one['cpu_us']:,.0f} µs | {more['cpu_us']:,.0f} µs | {more['cpu_us'] / one['cpu_us']:.2f} |")
    one, more = next(iter(found.values()))
    if enough:
        ratio = more["per_s"] / one["per_s"]
        print(f"| {SATURATION} | {one['per_s']:,.0f} | {more['per_s']:,.0f} | {ratio:.2f} |")
    else:
        print(f"| {SATURATION} | not measurable with {len(cores)} cores free | | |")
    errors = sum(figures["errors"] for pair in found.values() for figures in pair)
    print(f"{errors:.0f} errors; {len(cores)} cores, load average {os.getloadavg()[0]:.1f} at the end")
    return int(errors > 0)


@contextlib.contextmanager
def frontend(count: int, cores: str, prefill: str, decode: str, tools: Path) -> Iterator[Several]:
    """A frontend all of whose processes serve."""
    port, log = bench.free_port(), tools / f"frontend-{count}.log"
    argv = [sys.executable, "-m", "dynctl", "frontend", "--port", str(port), "--workers", str(count)]
    with bench.process(cores, [*argv, "--prefill", prefill, "--decode", decode], log) as running:
        bench.listening(port, log, running)
        end = time.monotonic() + 60
        while log.read_text().count("serves, too") < count - 1:
            if time.monotonic() > end:
                raise SystemExit(f"not all processes serve: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield Several(f"{count}", port, running.pid)


def alternate(
    both: list[Several], shape: bench.Shape, repeats: int, tools: Path
) -> tuple[bench.Figures, bench.Figures]:
    """Medians of each one's rounds, there and back again."""
    rounds: dict[str, list[bench.Figures]] = {one.name: [] for one in both}
    for one in both:
        bench.load(one, shape._replace(requests=shape.requests // 4), tools)
    for turn in range(repeats):
        for one in both if turn % 2 == 0 else reversed(both):
            rounds[one.name].append(bench.load(one, shape, tools))
    first, second = (
        {key: statistics.median(figures[key] for figures in found) for key in found[0]} for found in rounds.values()
    )
    return first, second


if __name__ == "__main__":
    sys.exit(main())
