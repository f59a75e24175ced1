"""What one token's KV weighs, from a model's configuration."""

from __future__ import annotations

from collections.abc import Mapping

from dynctl.plan.values import KvShape

DTYPE_BYTES = {
    "float32": 4,
    "float": 4,
    "float16": 2,
    "half": 2,
    "bfloat16": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "fp8_inc": 1,
}

SPECIAL_KEYS = (
    # layers that differ, or keep a state instead of a KV cache
    *("sliding_window_pattern", "attn_layer_period", "attn_layer_indices", "attn_type_list", "layers_block_type"),
    *("hybrid_override_pattern", "full_attention_interval", "attention_chunk_size", "num_kv_shared_layers"),
    *("cross_attention_layers", "is_encoder_decoder", "mamba_d_state", "ssm_state_size"),
    # a second cache (sparse attention's index), and heads counted by other names
    *("index_topk", "multi_query", "num_kv_heads"),
)
SPECIAL_MODELS = frozenset({"gemma2"})
"""Hybrid models whose configuration does not show it."""


def kv_shape(
    config: Mapping[str, object], *, dtype: str | None, cache_dtype: str | None, block_tokens: int, tp: int = 1
) -> KvShape:
    """Bytes per token: 2 (K and V) * layers * KV heads * head size * bytes per value; MLA keeps one latent vector.

    `tp`: ranks of the decode worker; where they outnumber the KV heads, and with MLA, each keeps a copy, all of which
    are handed over. A hybrid or otherwise unknown layout gives 0 bytes: then only "bytes moved" is checked.
    """
    text = config.get("text_config")
    shape = text if isinstance(text, Mapping) else config
    layers, heads = _number(shape, "num_hidden_layers"), _number(shape, "num_attention_heads")
    size = DTYPE_BYTES.get(_value_type(config, shape, dtype, cache_dtype), 0)
    if not (layers and heads and size) or _is_hybrid(shape):
        return KvShape(block_tokens=block_tokens)
    if latent := _number(shape, "kv_lora_rank"):
        per_layer = tp * (latent + _number(shape, "qk_rope_head_dim"))
    else:
        head_size = _number(shape, "head_dim") or _number(shape, "hidden_size") // heads
        per_layer = 2 * max(tp, _number(shape, "num_key_value_heads") or heads) * head_size
    return KvShape(bytes_per_token=layers * per_layer * size, block_tokens=block_tokens)


def _value_type(
    config: Mapping[str, object], shape: Mapping[str, object], dtype: str | None, cache_dtype: str | None
) -> str:
    for name in (cache_dtype, dtype):
        if name and name != "auto":
            return name
    quantization = config.get("quantization_config")
    if isinstance(quantization, Mapping) and any(map(quantization.get, ("kv_cache_scheme", "kv_cache_quant_algo"))):
        return "as the checkpoint says"
    declared = shape.get("dtype") or shape.get("torch_dtype") or config.get("dtype") or config.get("torch_dtype")
    # vLLM's `--dtype auto` serves float32 checkpoints as bfloat16 or float16: both take two bytes
    return "bfloat16" if declared == "float32" else str(declared or "")


def _is_hybrid(shape: Mapping[str, object]) -> bool:
    kinds = shape.get("layer_types")
    mixed = isinstance(kinds, list) and len(set(map(str, kinds))) > 1
    special = any(map(shape.get, SPECIAL_KEYS)) or str(shape.get("model_type")) in SPECIAL_MODELS
    return mixed or special or bool(shape.get("sliding_window") and shape.get("use_sliding_window"))


def _number(shape: Mapping[str, object], key: str) -> int:
    value = shape.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
