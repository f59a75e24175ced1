"""The fuzzer's grammar: requests sound and broken, each with the statuses that may answer it."""

from __future__ import annotations

import json
import random
from typing import NamedTuple

from stub_engine import chunk

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
