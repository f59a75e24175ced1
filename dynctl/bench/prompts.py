"""Prompts of an exact number of tokens, made of plain words by a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

import msgspec

_TEXT = """
about after again always around because before between body both bring build call carry change city clear close
come country course cover cross cut day deep door down draw early earth east even every face family far farm fast
father feel few field find fire first fish floor flow follow food foot form four free friend front full game girl
give gold good great green ground grow half hand hard head hear heat help high hold home hot hour house hundred
idea island keep kind king land large last late laugh lead learn leave left letter life light line list little live
long look love low machine main make many map mark measure men might mile mind money moon morning mother mountain
move music name near need never new next night north note nothing notice number object often old once open order
other over own page paper part pass pattern people person picture piece place plain plan plant play point port pose
possible pound power press problem product pull put question quick rain reach read ready real red rest right river
road rock room round rule run same say school science sea second see sentence serve set seven several shape she
ship short show side simple sing six sleep slow small snow some song soon sound south special spell stand star
start state stay step still stop story street strong study such sun sure table take talk teach tell ten test thing
think thought thousand three through time together top town travel tree true turn two under unit use usual voice
vowel wait walk want war warm watch water way week weight well west wheel where which white whole wind with wonder
wood word work world write year young
"""
WORDS = tuple(_TEXT.split())
FILLER = (" a", " x", " 1", " .", " s", " 0", "a", ".")
"""Tried, in this order, for the token that fills a prompt up: those without a space are for byte-level tokenizers."""
NONCE_WORDS = 4


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """How many tokens each word has after a space, as the engine's own tokenizer says; `filler` has exactly one
    where it is appended.

    `overhead`: tokens that the engine adds to every prompt (a begin-of-sequence token, a chat template).
    """

    tokens: Mapping[str, int]
    filler: str
    overhead: int = 0

    def text(self, random: Random, tokens: int) -> str:
        """Words of `tokens` tokens together, each after a space."""
        pieces: list[str] = []
        names = list(self.tokens)
        left = tokens
        while left > 0:
            word = random.choice(names)
            fits = self.tokens[word] <= left
            pieces.append(f" {word}" if fits else self.filler)
            left -= self.tokens[word] if fits else 1
        return "".join(pieces)


def guessed_vocabulary() -> Vocabulary:
    """For targets that don't count tokens: a token per word, which most large vocabularies have."""
    return Vocabulary(tokens=dict.fromkeys(WORDS, 1), filler=FILLER[0])


def counted(count: Callable[[str], int | None]) -> Vocabulary | None:
    """The vocabulary of a tokenizer by how many tokens it counts in a text; None where it does not say.

    Words are counted after a space and after another word, whose own count is taken off.
    """
    base, twice = count(" the"), count(" the the")
    if base is None or twice is None:
        return None

    def together(words: Sequence[str]) -> int | None:
        found = count(f" the {' '.join(words)}")
        return None if found is None else found - base

    tokens = _each(WORDS, together(WORDS), together)
    candidates = (*FILLER, *(f" {word}" for word in tokens))
    filler = next((piece for piece in candidates if (count(f" the{piece}") or 0) - base == 1), None)
    if filler is None or not tokens:
        return None
    return Vocabulary(tokens=tokens, filler=filler, overhead=base - (twice - base))


def _each(words: Sequence[str], total: int | None, together: Callable[[Sequence[str]], int | None]) -> dict[str, int]:
    """Tokens of each word, of which there are `total` together. As many as words: one each. Else they are halved, and
    the second half has what the first leaves. Words that can't be counted are left out."""
    if total is not None and total < len(words):
        return {}
    if total is not None and len(words) in (1, total):
        return dict.fromkeys(words, total // len(words))
    if len(words) == 1:
        return {}
    first, second = words[: len(words) // 2], words[len(words) // 2 :]
    part = together(first)
    rest = together(second) if part is None or total is None else total - part
    return _each(first, part, together) | _each(second, rest, together)


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """Text of a request, and how many tokens the engine should count in it."""

    text: str
    tokens: int


class Prompts:
    """Prompts of one round. The same seed and nonce give the same prompts; another nonce shares no prefix with them."""

    def __init__(
        self, vocabulary: Vocabulary, seed: int, nonce: str, prefix_tokens: int = 0, prefixes: int = 1
    ) -> None:
        self._vocabulary = vocabulary
        self._seed = seed
        self._nonce = nonce
        pools = max(1, prefixes) if prefix_tokens else 0
        self._prefixes: Sequence[str] = [
            self._begin(f"prefix-{at}", prefix_tokens, fresh=f"{nonce}-{at}") for at in range(pools)
        ]
        self._prefix_tokens = prefix_tokens if pools else 0

    def make(self, number: int, tokens: int) -> Prompt:
        """Prompt `number`, of `tokens` tokens with what the engine adds; at least one token is its own."""
        wanted = max(tokens - self._vocabulary.overhead, 1)
        if self._prefixes and wanted > self._prefix_tokens:
            rest = self._random(f"rest-{number}")
            prefix = self._prefixes[number % len(self._prefixes)]
            text = prefix + self._vocabulary.text(rest, wanted - self._prefix_tokens)
        else:
            text = self._begin(f"prompt-{number}", wanted, fresh=f"{self._nonce}-{number}")
        return Prompt(text=text, tokens=wanted + self._vocabulary.overhead)

    def _begin(self, name: str, tokens: int, *, fresh: str) -> str:
        """Text whose first words follow from the nonce: engines cache prefixes, and none may hit an earlier round's."""
        vocabulary = self._vocabulary
        nonce = vocabulary.text(Random(fresh), min(tokens, NONCE_WORDS * 2))
        used = min(tokens, NONCE_WORDS * 2)
        return nonce + vocabulary.text(self._random(name), tokens - used)

    def _random(self, name: str) -> Random:
        return Random(f"{self._seed}-{name}")
