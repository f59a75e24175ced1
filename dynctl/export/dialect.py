"""How each of Dynamo's engine modules spells what a topology says, in Dynamo 1.6 (reference in docs/export.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import msgspec

from dynctl.engines.base import EngineAdapter, flag_name
from dynctl.engines.registry import ADAPTERS

FRONTEND_MODULE = "dynamo.frontend"
MODE_FLAG = "disaggregation-mode"
KV_TRANSFER_FLAG = "kv-transfer-config"
KV_EVENTS_FLAG = "kv-events-config"
ROUTER_FLAG, ROUTER_VARIABLE = "router-mode", "DYN_ROUTER_MODE"
ROUTER_MODES: dict[str, str] = {
    "least-loaded": "least-loaded",
    "power-of-two": "power-of-two",
    "random": "random",
    "direct": "direct",
    "device-aware-weighted": "device-aware-weighted",
    "cache-aware": "kv",
    "kv-aware": "kv",
    "kv": "kv",
}
"""Dynamo's `--router-mode` by the topology's word, its own word last; round-robin is its default."""
MIGRATION_FLAG = "migration-limit"
PORT_FLAG, PORT_VARIABLE = "http-port", "DYN_HTTP_PORT"
HTTP_PORT = 8000
"""Where the operator expects a frontend."""
DERIVED = (MODE_FLAG, KV_TRANSFER_FLAG, KV_EVENTS_FLAG, "is-prefill-worker", "is-decode-worker")
OLD_MODES: Mapping[str, str] = {"is-prefill-worker": "prefill", "is-decode-worker": "decode"}
"""Before `--disaggregation-mode`."""

CONNECTORS: Mapping[str, str] = {"pull": "NixlConnector", "push": "NixlPushConnector"}
KV_ROLES: Mapping[str, str] = {"prefill": "kv_producer", "decode": "kv_consumer"}
KV_EVENTS = json.dumps(
    {"publisher": "zmq", "topic": "kv-events", "endpoint": "tcp://*:20080", "enable_kv_cache_events": True}
)
"""Each pod has a network of its own, so that one port serves all."""


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """One module: the first spelling of a flag is written, all are read. `fixed`: what disaggregation needs."""

    engine: str
    framework: str | None
    module: str
    model: tuple[str, ...]
    served: str
    sizes: dict[str, tuple[str, ...]]
    fixed: dict[str, str] = {}


DIALECTS: tuple[Dialect, ...] = (
    Dialect(
        engine="dynamo-vllm",
        framework="vllm",
        module="dynamo.vllm",
        model=("model",),
        served="served-model-name",
        sizes={
            "tp": ("tensor-parallel-size", "tp"),
            "pp": ("pipeline-parallel-size", "pp"),
            "dp": ("data-parallel-size", "dp"),
        },
    ),
    Dialect(
        engine="dynamo-sglang",
        framework="sglang",
        module="dynamo.sglang",
        model=("model-path", "model"),
        served="served-model-name",
        sizes={
            "tp": ("tp-size", "tp", "tensor-parallel-size"),
            "pp": ("pp-size", "pipeline-parallel-size"),
            "dp": ("dp-size", "dp", "data-parallel-size"),
        },
        fixed={"disaggregation-transfer-backend": "nixl"},
    ),
    Dialect(
        engine="dynamo-trtllm",
        framework="trtllm",
        module="dynamo.trtllm",
        model=("model-path", "model"),
        served="served-model-name",
        sizes={"tp": ("tensor-parallel-size",), "pp": ("pipeline-parallel-size",)},
    ),
    Dialect(
        engine="dynamo-mocker",
        framework=None,
        module="dynamo.mocker",
        model=("model-path",),
        served="model-name",
        sizes={},
    ),
)


def adapter_of(speech: Dialect) -> EngineAdapter | None:
    """Who knows which of the engine's flags are dynctl's: Dynamo's own adapter, or that of the engine it wraps."""
    return ADAPTERS.get(speech.engine) or (ADAPTERS["vllm"] if speech.framework == "vllm" else None)


def of_engine(engine: str) -> Dialect:
    """The dialect for a topology's `engine`; a plain engine is run by Dynamo's worker for it."""
    return next(one for one in DIALECTS if one.engine.removeprefix("dynamo-") == engine.removeprefix("dynamo-"))


def flags(args: Mapping[str, object]) -> Iterator[str]:
    """A topology's `args` as words of a command line, in the same manner as dynctl starts engines."""
    for key, value in args.items():
        flag = flag_name(key)
        if value is None or value is True:
            yield f"--{flag}"
        elif value is False:
            yield f"--no-{flag}"
        else:
            text = json.dumps(value) if isinstance(value, (dict, list)) else str(value)
            yield from (f"--{flag}={text}",) if text.startswith("-") else (f"--{flag}", text)
