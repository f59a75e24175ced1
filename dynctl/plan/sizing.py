"""What a model weighs, from its configuration: parameters, bytes of weights, and how it can be split. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from dynctl.plan.kv import DTYPE_BYTES, kv_shape

Config = Mapping[str, object]

NOT_GATED = frozenset({"opt", "gpt2", "gpt_neox", "gptj", "falcon", "phi", "bloom", "mpt", "starcoder2", "gpt_bigcode"})
"""Models whose MLP has two matrices; all others have three (gate, up, down)."""

METHOD_BITS = {
    **{"fp8": 8.0, "fbgemm_fp8": 8.0, "FP8": 8.0, "W8A8_INT8": 8.0},
    # four bits and the scales of their blocks: one byte for 32 values (MXFP4) or for 16 (NVFP4)
    **{"mxfp4": 4.25, "MXFP4": 4.25, "NVFP4": 4.5},
}
SCALES = 1.06
"""What the scales and zero points of 4-bit weights (AWQ, GPTQ: one pair for 128 values) add."""


class ModelSize(msgspec.Struct, frozen=True, kw_only=True):
    """A model as a layout needs it. `kv_heads` 0: one latent vector for all heads (MLA), which every rank keeps.

    `kv_bytes_per_token` 0: not known (a hybrid). `source`: what the weights were learnt from. `blocks`: widths which
    block-wise quantisation forbids to split within a block, in blocks.
    """

    parameters: int
    weight_bytes: int
    kv_bytes_per_token: int
    heads: int
    kv_heads: int
    blocks: tuple[float, ...] = ()
    source: str = "config.json"

    def splits(self, tp: int) -> bool:
        """Whether the engine can split it over `tp` GPUs: whole heads for each, KV heads divided or copied evenly."""
        kv = self.kv_heads == 0 or self.kv_heads % tp == 0 or tp % self.kv_heads == 0
        return self.heads % tp == 0 and kv and (tp == 1 or all(blocks % tp == 0 for blocks in self.blocks))

    def copies_kv(self, tp: int) -> bool:
        """Whether ranks would keep copies of each other's KV heads."""
        return self.kv_heads > 0 and tp > self.kv_heads

    def kv_bytes_per_gpu(self, tp: int) -> float:
        """Bytes of one token's KV on each GPU of a worker; 0: not known."""
        return self.kv_bytes_per_token / (min(tp, self.kv_heads) or 1)


def model_size(config: Config, stored_bytes: int | None = None) -> ModelSize | None:
    """None where the configuration does not say. `stored_bytes`: what the checkpoint's index says its weights take."""
    text = config.get("text_config")
    shape: Config = text if isinstance(text, Mapping) else config
    linear, embedded = parameters(shape)
    heads = _number(shape, "num_attention_heads")
    if not (linear and embedded and heads):
        return None
    value_bytes = _value_bytes(config, shape)
    estimated = linear * _bits(config, value_bytes) / 8 + embedded * value_bytes
    kv = kv_shape(config, dtype=None, cache_dtype=None, block_tokens=16)
    return ModelSize(
        parameters=linear + embedded,
        weight_bytes=stored_bytes or round(estimated),
        kv_bytes_per_token=kv.bytes_per_token,
        heads=heads,
        kv_heads=0 if _number(shape, "kv_lora_rank") else _kv_heads(shape),
        blocks=tuple(_blocks(config, shape)),
        source="model.safetensors.index.json" if stored_bytes else "config.json",
    )


def parameters(shape: Config) -> tuple[int, int]:
    """Parameters of the layers and of the embeddings; (0, 0) where the configuration names no size."""
    width, layers, words = (_number(shape, key) for key in ("hidden_size", "num_hidden_layers", "vocab_size"))
    if not (width and layers and words and _number(shape, "num_attention_heads")):
        return 0, 0
    sparse = _sparse_layers(shape, layers)
    gates = 2 if str(shape.get("model_type")) in NOT_GATED else 3
    dense_mlp = gates * width * (_number(shape, "intermediate_size") or 4 * width)
    total = layers * (_attention(shape, width) + 2 * width) + width
    total += (layers - sparse) * dense_mlp + sparse * _expert_layer(shape, width)
    return total, words * width * (1 if shape.get("tie_word_embeddings") else 2)


