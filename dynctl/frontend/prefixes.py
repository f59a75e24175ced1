"""Which worker has seen the beginning of a prompt: an approximate picture of the engines' prefix caches."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

BLOCK_BYTES = 64
"""About one block of 16 tokens."""
MAX_BLOCKS = 200_000
"""Of one worker: about as many tokens' worth as 3 million, 20 MB; older ones are forgotten."""

Blocks = tuple[int, ...]
"""A prompt's blocks, each hashed together with all before it."""


def blocks_of(text: bytes) -> Blocks:
    """Chained hashes of the whole blocks of `text`: equal where the texts are equal up to there."""
    found: list[int] = []
    chain = 0
    for start in range(0, len(text) - BLOCK_BYTES + 1, BLOCK_BYTES):
        chain = hash((chain, text[start : start + BLOCK_BYTES]))
        found.append(chain)
    return tuple(found)


def shared_blocks_of(text: bytes) -> Blocks:
    """The same in every process: Python's own hashes, which are faster, differ from one to the other."""
    found = []
    chain = b""
    for start in range(0, len(text) - BLOCK_BYTES + 1, BLOCK_BYTES):
        chain = blake2b(chain + text[start : start + BLOCK_BYTES], digest_size=8).digest()
        found.append(int.from_bytes(chain, "little"))
    return tuple(found)


class Prefixes:
    """By worker, the blocks that went to it, least recently used first. It knows neither what an engine evicted nor
    what it restarted without: `forget` is for whoever sees the latter."""

    def __init__(self, max_blocks: int = MAX_BLOCKS) -> None:
        self._max_blocks = max_blocks
        self._seen: dict[str, OrderedDict[int, None]] = {}

    def matched(self, blocks: Blocks) -> dict[str, int]:
        """How many of the first blocks each worker has seen, of those that have seen any."""
        found = {}
        for worker_id, seen in self._seen.items():
            # what is known of a prefix is known of all shorter ones, as far as they are remembered
            low, high = 0, len(blocks)
            while low < high:
                middle = (low + high + 1) // 2
                low, high = (middle, high) if blocks[middle - 1] in seen else (low, middle - 1)
            if low:
                found[worker_id] = low
        return found

    def add(self, worker_id: str, blocks: Blocks) -> None:
        """The prompt went to that worker."""
        seen = self._seen.setdefault(worker_id, OrderedDict())
        for block in reversed(blocks):  # the shared beginnings are to be forgotten last
            seen[block] = None
            seen.move_to_end(block)
        while len(seen) > self._max_blocks:
            seen.popitem(last=False)

    def forget(self, worker_id: str) -> None:
        """The worker's cache is gone."""
        self._seen.pop(worker_id, None)
