"""A model directory that is enough for the fake engine: a configuration and a stub tokenizer, no weights."""

from __future__ import annotations

import json
from pathlib import Path

LAYERS, KV_HEADS, HEAD_DIM, DTYPE_BYTES = 4, 2, 64, 4
KV_BYTES_PER_TOKEN = 2 * LAYERS * KV_HEADS * HEAD_DIM * DTYPE_BYTES

_CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "dtype": "float32",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "vocab_size": 1024,
}


def make_fake_model(directory: Path) -> Path:
    """Write `config.json` and `tokenizer.json` into `directory` (made if missing) and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(_CONFIG, indent=2) + "\n")
    (directory / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": {"type": "stub"}}) + "\n")
    return directory
