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
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import httptools
import psutil
from frontend_process import Process, frontend
from stub_engine import STREAM_HEAD, Asked, StubEngine, chunk, prefill_reply, reply, text_event

DEADLINE_S = 60.0
ROUND = 150
SETTLED_S = 30.0
GROWTH_BYTES = 64 * 2**20
DONE = b"data: [DONE]\n\n"
REFUSED = frozenset({400, 413, 417, 431, 501, 505})
ANY = REFUSED | {200, 204, 404, 405, 408, 415, 502, 503}
ENGINES_OWN = frozenset({400, 418, 429, 500, 503, 504})


class Shot(NamedTuple):
    """Bytes to send, and the statuses that may come first; empty: the connection may also just be closed."""

    name: str
    data: bytes
    statuses: frozenset[int]
    closed: bool = False


class Grammar:
    """Makes requests from one seeded generator."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def shot(self) -> Shot:
        """The next request."""
        pick = self.random.choice
        return pick((self.sound, self.sound, self.odd_body, self.broken_json, self.framing, self.head, self.noise))()

    def value(self, depth: int = 0) -> object:
        """Any JSON value."""
        r = self.random
        scalars = (None, True, False, 0, -1, 1.5, 1e308, 2**70, "", "x" * r.randrange(300), "\u0000\ud7ff\U0001f600")
        if depth > 4 or r.random() < 0.6:
            return r.choice(scalars)
        if r.random() < 0.5:
            return [self.value(depth + 1) for _ in range(r.randrange(4))]
        return {r.choice(("a", "", "role", "content", "type")): self.value(depth + 1) for _ in range(r.randrange(4))}

    def members(self) -> dict[str, object]:
        """A request as clients write it, with some members that are not."""
        r = self.random
        body: dict[str, object] = {"model": "m", "prompt": "hi", "stream": r.random() < 0.6}
        for name in ("n", "best_of", "max_tokens", "min_tokens", "logprobs", "echo", "stop", "seed", "stream_options"):
            if r.random() < 0.15:
                body[name] = self.value()
        for name in ("prompt", "messages", "stream", "user", "prompt_cache_key", "temperature", "tools"):
            if r.random() < 0.08:
                body[name] = self.value()
        return body

    def post(self, body: bytes, *fields: bytes, target: bytes | None = None) -> bytes:
        """A request with its body, framed soundly one way or the other."""
        r = self.random
        target = target or r.choice((b"/v1/completions", b"/v1/chat/completions"))
        lines = [b"POST %b HTTP/1.1" % target, b"Host: a", *fields]
        if r.random() < 0.3:
            cut = r.randrange(len(body) + 1)
            parts = b"".join(chunk(part) for part in (body[:cut], body[cut:]) if part)
            return b"\r\n".join((*lines, b"Transfer-Encoding: chunked", b"", parts + b"0\r\n\r\n"))
        return b"\r\n".join((*lines, b"Content-Length: %d" % len(body), b"", body))

    def sound(self) -> Shot:
        """What any engine may be sent."""
        r = self.random
        if r.random() < 0.2:
            line = r.choice((b"GET /v1/models", b"GET /health", b"GET /metrics", b"OPTIONS *"))
            return Shot("get", line + b" HTTP/1.1\r\nHost: a\r\n\r\n", ANY | ENGINES_OWN)
        body = json.dumps(self.members(), ensure_ascii=r.random() < 0.5).encode("utf-8", "surrogatepass")
        return Shot("sound", self.post(body, *self.fields()), ANY | ENGINES_OWN)

    def fields(self) -> list[bytes]:
        """Fields that say nothing of the framing."""
        names = (b"X-Request-Id", b"traceparent", b"Authorization", b"Accept", b"X-Session-Id", b"Origin", b"X-Any")
        count = self.random.randrange(4)
        return [b"%b: %b" % (self.random.choice(names), self.text(40)) for _ in range(count)]

    def text(self, length: int) -> bytes:
        """Printable bytes, and some above."""
        letters = b"abcXYZ0189-_ /\"'{}<>;=,%\xc3\xa9\xff"
        return bytes(self.random.choice(letters) for _ in range(self.random.randrange(1, length)))

    def odd_body(self) -> Shot:
        """JSON, but no request; or one that clients may not make."""
        r = self.random
        value: object = self.value()
        if isinstance(value, dict) or r.random() < 0.4:
            value = {**self.members(), "kv_transfer_params": self.value()}
        return Shot("odd-body", self.post(json.dumps(value).encode()), frozenset({400}))

    def broken_json(self) -> Shot:
        """No JSON at all."""
        r = self.random
        sound = json.dumps(self.members()).encode()
        broken = (
            sound[: r.randrange(len(sound))],
            sound.replace(b'"', b"'"),
            sound + b"}",
            b'{"model":"m","prompt":"' + bytes(r.randrange(128, 256) for _ in range(1 + r.randrange(9))) + b'\xc3"}',
            b"[" * r.randrange(1, 20_000),
            b'{"a":' * r.randrange(1, 20_000),
            bytes(r.randrange(256) for _ in range(r.randrange(200))) + b"\x01",
        )
        return Shot("broken-json", self.post(r.choice(broken)), frozenset({400}))

    def framing(self) -> Shot:
        """Requests whose end two readers could see in different places."""
        r = self.random
        body = b'{"model":"m","prompt":"hi"}'
        size = b"%d" % len(body)
        fields = r.choice(
            (
                (b"Content-Length: " + size, b"Content-Length: 3"),
                (b"Content-Length: " + size, b"Transfer-Encoding: chunked"),
                (b"Content-Length: +" + size,),
                (b"Content-Length: 0x1b",),
                (b"Content-Length: -1",),
                (b"Content-Length: 99999999999999999999999",),
                (b"Transfer-Encoding: chunked, identity",),
                (b"Transfer-Encoding: xchunked",),
                (b"Transfer-Encoding : chunked",),
                (b"X: 1\n folded: 2", b"Content-Length: " + size),
                (b"X: a\x00b", b"Content-Length: " + size),
                (b"X\x01: a", b"Content-Length: " + size),
                (b"Expect: 200-maybe", b"Content-Length: " + size),
                (b"Host: b", b"Content-Length: " + size),
            )
        )
        head = b"\r\n".join((b"POST /v1/completions HTTP/1.1", b"Host: a", *fields, b"", b""))
        return Shot("framing", head + body, REFUSED, closed=True)

    def head(self) -> Shot:
        """First lines and heads that are none."""
        r = self.random
        first = r.choice(
            (
                b"GET  /live HTTP/1.1",
                b"GET /live HTTP/2.0",
                b"GET /live HTTP/1.9",
                b"get /live HTTP/1.1",
                b"GET /live",
                b"BREW /live HTTP/1.1",
                b"GET http:///live HTTP/1.1",
                b"CONNECT a:1 HTTP/1.1",
                b"GET /" + b"a" * r.choice((10, 70_000)) + b" HTTP/1.1",
                b"GET /li\x00ve HTTP/1.1",
                b"PRI * HTTP/2.0",
            )
        )
        fields = r.choice(((), (b"Host: a",), (b"X: " + b"b" * 70_000,), tuple(b"X%d: 1" % n for n in range(9000))))
        return Shot("head", b"\r\n".join((first, *fields, b"", b"")), ANY, closed=True)

    def noise(self) -> Shot:
        """A sound request with bytes changed, taken out, or put in."""
        r = self.random
        data = bytearray(self.sound().data)
        for _ in range(r.randrange(1, 6)):
            at = r.randrange(len(data))
            data[at : at + r.randrange(2)] = bytes(r.randrange(256) for _ in range(r.randrange(3)))
        return Shot("noise", bytes(data), ANY | ENGINES_OWN, closed=True)


class Wild:
    """An engine that answers anything. With `sound` it answers as it should."""

    def __init__(self, seed: int, *, prefill: bool) -> None:
        self.random = random.Random(seed)
        self._prefill = prefill

    async def __call__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        r = self.random
        if r.random() < 0.6:
            await self._sound(asked, writer)
            return
        junk = bytes(r.randrange(256) for _ in range(r.randrange(1, 300)))
        kind = r.randrange(8)
        if kind == 0:
            writer.close()
        elif kind == 1:
            await reply(junk, status=r.choice((200, 400, 418, 429, 500, 503, 504)))(asked, writer)
        elif kind == 2:
            writer.write(junk)
            writer.close()
        elif kind == 3:
            writer.write(STREAM_HEAD + chunk(text_event("a")) + junk)
            writer.close()
        elif kind == 4:
            writer.write(STREAM_HEAD + chunk(b'data: {"error":{"message":"no"}}\n\n') + b"0\r\n\r\n")
        elif kind == 5:
            await reply("[1]" if r.random() < 0.5 else '{"kv_transfer_params":[[[1]]]}')(asked, writer)
        elif kind == 6:
            writer.write(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\ncontent-length: 0\r\n\r\n")
        else:
            writer.write(STREAM_HEAD + b"".join(chunk(text_event("b" * 5000)) for _ in range(100)))
            writer.close()

    async def _sound(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        if self._prefill:
            await prefill_reply()(asked, writer)
        elif b'"stream": true' in asked.body or b'"stream":true' in asked.body:
            events = b"".join(chunk(text_event("a")) for _ in range(self.random.randrange(20)))
            writer.write(STREAM_HEAD + events + chunk(DONE) + b"0\r\n\r\n")
        else:
            await reply('{"choices":[{"text":"a"}]}')(asked, writer)


class Answer:
    """Statuses of an answer's bytes; httptools.HttpParserError where they are not HTTP."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.statuses: list[int] = []
        self.ended = 0
        self.body = b""

    def on_headers_complete(self) -> None:
        self.statuses.append(self.parser.get_status_code())

    def on_body(self, data: bytes) -> None:
        self.body = (self.body + data)[-4096:]

    def on_message_complete(self) -> None:
        self.ended += 1


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
        await self._settled()

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
        statuses = [status for status in answer.statuses if status != 100]
        if not statuses:
            if not shot.closed:
                self._fault(shot, "no answer")
            return
        self.seen[shot.name, str(statuses[0])] += 1
        if statuses[0] not in shot.statuses:
            self._fault(shot, f"status {statuses[0]}: {answer.body[:200]!r}")
        if b"internal error" in answer.body:
            self._fault(shot, f"internal error: {answer.body[:200]!r}")

    async def _settled(self) -> None:
        """Alive, nothing under way, no descriptor kept, nothing said that is not its log."""
        end = time.monotonic() + SETTLED_S
        while True:
            text = (await self._process.http.get(self._process.url + "/metrics")).text
            idle = "dynctl_requests_in_flight 0.0" in text and self._router.num_fds() < 120
            if idle:
                break
            if time.monotonic() > end:
                self.faults.append(f"not idle: {self._router.num_fds()} descriptors, or requests under way")
                break
            await asyncio.sleep(0.05)
        ready = "prefill-0 ready, decode-0 ready"
        strange = [line for line in self._process.lines if not line.startswith(("workers: ", "frontend listening"))]
        if strange:
            self.faults.append(f"it said: {strange[:5]}, not only {ready}")

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
