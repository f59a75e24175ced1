"""vLLM's own log lines against the phases they open and the deaths they explain."""

from __future__ import annotations

import re

import pytest

from dynctl.engines.vllm_log import CAUSES, PHASES

STAMP = "(EngineCore pid=8160) INFO 11-23 17:04:56 [core.py:93] "

START = [
    ("Initializing a V1 LLM engine (v0.32.0) with config: model='/m', speculative_config=None", "initializing engine"),
    ("Starting to load model /m...", "loading weights"),
    ("Loading weights took 12.31 seconds", "preparing engine"),
    ("Model loading took 15.2 GiB and 13.1 seconds", "preparing engine"),
    ("torch.compile took 31.4 s in total", "compiling"),
    ("Available KV cache memory: 52.1 GiB", "allocating KV cache"),
    ("GPU KV cache size: 424,528 tokens", "allocating KV cache"),
    ("CPU KV cache size: 131,072 tokens", "allocating KV cache"),
    ("Graph capturing finished in 4 secs, took 0.61 GiB", "capturing graphs"),
    ("Registering KV_Caches. use_mla: False, kv_buffer_device: cpu", "registering KV cache"),
    ("init engine (profile, create kv cache, warmup model) took 8.42 seconds", "starting server"),
    ("Starting vLLM server on http://127.0.0.1:28200", "serving"),
]


def phase_of(line: str) -> str | None:
    return next((phase for pattern, phase in PHASES if re.search(pattern, line)), None)


@pytest.mark.parametrize(("line", "phase"), START)
def test_phases(line: str, phase: str) -> None:
    assert phase_of(STAMP + line) == phase


def test_each_phase_is_reached_by_some_line() -> None:
    assert {phase for _, phase in PHASES} == {phase for _, phase in START}


@pytest.mark.parametrize("line", [
    "NIXL is available", "Backend UCX was instantiated", "NIXL compatibility check passed (hash: 30d2)",
    "Transfer plan: ...", "KV Transfer metrics: Num successful transfers=1", "Asynchronous scheduling is enabled.",
])  # fmt: skip
def test_good_news_is_neither_phase_nor_cause(line: str) -> None:
    assert phase_of(line) is None
    assert cause_of(line) is None


def cause_of(line: str) -> str | None:
    return next((cause for pattern, cause, _ in CAUSES if re.search(pattern, line)), None)


@pytest.mark.parametrize(("line", "cause"), [
    ("OSError: [Errno 98] Address already in use", "a port it needs is in use"),
    ("zmq.error.ZMQError: Address already in use (addr='tcp://127.0.0.1:5600')", "a port it needs is in use"),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out of memory"),
    ("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", "out of memory"),
    ("ValueError: Free memory on device (10.1/79.2 GiB) on startup is less than desired GPU memory utilization",
     "out of memory"),
    ("RuntimeError: [enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried",
     "out of memory"),
    ("NIXL compatibility hash mismatch. Local: 1a, Remote: 2b.",
     "prefill and decode disagree (NIXL compatibility hash mismatch)"),
    ("RuntimeError: NIXL is not available", "the engine's interpreter has no usable NIXL"),
    ("ModuleNotFoundError: No module named 'nixl'", "the engine's interpreter has no usable NIXL"),
    ("UCX  ERROR   no usable transports/devices (asked rc on network:mlx5_0:1)",
     "UCX has no usable transport with these settings"),
    ("OSError: Qwen/Nope is not a local folder and is not a valid model identifier listed on 'https://hf.co/models'",
     "the model was not found"),
    ("huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error.", "the model was not found"),
    ("api_server.py: error: unrecognized arguments: --max-modle-len 10", "the engine refused a flag"),
    ("api_server.py: error: argument --dtype: invalid choice: 'int3'", "the engine refused a flag"),
])  # fmt: skip
def test_causes(line: str, cause: str) -> None:
    assert cause_of(line) == cause


def test_every_cause_says_what_to_do() -> None:
    assert all(fix for _, _, fix in CAUSES)


def test_patterns_are_not_slow_on_long_lines() -> None:
    line = "x " * 40_000
    assert (phase_of(line), cause_of(line)) == (None, None)
