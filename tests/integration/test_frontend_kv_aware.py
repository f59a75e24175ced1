"""kv-aware routing over real sockets: engines that tokenize and tell of their caches."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import zmq.asyncio
from frontend_harness import Router, on_uvloop, until
from stub_engine import Asked, Script, StubEngine, prefill_reply, reply, stream, text_event

from dynctl.frontend.kv_events import KvEvents

IDS = list(range(32))
BODY = json.dumps({"prompt": "hi", "stream": True}).encode()


def worker() -> Script:
    """A prefill worker that tokenizes."""
    kept, tokens = prefill_reply(), reply(json.dumps({"tokens": IDS, "count": len(IDS)}))

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await (tokens if "/tokenize" in asked.target else kept)(asked, writer)

    return script


@on_uvloop
async def test_requests_follow_what_a_worker_says_of_its_cache(tmp_path: Path) -> None:
    context = zmq.asyncio.Context()
    publisher = context.socket(zmq.PUB)
    publisher.bind(f"ipc://{tmp_path}/kv-prefill-1")
    stored: dict[str, object] = {
        "type": "BlockStored",
        "block_hashes": [1, 2],
        "parent_block_hash": None,
        "token_ids": IDS,
    }
    stored |= {"block_size": 16, "lora_id": None, "medium": "GPU", "lora_name": None}
    payload = msgspec.msgpack.encode([0.0, [stored]])
    async with (
        StubEngine(worker()) as first,
        StubEngine(worker()) as second,
        StubEngine(stream(text_event("x"), b"data: [DONE]\n\n")) as decode,
        Router(routing="kv-aware") as router,
    ):
        router.table(prefill_0=first.url, prefill_1=second.url, decode_0=decode.url)
        index = router.workers.chooser.index
        assert index is not None
        lines: list[str] = []
        events = KvEvents(tmp_path, index, lines.append)
        events.follow(["prefill-0", "prefill-1"])
        sequence = 0
        while not index.matched(IDS):  # a subscription takes effect when it does
            await publisher.send_multipart([b"kv", sequence.to_bytes(8, "big"), payload])
            sequence += 1
            await asyncio.sleep(0)
        for _ in range(4):
            assert (await router.ask(BODY)).status_code == 200
        legs = [sum("/tokenize" not in one.target for one in engine.asked) for engine in (first, second)]
        assert legs == [0, 4]
        await publisher.send_multipart([b"kv", sequence.to_bytes(8, "big"), b"nonsense"])
        await until(lambda: bool(lines))
        assert index.matched(IDS) == {}
        assert (await router.ask(BODY)).status_code == 200
        await events.close()
    publisher.close(linger=0)
    context.term()
