"""Prompts for proofs: plain words, never the same twice, so that no cache can serve them."""

from __future__ import annotations

from random import Random

WORDS = (
    "river",
    "stone",
    "lantern",
    "harbour",
    "copper",
    "willow",
    "engine",
    "marble",
    "thunder",
    "velvet",
    "orchard",
    "signal",
    "canyon",
    "ember",
    "falcon",
    "glacier",
    "meadow",
    "needle",
    "ocean",
    "pepper",
    "quarry",
    "ribbon",
    "saddle",
    "timber",
    "umbrella",
    "valley",
    "window",
    "yellow",
    "anchor",
    "bridge",
    "candle",
    "desert",
)


def prompt(seed: str, words: int) -> str:
    """`words` words drawn by `seed`; at least as many tokens, whatever the tokenizer."""
    draw = Random(seed)  # noqa: S311 - not for security
    return " ".join(draw.choice(WORDS) for _ in range(words))


def same_length_prompts(seed: str, words: int, count: int) -> list[str]:
    """`count` prompts of the same words in different orders: as many KV blocks each, tokens that differ throughout."""
    drawn = prompt(seed, words).split()
    return [" ".join(Random(f"{seed}-{at}").sample(drawn, len(drawn))) for at in range(count)]  # noqa: S311
