"""The probe against a plain NIXL script: the same sizes, interleaved, each end on a core of its own.

    .venv/bin/python scripts/bench_probe.py [ROUNDS]

One line per size: median rate of both over all rounds, the median of the rounds' ratios, and its range.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
from pathlib import Path

from dynctl.engines.environment import default_python
from dynctl.environ import engine_environment
from dynctl.fabric.probe.child import ProbeAgent

SIZES = (64 << 10, 1 << 20, 16 << 20, 256 << 20)
REPEATS = {64 << 10: 200, 1 << 20: 100, 16 << 20: 20, 256 << 20: 5}
SETTINGS = {"UCX_NET_DEVICES": "lo"}
PLAIN = Path(__file__).with_name("plain_nixl.py")


def plain(python: str, cores: tuple[int, int], size: int) -> float:
    """GB/s of the plain script: the median transfer."""
    done = subprocess.run(
        [python, str(PLAIN), *map(str, (*cores, size, REPEATS[size]))],
        env=engine_environment({**SETTINGS, "NIXL_LOG_LEVEL": "ERROR"}, os.environ),
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    return rate(size, [float(word) for word in done.stdout.split()])


async def probed(python: str, cores: tuple[int, int], size: int) -> float:
    """GB/s of the probe: the median transfer."""
    agents = [
        ProbeAgent(name, python, SETTINGS, cpus=str(core))
        for name, core in zip(("prefill", "decode"), cores, strict=True)
    ]
    async with agents[0] as source, agents[1] as target:
        moved = await target.move(await source.offer(size), "read", size, REPEATS[size], deadline_s=60)
    return rate(size, moved.durations_us)


def rate(size: int, durations_us: list[float] | tuple[float, ...]) -> float:
    """GB/s of the median duration."""
    return size / statistics.median(durations_us) / 1e3


def main() -> None:
    """Runs the rounds and prints the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    python = default_python("vllm")
    if python is None:
        raise SystemExit("no engine environment: run `make engine`")
    usable = sorted(os.sched_getaffinity(0))
    cores = (usable[0], usable[-1])
    print(f"cores {cores}, {rounds} rounds, CMA or what UCX chooses on this host")
    print("size KiB    probe GB/s  plain GB/s  probe/plain (range)")
    for size in SIZES:
        seen = []
        for at in range(rounds):
            if at % 2:
                other = plain(str(python), cores, size)
                mine = asyncio.run(probed(str(python), cores, size))
            else:
                mine = asyncio.run(probed(str(python), cores, size))
                other = plain(str(python), cores, size)
            seen.append((mine, other))
        ratios = [mine / other for mine, other in seen]
        medians = [statistics.median(column) for column in zip(*seen, strict=True)]
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        print(f"{size >> 10:>8,}  {medians[0]:>12.2f}{medians[1]:>12.2f}  {statistics.median(ratios):.2f} ({spread})")


if __name__ == "__main__":
    main()
