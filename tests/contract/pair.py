"""A prefill and a decode worker, started by hand with vLLM's own flags: what the contract suite runs against."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import msgspec
import psutil

from dynctl.runtime.shared_memory import mapped_by

BLOCK_SIZE = 128
SERVED_NAME = "contract"
MAX_MODEL_LEN = 4096


class Worker(msgspec.Struct, frozen=True):
    """One running engine: `pid` is its API server's and its session's."""

    role: str
    url: str
    pid: int
    side_port: int
    log: Path


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Two workers that can hand KV to each other. `block_bytes`: keys and values of one block, all layers."""

    prefill: Worker
    decode: Worker
    served_name: str
    vocab_size: int
    block_bytes: int
    push: bool
    patience_s: float  # how long this engine may take for anything before it counts as stuck


@contextlib.contextmanager
def running_pair(
    python: str,
    model: Path,
    directory: Path,
    env: Mapping[str, str],
    patience_s: float,
    connector: str = "NixlConnector",
) -> Iterator[Pair]:
    """Start both, wait until they serve, and leave no process of theirs behind."""
    config = json.loads((model / "config.json").read_text())
    per_token = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"] * 4
    workers: list[Worker] = []
    started: list[subprocess.Popen[bytes]] = []
    try:
        for role, kv_role in (("prefill", "kv_producer"), ("decode", "kv_consumer")):
            transfer = {
                "kv_connector": connector,
                "kv_role": kv_role,
                "kv_load_failure_policy": "fail",
                # On a busy machine a first hand-over can outlast the default of 30 s, and then the KV is gone.
                "kv_connector_extra_config": {"kv_lease_duration": int(patience_s)},
            }
            worker, process = start_worker(python, model, directory, env, role, transfer)
            workers.append(worker)
            started.append(process)
        deadline = time.monotonic() + patience_s
        for worker, process in zip(workers, started, strict=True):
            wait_ready(worker, process, deadline)
        yield Pair(
            prefill=workers[0],
            decode=workers[1],
            served_name=SERVED_NAME,
            vocab_size=config["vocab_size"],
            block_bytes=per_token * BLOCK_SIZE,
            push=connector == "NixlPushConnector",
            patience_s=patience_s,
        )
    finally:
        for process in started:
            end_worker(process)


def members(session: int) -> list[psutil.Process]:
    """Live processes of a session."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def start_worker(
    python: str, model: Path, directory: Path, env: Mapping[str, str], role: str, transfer: Mapping[str, object]
) -> tuple[Worker, subprocess.Popen[bytes]]:
    """One engine, in a session of its own, with the settings that a CPU machine needs; `<role>.log` in `directory`."""
    port, side_port = free_port(), free_port()
    argv = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", SERVED_NAME,
        "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager",
        "--max-model-len", str(MAX_MODEL_LEN), "--block-size", str(BLOCK_SIZE),
        "--kv-transfer-config", json.dumps(transfer),
    ]  # fmt: skip
    settings = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
        "VLLM_NIXL_SIDE_CHANNEL_PORT": str(side_port),
        "UCX_NET_DEVICES": "lo",
        "UCX_LOG_LEVEL": "info",
        "UCX_PROTO_INFO": "*remote memory*",
        "UCX_LOG_FILE": "stderr",
        **env,
    }
    log = directory / f"{role}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            argv, env=settings, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    return Worker(role, f"http://127.0.0.1:{port}", process.pid, side_port, log), process


def free_port() -> int:
    """A port of the loopback that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_ready(worker: Worker, process: subprocess.Popen[bytes], deadline: float) -> None:
    """Wait for /health; RuntimeError when the engine ends first, TimeoutError at `deadline` (monotonic seconds)."""
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{worker.role} ended with {process.returncode}: {worker.log.read_text()[-3000:]}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(worker.url + "/health", timeout=5).status_code == 200:
                return
        time.sleep(0.05)
    raise TimeoutError(f"{worker.role} is not ready: {worker.log.read_text()[-3000:]}")


def end_worker(process: subprocess.Popen[bytes]) -> None:
    """End the engine and all of its session, and remove the shared memory that it leaves when it is killed."""
    made = mapped_by(member.pid for member in members(process.pid))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    psutil.wait_procs(members(process.pid), timeout=30)
    for path in made:
        Path(path).unlink(missing_ok=True)
