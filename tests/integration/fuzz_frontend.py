"""A grammar fuzzer of the frontend: requests sound and broken, engines sound and wild, clients that leave or dawdle.

usage: python fuzz_frontend.py [--seconds 600] [--seed N] [--clients 32]

After every round of requests the router must be alive, have nothing under way, have let go of its file descriptors and
have said nothing unexpected; an answer must be valid HTTP with a status that its request may get. What went wrong is
printed with the seed and the request, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence

import httptools
import psutil
from frontend_process import Process, frontend
from fuzz_checks import Answer, settled
from fuzz_engine import Wild
from fuzz_grammar import Grammar, Shot
from stub_engine import StubEngine

DEADLINE_S = 60.0
ROUND = 150
GROWTH_BYTES = 64 * 2**20


class Fuzzer:
    """Fires at one router; `faults` is what it found, `seen` counts statuses by kind of request."""

    def __init__(self, process: Process, seed: int, clients: int) -> None:
        self._process, self._clients = process, clients
        self._grammar, self._random = Grammar(seed), random.Random(seed + 1)
        self._port = int(process.url.rpartition(":")[2])
        self._router = psutil.Process(process.process.pid)
        self.faults: list[str] = []
        self.seen: Counter[tuple[str, str]] = Counter()

    async def round(self) -> None:
        """Some requests at once, then the look at the router itself."""
        shots = [self._grammar.shot() for _ in range(ROUND)]
        turns = asyncio.Semaphore(self._clients)

        async def one(shot: Shot) -> None:
            async with turns:
                try:
                    await asyncio.wait_for(self._fire(shot), DEADLINE_S)
                except TimeoutError:
                    self._fault(shot, "hangs")

        await asyncio.gather(*(one(shot) for shot in shots))
        self.faults.extend(await settled(self._process, self._router))

    async def _fire(self, shot: Shot) -> None:
        r = self._random
        manner = r.choice(("reads",) * 5 + ("leaves", "dawdles", "cut"))
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            with contextlib.suppress(ConnectionError):
                for piece in self._pieces(shot.data, cut=manner == "cut"):
                    writer.write(piece)
                    await writer.drain()
                if manner == "leaves":
                    await reader.read(1)
                if manner not in ("leaves", "cut"):
                    await self._read(shot, reader, slowly=manner == "dawdles")
        finally:
            writer.transport.abort()
        self.seen[shot.name, manner] += 1

    def _pieces(self, data: bytes, *, cut: bool) -> Sequence[bytes]:
        if cut:
            data = data[: self._random.randrange(len(data))]
        if self._random.random() < 0.7 or len(data) > 2000:
            return [data]
        at = sorted(self._random.randrange(len(data) + 1) for _ in range(3))
        return [data[a:b] for a, b in zip((0, *at), (*at, len(data)), strict=True)]

    async def _read(self, shot: Shot, reader: asyncio.StreamReader, *, slowly: bool) -> None:
        answer = Answer()
        while not answer.ended:
            try:
                # what is not complete as it stands is not answered: two seconds without a byte are an end
                data = await asyncio.wait_for(reader.read(64 if slowly else 65536), 2.0 if shot.closed else DEADLINE_S)
            except TimeoutError:
                data = b""
            if not data:
                break
            try:
                answer.parser.feed_data(data)
            except httptools.HttpParserError as error:
                self._fault(shot, f"the answer is not HTTP: {error}: {data[:200]!r}")
                return
        if answer.first is not None:
            self.seen[shot.name, str(answer.first)] += 1
        for what in answer.faults(shot):
            self._fault(shot, what)

    def _fault(self, shot: Shot, what: str) -> None:
        if len(self.faults) < 20:
            self.faults.append(f"{shot.name}: {what}; sent {shot.data[:300]!r}")


async def fuzz(
    seconds: float, seed: int, clients: int = 32, rounds: int = 10**9
) -> tuple[list[str], Counter[tuple[str, str]], str]:
    """What was found, what was seen, and the figures in a line."""
    async with (
        StubEngine(Wild(seed + 2, prefill=True)) as p,
        StubEngine(Wild(seed + 3, prefill=False)) as d,
        frontend(prefill=[p.url], decode=[d.url], retry_burst=1e6) as process,
    ):
        fuzzer = Fuzzer(process, seed, clients)
        router = psutil.Process(process.process.pid)
        begin, done, base = time.monotonic(), 0, 0
        while done < rounds and time.monotonic() - begin < seconds and not fuzzer.faults:
            for engine in (p, d):
                engine.asked.clear()
            await fuzzer.round()
            done += 1
            if done == 5:
                base = router.memory_info().rss
        grown = router.memory_info().rss - base if base else 0
        if grown > GROWTH_BYTES:
            fuzzer.faults.append(f"grown by {grown >> 20} MiB")
        figures = f"{done * ROUND} requests in {time.monotonic() - begin:.0f} s, seed {seed}; "
        figures += (
            f"memory grew by {grown / 2**20:.1f} MiB after the first {5 * ROUND}; descriptors now {router.num_fds()}"
        )
    return fuzzer.faults, fuzzer.seen, figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--clients", type=int, default=32)
    given = parser.parse_args()
    faults, seen, figures = asyncio.run(fuzz(given.seconds, given.seed, given.clients))
    for (name, what), count in sorted(seen.items()):
        print(f"{name:12} {what:8} {count:8}")
    print(figures)
    print("\n".join(faults) or "no fault found")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
