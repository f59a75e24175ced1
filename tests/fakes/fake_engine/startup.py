"""The engine's way up: log lines of vLLM 0.32, phase by phase, with the delays and deaths that a test asked for."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from .config import EngineConfig
from .control import Knobs

PHASES: dict[str, tuple[str, ...]] = {
    "config": (
        "(APIServer pid={api}) INFO {now} [api_utils.py:286] non-default args: {{'model': '{model}'}}",
        "(APIServer pid={api}) INFO {now} [model.py:733] Resolved architecture: Qwen3ForCausalLM",
        "(APIServer pid={api}) INFO {now} [nixl_utils.py:72] NIXL is available",
    ),
    "engine_core": (
        "(EngineCore pid={core}) INFO {now} [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: "
        "model='{model}'",
    ),
    "load": ("(Worker pid={worker}) INFO {now} [cpu_model_runner.py:68] Starting to load model {model}...",),
    "weights": (
        "Loading safetensors checkpoint shards: 100% Completed | 1/1 [00:00<00:00, 22.92it/s]",
        "(Worker pid={worker}) INFO {now} [default_loader.py:501] Loading weights took 0.05 seconds",
    ),
    "kv_cache": (
        "(EngineCore pid={core}) INFO {now} [kv_cache_utils.py:2327] CPU KV cache size: 262,144 tokens, "
        "Maximum concurrency for {length} tokens per request: 64.00x",
    ),
    "nixl": (
        "(Worker pid={worker}) INFO {now} [base_worker.py:515] Initializing NIXL wrapper",
        "{today} NIXL INFO    _api.py:405 Backend UCX was instantiated",
    ),
    "register": (
        "(Worker pid={worker}) INFO {now} [base_worker.py:1416] Registering KV_Caches. use_mla: False, "
        "kv_buffer_device: cpu, use_host_buffer: False",
    ),
    "init": (
        "(EngineCore pid={core}) INFO {now} [core.py:402] init engine (profile, create kv cache, warmup model) "
        "took 0.88 s",
    ),
    "serving": (
        "(APIServer pid={api}) INFO {now} [entry.py:140] Starting vLLM server on http://{host}:{port}",
        "INFO:     Started server process [{api}]",
        "INFO:     Waiting for application startup.",
    ),
}
_TRANSFER_PHASES = {"nixl", "register"}


def say(line: str) -> None:
    """One line of the engine's log, at once. A full disk costs the line: Python's logging passes over it."""
    with contextlib.suppress(OSError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def die(message: str, code: int) -> NoReturn:
    """Say why, and go, without tidying up: the children go with the server, as in vLLM."""
    if message:
        say(message)
    sys.stdout.flush()
    os._exit(code)


def go_up(
    config: EngineConfig,
    knobs: Knobs,
    pids: dict[str, int],
    hooks: dict[str, Callable[[], None]],
    end: Callable[[], None],
) -> None:
    """Walk the phases. `hooks` run as their phase begins; `end` runs before a death asked for by a test."""
    pause_s = knobs.start_delay_s / len(PHASES)
    for phase, lines in PHASES.items():
        if phase in _TRANSFER_PHASES and config.role == "worker":
            continue
        if phase == knobs.die_at_phase:
            end()
            die(knobs.die_message or "", knobs.exit_code)
        if phase == knobs.hang_at_phase:
            hang()
        hooks.get(phase, lambda: None)()
        now, today = time.strftime("%m-%d %H:%M:%S"), time.strftime("%Y-%m-%d %H:%M:%S")
        for line in lines:
            say(
                line.format(
                    now=now, today=today, model=config.model, host=config.host, port=config.port,
                    length=f"{config.max_model_len:,}", **pids,
                )
            )  # fmt: skip
        time.sleep(pause_s)


def hang() -> NoReturn:
    """Wait for a signal, saying nothing."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        signal.pause()
