"""What lies in the engines' prefix caches, told by the engines themselves (vLLM's KV cache events). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

Hash = int | bytes
"""An engine's name for a block."""


class Stored(msgspec.Struct, tag="BlockStored"):
    """Blocks that follow each other: `token_ids` of all of them. `extra_keys`: a block's salt, adapter or image."""

    block_hashes: list[Hash]
    parent_block_hash: Hash | None
    token_ids: list[int]
    block_size: int
    medium: str | None = None
    extra_keys: list[Any] | None = None
    group_idx: int | None = None


class Removed(msgspec.Struct, tag="BlockRemoved"):
    """Blocks that were evicted."""

    block_hashes: list[Hash]
    medium: str | None = None
    group_idx: int | None = None


class Cleared(msgspec.Struct, tag="AllBlocksCleared"):
    """The cache is empty."""


class Batch(msgspec.Struct, array_like=True):
    """One message."""

    ts: float
    events: list[Stored | Removed | Cleared]


_DECODER = msgspec.msgpack.Decoder(Batch)
_ROOT = 0


class WorkerBlocks:
    """One worker's. Blocks are named by their tokens and all before them: an engine's own hashes mean nothing here."""

    def __init__(self) -> None:
        self.block_tokens = 0
        self._sequence: int | None = None
        self._names: dict[Hash, int] = {}
        self._held: set[int] = set()

    def __len__(self) -> int:
        return len(self._held)

    def take(self, sequence: int, payload: bytes) -> None:
        """The next message. After one that got lost nothing is known. Raises msgspec.DecodeError."""
        if self._sequence is not None and sequence != self._sequence + 1:
            self.clear()
        self._sequence = sequence
        for event in _DECODER.decode(payload).events:
            if isinstance(event, Cleared):
                self.clear()
            elif event.group_idx or event.medium not in (None, "GPU"):
                continue
            elif isinstance(event, Stored):
                self._store(event)
            else:
                for name in event.block_hashes:
                    self._held.discard(self._names.pop(name, _ROOT))

    def clear(self) -> None:
        """Nothing is known to be there."""
        self._names.clear()
        self._held.clear()

    def matched(self, ids: Sequence[int]) -> int:
        """How many of the first tokens are there."""
        size = self.block_tokens
        if not size or not self._held:
            return 0
        chain = _ROOT
        for start in range(0, len(ids) - size + 1, size):
            chain = _name(chain, ids[start : start + size])
            if chain not in self._held:
                return start
        return len(ids) // size * size

    def _store(self, event: Stored) -> None:
        parent = event.parent_block_hash
        chain = _ROOT if parent is None else self._names.get(parent)
        if chain is None or event.block_size < 1:
            return  # what it follows was stored before anybody listened, or is of another kind
        self.block_tokens = size = event.block_size
        for number, engine_name in enumerate(event.block_hashes):
            if event.extra_keys and number < len(event.extra_keys) and event.extra_keys[number]:
                return
            chain = _name(chain, event.token_ids[number * size : (number + 1) * size])
            self._names[engine_name] = chain
            self._held.add(chain)


def _name(chain: int, ids: Sequence[int]) -> int:
    return hash((chain, tuple(ids))) or 1


class KvIndex:
    """Of all workers, by id."""

    def __init__(self) -> None:
        self._workers: dict[str, WorkerBlocks] = {}
        self._turn = 0

    def turn(self, count: int) -> int:
        """Which of `count` workers tokenizes next: each in turn."""
        self._turn += 1
        return self._turn % count

    def of(self, worker_id: str) -> WorkerBlocks:
        """That worker's."""
        return self._workers.setdefault(worker_id, WorkerBlocks())

    def forget(self, worker_id: str) -> None:
        """Its cache is gone."""
        if worker_id in self._workers:
            self._workers[worker_id].clear()

    def matched(self, ids: Sequence[int]) -> dict[str, int]:
        """Tokens of the prompt by worker, of those that have any."""
        return {name: count for name, blocks in self._workers.items() if (count := blocks.matched(ids))}
