"""What a token's KV weighs, for configurations as the models' owners publish them; numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynctl.plan.kv import kv_shape
from dynctl.plan.values import KvShape
from tests.unit.plan.machines import TINY_CONFIG

QWEN3_32B = {
    "model_type": "qwen3", "hidden_size": 5120, "num_hidden_layers": 64, "num_attention_heads": 64,
    "num_key_value_heads": 8, "head_dim": 128, "sliding_window": None, "use_sliding_window": False,
    "max_window_layers": 64, "torch_dtype": "bfloat16",
}  # fmt: skip
LLAMA3_8B = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "torch_dtype": "bfloat16",
}  # fmt: skip
LLAMA_7B = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "torch_dtype": "float16",
}  # fmt: skip
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128,
    "num_key_value_heads": 128, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128,
    "v_head_dim": 128, "torch_dtype": "bfloat16",
}  # fmt: skip
QWEN2_5_VL = {"model_type": "qwen2_5_vl", "text_config": {**LLAMA3_8B, "torch_dtype": None}, "torch_dtype": "bfloat16"}
GPT_OSS = {
    "model_type": "gpt_oss", "hidden_size": 2880, "num_hidden_layers": 24, "num_attention_heads": 64,
    "num_key_value_heads": 8, "head_dim": 64, "sliding_window": 128, "torch_dtype": "bfloat16",
    "layer_types": ["sliding_attention", "full_attention"] * 12,
}  # fmt: skip
GEMMA3 = {
    "model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 1024, "sliding_window_pattern": 6,
    "torch_dtype": "bfloat16",
}  # fmt: skip
GEMMA2 = {**GEMMA3, "model_type": "gemma2", "sliding_window_pattern": None}
JAMBA = {**LLAMA3_8B, "model_type": "jamba", "attn_layer_period": 8, "attn_layer_offset": 4, "mamba_d_state": 16}
NEMOTRON_H = {**LLAMA3_8B, "model_type": "nemotron_h", "hybrid_override_pattern": "M-M*-M-"}
QWEN3_NEXT = {**QWEN3_32B, "model_type": "qwen3_next", "full_attention_interval": 4, "linear_num_value_heads": 32}
LLAMA4 = {"model_type": "llama4", "text_config": {**LLAMA3_8B, "attention_chunk_size": 8192}}
FALCON = {
    "model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71,
    "multi_query": True, "torch_dtype": "bfloat16",
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_layer": 12}
T5 = {**LLAMA3_8B, "is_encoder_decoder": True}
DEEPSEEK_V32 = {**DEEPSEEK_V3, "model_type": "deepseek_v32", "index_topk": 2048}


def weight(config: dict[str, Any], dtype: str | None = None, cache: str | None = None, tp: int = 1) -> int:
    return kv_shape(config, dtype=dtype, cache_dtype=cache, block_tokens=16, tp=tp).bytes_per_token


@pytest.mark.parametrize(("config", "dtype", "cache", "expected"), [
    (QWEN3_32B, None, None, 262_144),  # 2 * 64 layers * 8 heads * 128 * 2 bytes
    (QWEN3_32B, None, "fp8", 131_072),
    (QWEN3_32B, None, "auto", 262_144),
    (QWEN3_32B, "float32", None, 524_288),
    (LLAMA3_8B, None, None, 131_072),  # 2 * 32 * 8 * (4096 / 32) * 2
    (LLAMA_7B, None, None, 524_288),  # no grouped queries: 2 * 32 * 32 * 128 * 2
    (DEEPSEEK_V3, None, None, 70_272),  # 61 * (512 + 64) * 2
    (QWEN2_5_VL, None, None, 131_072),  # the text part's layers
    (TINY_CONFIG, "float32", None, 4_096),  # 2 * 4 * 2 * 64 * 4
    (TINY_CONFIG, None, None, 2_048),  # vLLM serves float32 checkpoints in two bytes unless told otherwise
    ({**LLAMA3_8B, "layer_types": ["full_attention"] * 32}, None, None, 131_072),
])  # fmt: skip
def test_known_layouts(config: dict[str, Any], dtype: str | None, cache: str | None, expected: int) -> None:
    assert weight(config, dtype, cache) == expected


@pytest.mark.parametrize(
    "config", [GPT_OSS, GEMMA3, GEMMA2, JAMBA, NEMOTRON_H, QWEN3_NEXT, LLAMA4, FALCON, GPT2, T5, DEEPSEEK_V32],
    ids=lambda config: str(config["model_type"]),
)  # fmt: skip
def test_layouts_that_are_not_plain_are_left_open(config: dict[str, Any]) -> None:
    assert weight(config) == 0


def test_a_checkpoint_that_brings_its_own_cache_dtype_is_left_open() -> None:
    scaled = {**LLAMA3_8B, "quantization_config": {"quant_method": "compressed-tensors", "kv_cache_scheme": {"a": 8}}}
    modelopt = {**LLAMA3_8B, "quantization_config": {"quant_method": "modelopt", "kv_cache_quant_algo": "FP8"}}
    plain = {**LLAMA3_8B, "quantization_config": {"quant_method": "fp8", "kv_cache_scheme": None}}
    assert (weight(scaled), weight(modelopt), weight(plain)) == (0, 0, 131_072)
    assert weight(scaled, cache="fp8") == 65_536


@pytest.mark.parametrize(("config", "tp", "expected"), [
    (LLAMA3_8B, 8, 131_072),
    (LLAMA3_8B, 16, 262_144),  # eight heads on sixteen ranks: each is there twice
    (DEEPSEEK_V3, 4, 281_088),  # every rank keeps the whole latent vector
])  # fmt: skip
def test_ranks_that_keep_copies_count(config: dict[str, Any], tp: int, expected: int) -> None:
    assert weight(config, tp=tp) == expected


@pytest.mark.parametrize("config", [
    {}, {"num_hidden_layers": "many"}, {**LLAMA3_8B, "num_hidden_layers": True}, {**LLAMA3_8B, "torch_dtype": None},
    {**LLAMA3_8B, "torch_dtype": "int4"}, {**LLAMA3_8B, "num_hidden_layers": -1}, {**LLAMA3_8B, "text_config": {}},
])  # fmt: skip
def test_odd_configurations_are_left_open(config: dict[str, Any]) -> None:
    assert weight(config) == 0


VALUES = st.one_of(st.none(), st.booleans(), st.integers(-5, 500), st.text(max_size=4), st.lists(st.integers()))


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.sampled_from([*QWEN3_32B, *DEEPSEEK_V3, "text_config", "layer_types"]), VALUES))
def test_no_configuration_breaks_it(config: dict[str, Any]) -> None:
    assert weight(config) >= 0


@pytest.mark.parametrize(("tokens", "expected"), [(0, 0), (1, 6400), (64, 6400), (65, 12800), (640, 64000)])
def test_whole_blocks_move(tokens: int, expected: int) -> None:
    assert KvShape(bytes_per_token=100, block_tokens=64).transfer_bytes(tokens) == expected


@pytest.mark.parametrize("shape", [KvShape(), KvShape(bytes_per_token=8), KvShape(block_tokens=16)])
def test_an_unknown_shape_expects_nothing(shape: KvShape) -> None:
    assert shape.transfer_bytes(1000) == 0
