"""What the fake engine was started with: its flags (vLLM's names) and the model's shape."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import msgspec

_DTYPE_BYTES = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2, "fp8": 1}
_ROLES = {"kv_producer": "prefill", "kv_consumer": "decode", "kv_both": "both"}


class ModelMissingError(Exception):
    """`--model` is not a directory with a config.json; hub ids are not fetched here."""


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Flags and model facts. `role` is prefill, decode, both or worker (no KV transfer)."""

    model: str
    served_names: tuple[str, ...]
    host: str
    port: int
    block_size: int
    max_model_len: int
    vocab_size: int
    kv_bytes_per_token: int
    role: str
    push: bool
    lease_s: float
    api_key: str | None
    guarded: bool
    side_host: str
    side_port: int
    cpu: bool
    nnodes: int = 1
    node_rank: int = 0
    master_addr: str = "127.0.0.1"
    master_port: int = 29501


def parse(argv: list[str]) -> EngineConfig:
    """Flags not known here are accepted, as the fake engine has no use for most of vLLM's."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--kv-transfer-config", type=json.loads, default=None)
    parser.add_argument("--block-size", type=int, default=128)
    parser.add_argument("--max-model-len", type=int, default=None)
    parser.add_argument("--kv-cache-dtype", default="auto")
    parser.add_argument("--middleware", action="append", default=[])
    parser.add_argument("--api-key", default=os.environ.get("VLLM_API_KEY"))
    parser.add_argument("--nnodes", type=int, default=1)
    parser.add_argument("--node-rank", type=int, default=0)
    parser.add_argument("--master-addr", default="127.0.0.1")
    parser.add_argument("--master-port", type=int, default=29501)
    flags, _ = parser.parse_known_args(argv)
    model = _model_config(flags.model)
    transfer: dict[str, Any] = flags.kv_transfer_config or {}
    extra = transfer.get("kv_connector_extra_config") or {}
    longest = int(model.get("max_position_embeddings", 8192))
    return EngineConfig(
        model=flags.model,
        served_names=tuple(flags.served_model_name or [flags.model]),
        host=flags.host,
        port=flags.port,
        block_size=flags.block_size,
        max_model_len=flags.max_model_len or longest,
        vocab_size=int(model.get("vocab_size", 1024)),
        kv_bytes_per_token=_kv_bytes_per_token(model, flags.dtype, flags.kv_cache_dtype),
        role=_ROLES[transfer["kv_role"]] if transfer else "worker",
        push=transfer.get("kv_connector") == "NixlPushConnector",
        lease_s=float(extra.get("kv_lease_duration", 30)),
        api_key=flags.api_key,
        guarded="dynctl_guard.RequireKey" in flags.middleware,
        side_host=os.environ.get("VLLM_NIXL_SIDE_CHANNEL_HOST", "localhost"),
        side_port=int(os.environ.get("VLLM_NIXL_SIDE_CHANNEL_PORT", "5600")),
        cpu=not os.environ.get("CUDA_VISIBLE_DEVICES"),
        nnodes=flags.nnodes,
        node_rank=flags.node_rank,
        master_addr=flags.master_addr,
        master_port=flags.master_port,
    )


def _model_config(model: str) -> dict[str, Any]:
    path = Path(model) / "config.json"
    if not path.is_file():
        raise ModelMissingError(model)
    config: dict[str, Any] = json.loads(path.read_text())
    return config


def _kv_bytes_per_token(model: dict[str, Any], dtype: str, cache_dtype: str) -> int:
    """Bytes of keys and values that one token leaves in all layers."""
    heads = int(model.get("num_attention_heads", 1))
    head_dim = int(model.get("head_dim") or int(model.get("hidden_size", 64)) // heads)
    kv_heads = int(model.get("num_key_value_heads", heads))
    stored = str(model.get("dtype") or model.get("torch_dtype") or "bfloat16")
    name = stored if dtype == "auto" else dtype
    width = 1 if cache_dtype.startswith("fp8") else _DTYPE_BYTES[name]
    return 2 * int(model["num_hidden_layers"]) * kv_heads * head_dim * width
