"""The fake engine's KV cache: blocks that hold the tokens they were computed from, prefix hits, and leases."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

Tokens = tuple[int, ...]


class Lease(msgspec.Struct):
    """Blocks that a finished prefill keeps for the decode worker that will read them."""

    blocks: list[int]
    expires_at_s: float


class BlockPool:
    """Blocks of at most `block_size` tokens. Only full blocks can be hit again, and never a prompt's last token."""

    def __init__(self, block_size: int, capacity: int = 2048) -> None:
        self.block_size = block_size
        self._capacity = capacity
        self._next = 1  # vLLM keeps block 0 for itself
        self._content: dict[int, Tokens] = {}
        self._cached: dict[tuple[str, Tokens], int] = {}
        self._key_of: dict[int, tuple[str, Tokens]] = {}
        self._leases: dict[str, Lease] = {}
        self.expired = 0

    def blocks_for(self, tokens: int) -> int:
        """Blocks that so many tokens fill, the last one perhaps in part."""
        return -(-tokens // self.block_size)

    def hits(self, prompt: Sequence[int], salt: str) -> list[int]:
        """Cached blocks of the prompt's longest known prefix, leaving at least one token to compute."""
        found: list[int] = []
        for end in range(self.block_size, len(prompt), self.block_size):
            block = self._cached.get((salt, tuple(prompt[:end])))
            if block is None:
                break
            found.append(block)
        return found

    def store(self, prompt: Sequence[int], salt: str, contents: Sequence[Tokens], held: list[int]) -> list[int]:
        """Blocks of a whole prompt: those `held` by prefix hits, then new ones for `contents`."""
        blocks = list(held)
        for content in contents:
            block = self._allocate()
            self._content[block] = content
            end = (len(blocks) + 1) * self.block_size
            if end <= len(prompt):
                key = (salt, tuple(prompt[:end]))
                self._cached[key] = block
                self._key_of[block] = key
            blocks.append(block)
        return blocks

    def read(self, blocks: Sequence[int]) -> list[Tokens]:
        """What the blocks hold now. A freed block still reads, as memory does."""
        return [self._content.get(b, ()) for b in blocks]

    def lease(self, request_id: str, blocks: list[int], lease_s: float) -> None:
        """Keep `blocks` for a reader, for so long."""
        self._leases[request_id] = Lease(blocks, time.monotonic() + lease_s)

    def renew(self, request_id: str, lease_s: float) -> None:
        """A reader's heartbeat."""
        if request_id in self._leases:
            self._leases[request_id].expires_at_s = time.monotonic() + lease_s

    def release(self, request_id: str) -> bool:
        """A reader is done. False when nobody waited for it."""
        return self._leases.pop(request_id, None) is not None

    def expire(self) -> list[str]:
        """End the leases that are over and return their requests."""
        now = time.monotonic()
        over = [r for r, lease in self._leases.items() if lease.expires_at_s <= now]
        for request in over:
            del self._leases[request]
        self.expired += len(over)
        return over

    def _allocate(self) -> int:
        kept = {b for lease in self._leases.values() for b in lease.blocks}
        while self._next in kept:
            self._advance()
        block = self._next
        self._advance()
        old = self._key_of.pop(block, None)
        if old is not None:
            self._cached.pop(old, None)
        return block

    def _advance(self) -> None:
        self._next = self._next % self._capacity + 1


def split(tokens: Sequence[int], block_size: int, start: int = 0) -> list[Tokens]:
    """`tokens` from position `start` on, cut into blocks."""
    return [tuple(tokens[i : i + block_size]) for i in range(start, len(tokens), block_size)]
