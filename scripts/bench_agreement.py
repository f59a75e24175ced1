"""Whether bench, vLLM's tool and aiperf agree on the same server at low load.

    .venv/bin/dynctl up -d profiles/cpu-1p1d.yaml
    .venv/bin/python scripts/bench_agreement.py http://127.0.0.1:8000 [--model tiny] [--tokenizer PATH] [--streams 1]
                                                [--isl 256] [--osl 16] [--requests 60] [--repeat 4] [--json]

The tools take turns, forwards then backwards, each time with other prompts of the same length; each figure is their
median. Exit code 1 where a tool's TTFT p50 is further than 5 % from ours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import other_tools
from other_tools import Load, Told

LIMIT = 0.05


def dynctl(load: Load, folder: Path) -> Told:
    """`dynctl bench`, in its own words."""
    argv = [sys.executable, "-m", "dynctl", "bench", "--url", load.url, "--model", load.model, "--json"]
    argv += ["--concurrency", str(load.streams), "--requests", str(load.requests), "--seed", str(load.seed)]
    argv += ["--isl", str(load.isl), "--osl", str(load.osl)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise SystemExit(f"{argv}: exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout)["runs"][0]["metrics"]
    return Told(found["ttft_ms"]["p50"], found["ttft_ms"]["p99"], found["itl_ms"]["p50"], found["requests_per_s"])


TOOLS: dict[str, Callable[[Load, Path], Told]] = {
    "dynctl": dynctl,
    "vllm": other_tools.vllm,
    "aiperf": other_tools.aiperf,
}


def measure(names: list[str], load: Load, repeat: int) -> dict[str, Told]:
    """Each tool's medians."""
    found: dict[str, list[Told]] = {name: [] for name in names}
    for turn in range(repeat):
        for name in names if turn % 2 == 0 else reversed(names):
            with tempfile.TemporaryDirectory() as folder:
                told = TOOLS[name](load._replace(seed=1000 * (names.index(name) + 1) + turn), Path(folder))
            print(f"turn {turn + 1} {name}: TTFT p50 {told.ttft_p50_ms:.2f} ms", file=sys.stderr)
            found[name].append(told)
    return {name: Told(*map(statistics.median, zip(*rows, strict=True))) for name, rows in found.items()}


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--tokenizer", help="a folder or name; the tiny model's by default")
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--isl", type=int, default=256)
    parser.add_argument("--osl", type=int, default=16)
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--repeat", type=int, default=4)
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    load = Load(asked.url, asked.model, asked.streams, asked.requests, asked.isl, asked.osl, asked.tokenizer)
    found = measure(asked.tools.split(","), load, asked.repeat)
    ours = found["dynctl"].ttft_p50_ms
    if asked.json:
        print(json.dumps({name: told._asdict() for name, told in found.items()}, indent=1))
    else:
        print("| tool | TTFT p50 ms | / ours | TTFT p99 ms | ITL p50 ms | req/s |\n|---|---|---|---|---|---|")
        for name, told in found.items():
            figures = f"{told.ttft_p50_ms:.2f} | {told.ttft_p50_ms / ours:.3f} | {told.ttft_p99_ms:.2f}"
            print(f"| {name} | {figures} | {told.itl_p50_ms:.2f} | {told.rate:.2f} |")
    far = [name for name, told in found.items() if abs(told.ttft_p50_ms / ours - 1) > LIMIT]
    print(f"TTFT p50 within {LIMIT:.0%} of ours: {f'not {far}' if far else 'yes'}", file=sys.stderr)
    return int(bool(far))


if __name__ == "__main__":
    sys.exit(main())
