"""What models weigh: configurations as published, beside the parameter counts as published."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynctl.plan.sizing import model_size


def dense(
    width: int, inner: int, layers: int, heads: int, kv: int, words: int, *, head: int = 128, **more: Any
) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": words,
        "head_dim": head,
        "torch_dtype": "bfloat16",
        **more,
    }


QWEN3_06B = dense(1024, 3072, 28, 16, 8, 151936, tie_word_embeddings=True, model_type="qwen3")
QWEN3_8B = dense(4096, 12288, 36, 32, 8, 151936, model_type="qwen3")
QWEN3_32B = dense(5120, 25600, 64, 64, 8, 151936, model_type="qwen3")
LLAMA_8B = dense(4096, 14336, 32, 32, 8, 128256, model_type="llama")
LLAMA_70B = dense(8192, 28672, 80, 64, 8, 128256, model_type="llama")
MIXTRAL = dense(4096, 14336, 32, 32, 8, 32000, model_type="mixtral", num_local_experts=8, num_experts_per_tok=2)
QWEN3_MOE: dict[str, Any] = dense(
    *(2048, 6144, 48, 32, 4, 151936),
    model_type="qwen3_moe",
    num_experts=128,
    moe_intermediate_size=768,
    decoder_sparse_step=1,
    mlp_only_layers=[],
)
DEEPSEEK_V3: dict[str, Any] = {
    **dense(7168, 18432, 61, 128, 128, 129280, model_type="deepseek_v3"),
    "head_dim": None,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "moe_intermediate_size": 2048,
    "first_k_dense_replace": 3,
    "moe_layer_freq": 1,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
}
FP8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}


@pytest.mark.parametrize(
    ("config", "published"),
    [
        pytest.param(QWEN3_06B, 596_049_920, id="Qwen3-0.6B"),
        pytest.param(QWEN3_8B, 8_190_735_360, id="Qwen3-8B"),
        pytest.param(QWEN3_32B, 32_762_123_264, id="Qwen3-32B"),
        pytest.param(LLAMA_8B, 8_030_261_248, id="Llama-3.1-8B"),
        pytest.param(LLAMA_70B, 70_553_706_496, id="Llama-3.1-70B"),
        pytest.param(MIXTRAL, 46_702_792_704, id="Mixtral-8x7B"),
        pytest.param(QWEN3_MOE, 30_532_122_624, id="Qwen3-30B-A3B"),
        pytest.param(DEEPSEEK_V3, 671_026_419_200, id="DeepSeek-V3"),
    ],
)
def test_parameters_as_published(config: dict[str, Any], published: int) -> None:
    size = model_size(config)
    assert size is not None
    assert size.parameters == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize(
    ("quantization", "bytes_per_linear_weight"),
    [
        (None, 2),
        ({"quant_method": "fp8"}, 1),
        ({"quant_method": "awq", "bits": 4}, 0.53),
        ({"quant_method": "gptq", "bits": 8}, 1),
        ({"quant_method": "mxfp4"}, 0.53125),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 0.5625),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 8}}}}, 1),
        ({"quant_method": "something new"}, 2),
    ],
)
def test_quantised_weights(quantization: object, bytes_per_linear_weight: float) -> None:
    size = model_size({**LLAMA_8B, "quantization_config": quantization})
    embeddings = 2 * 128256 * 4096
    assert size is not None
    assert size.weight_bytes == round((size.parameters - embeddings) * bytes_per_linear_weight + 2 * embeddings)


def test_what_the_checkpoint_says_comes_before_the_estimate() -> None:
    size = model_size(QWEN3_8B, 16_381_516_800)
    assert size is not None
    assert (size.weight_bytes, size.source) == (16_381_516_800, "model.safetensors.index.json")


def test_float32_is_served_in_two_bytes() -> None:
    assert model_size({**QWEN3_8B, "torch_dtype": "float32"}) == model_size(QWEN3_8B)


def test_a_multimodal_model_is_sized_by_its_text_part() -> None:
    assert model_size({"text_config": QWEN3_8B, "vision_config": {"hidden_size": 1152}}) == model_size(QWEN3_8B)


@pytest.mark.parametrize(
    ("config", "tps"),
    [
        (LLAMA_70B, (1, 2, 4, 8, 16)),
        ({**QWEN3_32B, **FP8}, (1, 2, 4, 8)),
        (dense(896, 4864, 24, 14, 2, 151936, head=64), (1, 2)),  # Qwen2.5-0.5B: 14 heads
        ({**QWEN3_MOE, **FP8}, (1, 2)),  # 768 wide experts: four ranks would cut a block of 128 weights
        (DEEPSEEK_V3, (1, 2, 4, 8, 16)),
    ],
)
def test_how_it_can_be_split(config: dict[str, Any], tps: tuple[int, ...]) -> None:
    size = model_size(config)
    assert size is not None
    assert tuple(tp for tp in (1, 2, 4, 8, 16) if size.splits(tp)) == tps


def test_kv_on_each_gpu() -> None:
    llama, deepseek = model_size(LLAMA_70B), model_size(DEEPSEEK_V3)
    assert llama is not None
    assert deepseek is not None
    assert llama.kv_bytes_per_gpu(1) == 327_680
    assert llama.kv_bytes_per_gpu(8) == llama.kv_bytes_per_gpu(16) == 40_960  # from there on ranks keep copies
    assert deepseek.kv_bytes_per_gpu(8) == deepseek.kv_bytes_per_gpu(1) == 61 * 576 * 2


@pytest.mark.parametrize("config", [{}, {"hidden_size": 10}, {"hidden_size": "4096"}, {"text_config": 7}])
def test_a_configuration_that_does_not_say(config: dict[str, Any]) -> None:
    assert model_size(config) is None


KEYS = (*DEEPSEEK_V3, "mlp_only_layers", "decoder_sparse_step")
ODD = (None, True, -1, 0, 1, 3, 10**30, 0.5, "x", [], [0], [[]], ["x"], {}, {"bits": "x"}, {"config_groups": {"a": 1}})


@given(st.dictionaries(st.sampled_from(KEYS), st.sampled_from(ODD), max_size=6))
def test_no_configuration_breaks_it(damage: dict[str, object]) -> None:
    for config in (damage, {**DEEPSEEK_V3, **damage}, {**QWEN3_MOE, **damage}):
        size = model_size(config)
        assert size is None or size.weight_bytes > 0
