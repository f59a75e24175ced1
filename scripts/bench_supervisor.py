"""What one supervisor costs with many workers: times of `up -d`, `status` and `down`, and its CPU and memory when idle.

    .venv/bin/python scripts/bench_supervisor.py [--workers 64] [--idle 60] [--json]

The workers are the tests' fake engines, three processes each, half of them prefill and half decode, with the default
health checks. Idle CPU is the supervisor's own ticks (/proc/PID/stat) while nobody watches and no request comes; its
resident memory is the most seen meanwhile. Exit 1 where one of the two is over its limit. The times are wall-clock and
mostly the fake engines' own starts and ends, which share this machine's cores.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.fakes.environment import build_fake_environment
from tests.fakes.model import make_fake_model
from tests.integration.run_harness import PATIENCE_S, Home, Result

CPU_LIMIT = 0.01
"""Of one core."""
RSS_LIMIT_BYTES = 80_000_000
SETTLE_S = 5.0
LOOK_S = 1.0
TIMES = {"up_s": "up -d to ready", "status_s": "status --json", "down_s": "down"}


def main() -> int:
    """The table; 1 where a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=64, help="half prefill, half decode (64)")
    parser.add_argument("--idle", type=float, default=60.0, metavar="SECONDS", help="how long to watch it idle (60)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dynctl-bench-") as directory:
        python = build_fake_environment(Path(directory) / "venv")
        home = Home(str(python), make_fake_model(Path(directory) / "model"))
        try:
            row = measure(home, options.workers, options.idle)
        finally:
            home.close()
    report(row, options.workers, as_json=options.json)
    return 0 if row["idle_cpu"] <= CPU_LIMIT and row["rss_bytes"] <= RSS_LIMIT_BYTES else 1


def measure(home: Home, workers: int, idle_s: float) -> dict[str, float]:
    """Seconds of each command, and the supervisor's idle CPU (of a core) and most resident bytes."""
    topology = home.topology({"roles": {role: {"workers": workers // 2} for role in ("prefill", "decode")}})
    row = {"up_s": timed(home, "up", "-d", str(topology), "--no-preflight")[0]}
    row["status_s"], said = timed(home, "status", home.name, "--json")
    supervisor = psutil.Process(said.json()["supervisor"]["pid"])
    time.sleep(SETTLE_S)
    row["idle_cpu"], row["rss_bytes"] = idle(supervisor, idle_s)
    row["down_s"], _ = timed(home, "down", home.name)
    return row


def timed(home: Home, *arguments: str) -> tuple[float, Result]:
    """Wall-clock seconds of a command that must succeed, and what it said."""
    begun = time.monotonic()
    done = home.start(*arguments).wait(5 * PATIENCE_S)
    if done.code:
        raise SystemExit(f"dynctl {arguments[0]} exits {done.code}: {done.err[-2000:]}")
    return time.monotonic() - begun, done


def idle(process: psutil.Process, seconds: float) -> tuple[float, float]:
    """CPU as a part of one core, and the most resident bytes, over that time."""
    begun, before, most = time.monotonic(), ticks(process.pid), 0
    while time.monotonic() - begun < seconds:
        time.sleep(LOOK_S)
        most = max(most, process.memory_info().rss)
    spent_s = (ticks(process.pid) - before) / os.sysconf("SC_CLK_TCK")
    return spent_s / (time.monotonic() - begun), float(most)


def ticks(pid: int) -> int:
    """Clock ticks that it spent so far, its own threads' in user and system mode (proc(5): utime, stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def report(row: dict[str, float], workers: int, *, as_json: bool) -> None:
    """The table, or one JSON document."""
    limits = {"idle_cpu": CPU_LIMIT, "rss_bytes": RSS_LIMIT_BYTES}
    if as_json:
        print(json.dumps({"schema": 1, "workers": workers, **row, "limits": limits}))
        return
    print(f"| {workers} workers, one supervisor | | limit |\n|---|---|---|")
    for key, name in TIMES.items():
        print(f"| {name} | {row[key]:.2f} s | |")
    print(f"| idle CPU of the supervisor | {row['idle_cpu']:.2%} of a core | {CPU_LIMIT:.0%} |")
    print(f"| its resident memory | {row['rss_bytes'] / 1e6:.1f} MB | {RSS_LIMIT_BYTES / 1e6:.0f} MB |")


if __name__ == "__main__":
    sys.exit(main())
