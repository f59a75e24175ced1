"""The target's own tokenizer, asked by counting: exact for every word, in few questions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dynctl.bench.prompts import WORDS, counted

OVERHEAD = 3


@pytest.mark.parametrize(
    ("of_word", "most"),
    [
        (lambda _: 1, 4),
        (lambda word: 2 if word in {"mountain", "vowel", "thousand"} else 1, 30),
        (len, len(WORDS) + 40),  # byte by byte
    ],
)
def test_words_are_counted_exactly_in_few_questions(of_word: Callable[[str], int], most: int) -> None:
    asked: list[str] = []

    def count(text: str) -> int:
        asked.append(text)
        return OVERHEAD + sum(of_word(word) for word in text.split())

    found = counted(count)
    assert len(asked) <= most
    assert found is not None
    assert found.tokens == {word: of_word(word) for word in WORDS}
    assert found.overhead == OVERHEAD
    assert count(f" the{found.filler}") - count(" the") == 1


def test_a_model_that_is_too_short_for_all_words_is_asked_in_parts() -> None:
    def count(text: str) -> int | None:
        return len(text.split()) if len(text.split()) <= 32 else None

    found = counted(count)
    assert found is not None
    assert found.tokens == dict.fromkeys(WORDS, 1)


def test_what_counts_no_words_has_no_vocabulary() -> None:
    """Nothing that is said, the same whatever is asked, and no filler."""
    assert counted(lambda _: None) is None
    assert counted(lambda _: 7) is None
    assert counted(lambda text: 2 * len(text)) is None
