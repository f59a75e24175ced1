"""The plain NIXL script that bench_probe.py compares the probe with: two processes, a READ, durations by telemetry.

Run by the engine's interpreter: `plain_nixl.py SOURCE_CORE TARGET_CORE SIZE REPEATS`; one line of microseconds.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import sys
from typing import Any

import numpy as np


def agent(name: str, core: int, size: int) -> tuple[Any, Any, Any]:
    """An agent with registered memory of that size, on a core of its own."""
    os.sched_setaffinity(0, {core})
    from nixl_cu12 import nixl_agent, nixl_agent_config

    made = nixl_agent(name, nixl_agent_config(backends=["UCX"], capture_telemetry=True))
    memory = np.full(size, 7 if name == "prefill" else 0, np.uint8)
    made.register_memory([(memory.ctypes.data, size, 0, "")], mem_type="DRAM")
    return made, memory, made.get_xfer_descs([(memory.ctypes.data, size, 0)], mem_type="DRAM")


def prefill(offers: Any, done: Any, core: int, size: int) -> None:
    """Offers its memory until decode is done."""
    made, _memory, descs = agent("prefill", core, size)
    offers.put((made.get_agent_metadata(), made.get_serialized_descs(descs)))
    done.wait(60)


def decode(offers: Any, done: Any, core: int, size: int, repeats: int) -> None:
    """Reads it, once to connect and then `repeats` times."""
    made, memory, descs = agent("decode", core, size)
    metadata, remote = offers.get(timeout=60)
    peer = made.add_remote_agent(metadata)
    took = []
    for _ in range(repeats + 1):
        handle = made.initialize_xfer("READ", descs, made.deserialize_descs(remote), peer)
        state = made.transfer(handle)
        while state == "PROC":
            state = made.check_xfer_state(handle)
        took.append(made.get_xfer_telemetry(handle).xferDuration)
        made.release_xfer_handle(handle)
    if memory.min() != 7:
        raise SystemExit("the bytes did not arrive")
    print(*took[1:], flush=True)
    done.set()


def main() -> None:
    """Both processes, to their end."""
    source, target, size, repeats = map(int, sys.argv[1:])
    mp.set_start_method("spawn")
    offers, done = mp.Queue(), mp.Event()
    ends = [
        mp.Process(target=prefill, args=(offers, done, source, size)),
        mp.Process(target=decode, args=(offers, done, target, size, repeats)),
    ]
    for end in ends:
        end.start()
    for end in ends:
        end.join(120)


if __name__ == "__main__":
    main()
