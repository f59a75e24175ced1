"""Makes the seeded tiny model: run by the engine's interpreter as `python tiny_model.py FOLDER`; needs no dynctl.

A Qwen3 of 4 layers with random weights and a byte-level BPE tokenizer trained on the text below: 11 MB, no download.
Its words mean nothing, but the same prompt gives the same tokens, and different prompts different ones. The weights
come from NumPy's seeded PCG64 stream and are written by hand, so that no version of torch or transformers matters.
"""

# The engine's packages are not installed where types are checked.
# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

SEED = 20_240_229
SPREAD = 0.2  # standard deviation: wide enough that the prompt, not the last token alone, decides what comes next
DAMPED = 0.01  # embeddings of tokens that should never be the likeliest
HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, HEAD_DIM, POSITIONS = 256, 512, 4, 4, 2, 64, 8192
END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = """
The harbour wakes before the town does. Lamps swing on the quay, ropes creak, and the first boats slide out past the
breakwater while the gulls quarrel over yesterday's bread. An old pilot counts them under his breath: seven today, one
fewer than last week. He writes the number in a blue notebook, adds the wind and the height of the tide, and closes it
with a rubber band. Nobody has asked him to keep this record for thirty years, and nobody would know how to stop him.

To bake a plain loaf, weigh five hundred grams of flour, ten of salt, three of dry yeast and three hundred and forty of
water. Stir until no dry flour is left, cover the bowl, and wait. Fold the dough four times in the first two hours. When
it has doubled, shape it, let it rest again, and bake it very hot in a closed pot: thirty minutes with the lid, fifteen
without. The crust should sing when it leaves the oven. Cutting it early is a mistake that everyone makes once.

A computer that answers many people at once is mostly a matter of queues. Work arrives unevenly; machines prefer it
even. So we place a waiting room before each machine, measure how long the visitors stay, and move the walls until
nobody waits for long. Reading a question is heavy work done in one breath, writing the answer is light work repeated
hundreds of times, and a machine that does both must keep changing its mind. Two kinds of machine, each with one task,
need only a fast corridor between them. If the corridor is slow, the whole building feels slow, whatever the rooms do.

"Is it true," asked the child, "that the moon follows us home?" Her grandmother thought about it. "It follows everyone,"
she said, "and that is why it looks so tired in the morning." They walked on between the wet hedges. A fox crossed the
lane, stopped, looked at both of them as if they had interrupted something, and went through a gap in the fence.

In 1854 a doctor drew a map of his city and put a small black bar on it for every death. The bars crowded around a
single pump. He asked that its handle be taken off; the outbreak, already fading, ended. People remember the pump, but
the map was the discovery: he had let the numbers stand where they belonged, and then anyone could see. Good measuring
is like that. It changes little in the world and everything in the argument.

Rules for the workshop. Put tools back warm side up. Never blow on the lathe. Label what you open, date what you close.
If two people lift, one of them speaks. Broken glass goes into the red box, not the grey box; oil goes into the drum
behind the door. The last one to leave checks the gas, the water, the windows and the cat. If the cat is missing, look
in the drawer marked north; if it is not there, go home: it has probably gone before you.

Some words for sorting: apple, anchor, autumn, basket, button, candle, cousin, desert, dozen, engine, evening, feather,
garden, hammer, island, jacket, kettle, ladder, marble, needle, orange, pepper, quarter, ribbon, silver, thunder,
umbrella, velvet, window, yellow, zebra. One two three four five six seven eight nine ten, 10 20 30 40 50 60 70 80 90
100 200 500 1000. Monday Tuesday Wednesday Thursday Friday Saturday Sunday; north, south, east, west, and back again.
"""


def tokenizer() -> Tokenizer:
    """A byte-level BPE, so that any input has tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    specials = [AddedToken(word, special=True) for word in (END, START, STOP)]
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(TEXT.splitlines(), trainer)
    return made


def weights(words: Tokenizer) -> dict[str, np.ndarray]:
    """Every tensor of a Qwen3ForCausalLM with tied embeddings, by the names that its checkpoints use."""
    stream = np.random.Generator(np.random.PCG64(SEED))

    def draw(*shape: int) -> np.ndarray:
        return stream.standard_normal(shape, dtype=np.float32) * np.float32(SPREAD)

    embeddings = draw(words.get_vocab_size(), HIDDEN)
    for token in range(words.get_vocab_size()):
        text = words.decode([token], skip_special_tokens=True)
        if not (text.isascii() and text.isprintable() and text):
            embeddings[token] *= DAMPED  # half characters and control codes would make a sample unreadable
    ones = {"hidden": np.ones(HIDDEN, np.float32), "head": np.ones(HEAD_DIM, np.float32)}
    tensors = {"model.embed_tokens.weight": embeddings, "model.norm.weight": ones["hidden"].copy()}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}.{name}.weight"] = ones["hidden"].copy()
        for name in ("q_norm", "k_norm"):
            tensors[f"{at}.self_attn.{name}.weight"] = ones["head"].copy()
        for name, rows, columns in (
            ("self_attn.q_proj", HEADS * HEAD_DIM, HIDDEN),
            ("self_attn.k_proj", KV_HEADS * HEAD_DIM, HIDDEN),
            ("self_attn.v_proj", KV_HEADS * HEAD_DIM, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HEADS * HEAD_DIM),
            ("mlp.gate_proj", INNER, HIDDEN),
            ("mlp.up_proj", INNER, HIDDEN),
            ("mlp.down_proj", HIDDEN, INNER),
        ):
            tensors[f"{at}.{name}.weight"] = draw(rows, columns)
    return tensors


def config(words: Tokenizer) -> dict[str, object]:
    """config.json of the model."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "dtype": "float32",
        "torch_dtype": "float32",
        "vocab_size": words.get_vocab_size(),
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": POSITIONS,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": words.token_to_id(STOP),
        "pad_token_id": words.token_to_id(END),
    }


def main(folder: Path) -> None:
    words = tokenizer()
    words.save(str(folder / "tokenizer.json"))
    save_file(weights(words), folder / "model.safetensors", metadata={"format": "pt"})
    documents = {
        "config.json": config(words),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": STOP,
            "pad_token": END,
            "model_max_length": POSITIONS,
            "chat_template": CHAT,
        },
        # Ids only: a default temperature here would make greedy requests sample.
        "generation_config.json": {"eos_token_id": words.token_to_id(STOP), "pad_token_id": words.token_to_id(END)},
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
