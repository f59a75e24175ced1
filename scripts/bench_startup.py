"""Time to a served token: `dynctl up -d --no-verify` against the same two engines started by hand in parallel.

    .venv/bin/python scripts/bench_startup.py [--pairs 3] [--json]

Each pair is one run of either, interleaved (A B, B A, ...), on an otherwise idle machine. By hand means: both engines'
argv and environment from the plan, started at once, polled until each serves a token of its own. The figure is the
ratio per pair and its median; verification is timed apart.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

from dynctl.environ import engine_environment

ROOT = Path(__file__).parents[1]
PROFILE = ROOT / "profiles" / "cpu-1p1d.yaml"
DEADLINE_S = 600.0
POLL_S = 0.1


class Bench:
    """Both ways of starting, in a state directory of their own."""

    def __init__(self, directory: Path, port: int, profile: Path = PROFILE, sets: Sequence[str] = ()) -> None:
        self.env = {**os.environ, "XDG_STATE_HOME": str(directory / "state"), "TMPDIR": str(directory)}
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)  # else each command compiles dynctl anew, unlike one installed
        self.profile, self.url = profile, f"http://127.0.0.1:{port}"
        self._sets = [word for given in (f"frontend.port={port}", *sets) for word in ("--set", given)]

    def dynctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command; its failure is the bench's."""
        command = [sys.executable, "-m", "dynctl", *arguments]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=True)

    def plan(self) -> dict[str, Any]:
        """The plan both ways start from."""
        found: dict[str, Any] = json.loads(self.dynctl("plan", str(self.profile), *self._sets, "--json").stdout)
        return found

    def up(self, *options: str) -> None:
        """`dynctl up -d`, which must succeed."""
        self.dynctl("up", "-d", str(self.profile), *self._sets, *options)

    def with_dynctl(self, *options: str) -> float:
        """Seconds from `dynctl up -d` to a token served through the frontend."""
        begun = time.monotonic()
        self.up(*options)
        try:
            serve_a_token(self.url)
            return time.monotonic() - begun
        finally:
            self.dynctl("down")

    def by_hand(self, plan: dict[str, Any]) -> float:
        """Seconds from starting both engines at once until both have served a token."""
        engines = [process for process in plan["processes"] if process["role"] != "frontend"]
        begun = time.monotonic()
        running = [start(engine, self.env) for engine in engines]
        try:
            for engine in engines:
                serve_a_token(engine["probes"]["url"])
            return time.monotonic() - begun
        finally:
            for process in running:
                end(process)


def start(process: dict[str, Any], env: dict[str, str]) -> subprocess.Popen[bytes]:
    """The process exactly as planned, its output thrown away."""
    return subprocess.Popen(
        process["argv"],
        env=engine_environment(process["env"], env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def serve_a_token(url: str, good: Callable[[Any], bool] = bool, **more: Any) -> None:
    """Polls until the server answers a one-token completion with one that is `good`; `more` goes into the request."""
    deadline = time.monotonic() + DEADLINE_S
    body = {"model": "tiny", "prompt": "river", "max_tokens": 1, **more}
    with httpx.Client(timeout=60, trust_env=False) as http:  # one for all: making one costs a core time
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                answer = http.post(f"{url}/v1/completions", json=body)
                if answer.status_code == 200 and good(answer.json()):
                    return
            time.sleep(POLL_S)
    raise SystemExit(f"{url} served nothing within {DEADLINE_S:.0f} s")


def end(process: subprocess.Popen[bytes]) -> None:
    """The engine and all its children."""
    members = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    process.wait(60)
    for member in members:
        if member.is_running():
            member.kill()


def main() -> None:
    """Runs the pairs and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3, help="interleaved pairs (3)")
    parser.add_argument("--port", type=int, default=18000, help="the frontend's port (18000)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing started is left
    directory = Path(tempfile.mkdtemp(prefix="dynctl-bench-"))
    try:
        rows, verified_s = measure(Bench(directory, options.port), options.pairs)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    report(rows, verified_s, as_json=options.json)


def measure(bench: Bench, pairs: int) -> tuple[list[tuple[float, float]], float]:
    """(dynctl, by hand) in seconds per pair, and one start with verification. A first start is not counted."""
    bench.with_dynctl("--no-verify")
    plan = bench.plan()
    rows = []
    for at in range(pairs):
        if at % 2:
            hand_s = bench.by_hand(plan)
            rows.append((bench.with_dynctl("--no-verify"), hand_s))
        else:
            dynctl_s = bench.with_dynctl("--no-verify")
            rows.append((dynctl_s, bench.by_hand(plan)))
        print(f"pair {at + 1}: dynctl {rows[-1][0]:.1f} s, by hand {rows[-1][1]:.1f} s", file=sys.stderr)
    return rows, bench.with_dynctl("--verify")


def report(rows: list[tuple[float, float]], verified_s: float, *, as_json: bool) -> None:
    """The table, or one JSON document."""
    ratios = [ours / hand for ours, hand in rows]
    median_s = statistics.median(ours for ours, _ in rows)
    if as_json:
        document = {"schema": 1, "seconds": rows, "ratios": ratios, "ratio_median": statistics.median(ratios)}
        print(json.dumps({**document, "with_verification_s": verified_s}))
        return
    print("| start to a served token | median s | min s | max s |\n|---|---|---|---|")
    for name, column in (("dynctl up -d --no-verify", 0), ("two engines by hand", 1)):
        seconds = [row[column] for row in rows]
        print(f"| {name} | {statistics.median(seconds):.1f} | {min(seconds):.1f} | {max(seconds):.1f} |")
    print(f"\nratio, pair by pair: {', '.join(f'{r:.3f}' for r in ratios)}; median {statistics.median(ratios):.3f}")
    print(f"with verification: {verified_s:.1f} s ({verified_s - median_s:+.1f} s)")


if __name__ == "__main__":
    main()
