"""The index of the engines' caches against a simulated engine that stores, evicts and tells."""

from __future__ import annotations

import itertools
import random
from typing import Any

import msgspec
import pytest

from dynctl.frontend.ask import Ask
from dynctl.frontend.chooser import Chooser
from dynctl.frontend.kv_index import WorkerBlocks
from dynctl.frontend.routing import Worker
from dynctl.http.origin import Origin

SIZE = 4


class Engine:
    """A prefix cache of so many blocks, whose events have the shape of vLLM 0.32's."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.blocks: dict[tuple[int, ...], int] = {}
        self.names = itertools.count(2**60)
        self.sent: list[bytes] = []

    def tell(self, *events: dict[str, Any]) -> None:
        self.sent.append(msgspec.msgpack.encode([0.0, list(events), 0]))

    def serve(self, ids: list[int]) -> int:
        """Tokens that were in the cache; the others are stored, the oldest evicted."""
        hit, parent = 0, None
        for end in range(SIZE, len(ids) + 1, SIZE):
            prefix = tuple(ids[:end])
            name = self.blocks.pop(prefix, None)
            if name is None:
                name = next(self.names)
                self.tell(stored([name], parent, ids[end - SIZE : end]))
            else:
                hit = end
            self.blocks[prefix] = parent = name
        while len(self.blocks) > self.room:
            longest = max(self.blocks, key=len)  # a block is never evicted before those that follow it
            self.tell({"type": "BlockRemoved", "block_hashes": [self.blocks.pop(longest)], "medium": "GPU"})
        return hit


def stored(names: list[int], parent: int | None, ids: list[int], **more: Any) -> dict[str, Any]:
    event = {"type": "BlockStored", "block_hashes": names, "parent_block_hash": parent, "token_ids": ids}
    return {**event, "block_size": SIZE, "lora_id": None, "medium": "GPU", "lora_name": None, **more}


def heard(engine: Engine, blocks: WorkerBlocks, start: int = 0) -> None:
    for number, payload in enumerate(engine.sent[start:], start):
        blocks.take(number, payload)


@pytest.mark.parametrize("seed", range(5))
def test_it_knows_what_the_engine_has(seed: int) -> None:
    chance, engine, blocks, told = random.Random(seed), Engine(30), WorkerBlocks(), 0
    prompts = [[chance.randrange(3) for _ in range(chance.randrange(60))] for _ in range(200)]
    for prompt in prompts:
        expected = blocks.matched(prompt)
        assert engine.serve(prompt) == expected
        heard(engine, blocks, told)
        told = len(engine.sent)
        assert len(blocks) == len(engine.blocks)


def test_after_a_lost_message_nothing_is_believed() -> None:
    engine, blocks = Engine(30), WorkerBlocks()
    engine.serve([1] * 8)
    heard(engine, blocks)
    assert blocks.matched([1] * 8) == 8
    engine.tell()
    blocks.take(7, engine.sent[-1])
    assert blocks.matched([1] * 8) == 0


def test_blocks_of_an_unknown_beginning_are_not_counted() -> None:
    blocks = WorkerBlocks()
    blocks.take(9, msgspec.msgpack.encode([0.0, [stored([5], 4, [1] * 4)], 0]))
    assert len(blocks) == 0


def test_blocks_with_a_salt_or_elsewhere_are_not_counted() -> None:
    blocks = WorkerBlocks()
    salted = stored([5, 6], None, [1] * 8, extra_keys=[("salt",), None])
    elsewhere = [stored([7], None, [2] * 4, medium="CPU"), stored([8], None, [2] * 4, group_idx=1)]
    blocks.take(0, msgspec.msgpack.encode([0.0, [salted, *elsewhere], 0]))
    assert len(blocks) == 0


def test_a_cleared_cache_is_empty_and_nonsense_is_refused() -> None:
    engine, blocks = Engine(30), WorkerBlocks()
    engine.serve([1] * 8)
    engine.tell({"type": "AllBlocksCleared"})
    heard(engine, blocks)
    assert blocks.matched([1] * 8) == 0
    with pytest.raises(msgspec.DecodeError):
        blocks.take(len(engine.sent), b"nonsense")


def test_the_worker_that_has_the_prompt_is_chosen_until_it_is_gone() -> None:
    chooser = Chooser("kv-aware")
    pool = tuple(
        Worker(id=f"prefill-{n}", role="prefill", origin=Origin("127.0.0.1", 9000 + n), state="ready") for n in range(3)
    )
    index = chooser.index
    assert index is not None
    index.of("prefill-2").take(0, msgspec.msgpack.encode([0.0, [stored([5, 6], None, [1] * 8)], 0]))
    ids = [1] * 10
    ask = Ask(tokens=10, matched=index.matched(ids))
    assert {chooser.choose("prefill", pool, ask) for _ in range(6)} == {pool[2]}
    chooser.gone(pool[2])
    assert index.matched(ids) == {}