def _attention(shape: Config, width: int) -> int:
    heads = _number(shape, "num_attention_heads")
    if latent := _number(shape, "kv_lora_rank"):
        rope, nope = _number(shape, "qk_rope_head_dim"), _number(shape, "qk_nope_head_dim")
        value = _number(shape, "v_head_dim")
        query_rank = _number(shape, "q_lora_rank")
        query = heads * (rope + nope)
        queries = query_rank * (width + query) if query_rank else width * query
        return queries + width * (latent + rope) + latent * heads * (nope + value) + heads * value * width
    size = _number(shape, "head_dim") or width // heads
    return width * size * (2 * heads + 2 * _kv_heads(shape))


def _kv_heads(shape: Config) -> int:
    return _number(shape, "num_key_value_heads") or _number(shape, "num_attention_heads")


def _experts(shape: Config) -> int:
    names = ("n_routed_experts", "num_local_experts", "num_experts")
    return next((count for name in names if (count := _number(shape, name)) > 1), 0)


def _expert_width(shape: Config) -> int:
    return _number(shape, "moe_intermediate_size") or _number(shape, "intermediate_size")


def _expert_layer(shape: Config, width: int) -> int:
    """Routed experts, the router, and the experts that every token passes."""
    experts, inner = _experts(shape), _expert_width(shape)
    shared = _number(shape, "n_shared_experts") * inner + _number(shape, "shared_expert_intermediate_size")
    return experts * 3 * width * inner + experts * width + 3 * width * shared


def _sparse_layers(shape: Config, layers: int) -> int:
    """How many layers have experts instead of one MLP."""
    if not _experts(shape):
        return 0
    only = shape.get("mlp_only_layers")
    dense = set(only) if isinstance(only, list) and all(isinstance(item, int) for item in only) else set()
    first = _number(shape, "first_k_dense_replace")
    step = _number(shape, "decoder_sparse_step") or 1
    return sum(layer >= first and layer not in dense and (layer + 1) % step == 0 for layer in range(min(layers, 4096)))


def _value_bytes(config: Config, shape: Config) -> int:
    declared = shape.get("dtype") or shape.get("torch_dtype") or config.get("dtype") or config.get("torch_dtype")
    size = DTYPE_BYTES.get(str(declared), 2)
    return min(size, 2)  # vLLM's `--dtype auto` serves float32 checkpoints in two bytes


def _bits(config: Config, value_bytes: int) -> float:
    """Bits of one weight of a linear layer, as far as `quantization_config` says; else those of the values."""
    quantization = config.get("quantization_config")
    if not isinstance(quantization, Mapping):
        return 8.0 * value_bytes
    for key in ("quant_algo", "quant_method"):
        if bits := METHOD_BITS.get(str(quantization.get(key))):
            return bits
    bits = float(_number(quantization, "bits") or _group_bits(quantization.get("config_groups")))
    if quantization.get("load_in_4bit") or quantization.get("_load_in_4bit"):
        bits = 4.0
    if not 0 < bits < 8.0 * value_bytes:
        return 8.0 * value_bytes
    return bits * SCALES if bits <= 4 else bits


def _group_bits(groups: object) -> int:
    """compressed-tensors: the widest group counts."""
    if not isinstance(groups, Mapping):
        return 0
    weights = [group.get("weights") for group in groups.values() if isinstance(group, Mapping)]
    return max((_number(item, "num_bits") for item in weights if isinstance(item, Mapping)), default=0)


def _blocks(config: Config, shape: Config) -> Iterator[float]:
    quantization = config.get("quantization_config")
    size = quantization.get("weight_block_size") if isinstance(quantization, Mapping) else None
    if isinstance(size, list) and size and isinstance(size[0], int) and size[0] > 0:
        if inner := _number(shape, "intermediate_size"):
            yield inner / size[0]
        if _experts(shape):
            yield _expert_width(shape) / size[0]


def _number(shape: Config, key: str) -> int:
    """At most 2**40: what a damaged file may say must not grow into numbers nobody can multiply."""
    value = shape.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 40 else 0
