"""What the wild sends, to one router process: each case by name, with the statuses that answer it."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from mock_stream import DONE, HEAD, Mock, Writer, send, token

JSON = b'{"model":"m","prompt":"hi"}'
PATIENCE_S = 30


def get(target: bytes = b"/v1/models", *fields: bytes, line: bytes = b"GET %b HTTP/1.1", host: bytes = b"a") -> bytes:
    """A request without a body."""
    return b"\r\n".join((line % target, b"Host: " + host, *fields, b"", b""))


def last(target: bytes = b"/v1/models", *fields: bytes, line: bytes = b"GET %b HTTP/1.1") -> bytes:
    """One after which the server closes."""
    return get(target, b"Connection: close", *fields, line=line)


def post(body: bytes, *fields: bytes, length: bytes | None = None, target: bytes = b"/v1/completions") -> bytes:
    """A completion; the server closes after it."""
    size = b"Content-Length: " + (b"%d" % len(body) if length is None else length)
    line = b"POST %b HTTP/1.1" % target
    return b"\r\n".join((line, b"Host: a", b"Connection: close", size, *fields, b"", body))


def chunked(body: bytes, *fields: bytes) -> bytes:
    """The same with its body as given, chunked."""
    head = (b"POST /v1/completions HTTP/1.1", b"Host: a", b"Connection: close", b"Transfer-Encoding: chunked")
    return b"\r\n".join((*head, *fields, b"", body))


def pieces(body: bytes) -> bytes:
    """Its chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:5], body[5:])) + b"0\r\n\r\n"


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
UPGRADE = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x", b"Sec-WebSocket-Version: 13")
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)
CASES: dict[str, tuple[bytes, list[int]]] = {
    # what is fine
    "get": (last(), [200]),
    "head": (last(line=b"HEAD %b HTTP/1.1"), [200]),
    "options": (last(line=b"OPTIONS %b HTTP/1.1"), [204]),
    "options-asterisk": (last(b"*", line=b"OPTIONS %b HTTP/1.1"), [204]),
    "http-1.0": (b"GET /v1/models HTTP/1.0\r\n\r\n", [200]),
    "http-1.0-kept": (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /live HTTP/1.0\r\n\r\n", [404, 200]),
    "pipelined": (get() + last(), [200, 200]),
    "pipelined-fifty": (get(b"/live") * 49 + last(b"/live"), [200] * 50),
    "pipelined-good-bad": (get() + b"nonsense\r\n\r\n", [200, 400]),
    "pipelined-after-close": (last() + get(), [200]),
    "absolute-form": (last(b"http://a/v1/models"), [200]),
    "absolute-form-https": (last(b"HTTPS://a:1/v1/models?x=1"), [200]),
    "query": (last(b"/v1/models?a=b&c=%00"), [200]),
    "fragment": (last(b"/v1/models#there"), [200]),
    "empty-lines-first": (b"\r\n\r\n" + last(), [200]),
    "long-but-allowed-head": (last(b"/v1/models", b"X-Long: " + b"a" * 60_000), [200]),
    "post": (post(JSON), [200]),
    "chunked": (chunked(pieces(JSON)), [200]),
    "chunk-extension": (chunked(b"1b;a=b\r\n" + JSON + b"\r\n0\r\n\r\n"), [200]),
    "chunk-trailer": (chunked(b"1b\r\n" + JSON + b"\r\n0\r\nX-After: 1\r\n\r\n"), [200]),
    "chunk-leading-zeros": (chunked(b"0001b\r\n" + JSON + b"\r\n0\r\n\r\n"), [200]),
    "expect-continue": (post(JSON, b"Expect: 100-continue"), [200]),
    "encoding-identity": (post(JSON, b"Content-Encoding: identity"), [200]),
    "json-duplicate-key": (post(b'{"model":"m","prompt":"a","prompt":"b"}'), [200]),
    "json-spaces": (post(b" \n\t" + JSON + b"\r\n "), [200]),
    "json-unicode": (post('{"model":"m","prompt":"\u00e9\U0001f600"}'.encode()), [200]),
    # heads that are not HTTP
    "garbage": (b"\x00\x01\x02\x03\r\n\r\n", [400]),
    "tls-hello": (HELLO, [400]),
    "lower-case-method": (last(line=b"get %b HTTP/1.1"), [400]),
    "unknown-method": (last(line=b"BREW %b HTTP/1.1"), [400]),
    "no-version": (b"GET /v1/models\r\n\r\n", [505]),
    "version-3": (last(line=b"GET %b HTTP/3.0"), [400]),
    "http-2-preface": (PREFACE, [400]),
    "relative-target": (last(b"v1/models"), [400]),
    "authority-target": (last(b"a:80"), [400]),
    "ftp-target": (last(b"ftp://a/v1/models"), [400]),
    "space-in-target": (last(b"/v1/mo dels"), [400]),
    "no-host": (b"GET /v1/models HTTP/1.1\r\n\r\n", [400]),
    "two-hosts": (last(b"/v1/models", b"Host: b"), [400]),
    "space-before-colon": (last(b"/v1/models", b"X-A : b"), [400]),
    "no-colon": (last(b"/v1/models", b"nonsense"), [400]),
    "empty-name": (last(b"/v1/models", b": b"), [400]),
    "bad-name": (last(b"/v1/models", b"X(A): b"), [400]),
    "nul-in-value": (last(b"/v1/models", b"X-A: a\x00b"), [400]),
    "cr-in-value": (last(b"/v1/models", b"X-A: a\rb"), [400]),
    # what could smuggle a second request
    "two-lengths": (post(JSON, b"Content-Length: 5"), [400]),
    "two-equal-lengths": (post(JSON, b"Content-Length: 27"), [400]),
    "length-list": (post(JSON, length=b"27, 27"), [400]),
    "length-and-chunked": (chunked(pieces(JSON), b"Content-Length: 5"), [400]),
    "length-plus": (post(JSON, length=b"+27"), [400]),
    "length-negative": (post(JSON, length=b"-1"), [400]),
    "length-hex": (post(JSON, length=b"0x1b"), [400]),
    "length-overflow": (post(JSON, length=b"9" * 40), [400]),
    "chunked-not-last": (chunked(pieces(JSON)).replace(b"chunked", b"chunked, gzip"), [400]),
    "chunked-unknown": (chunked(pieces(JSON)).replace(b"chunked", b"xchunked"), [400]),
    "obs-fold": (last(b"/v1/models", b"X-A: b", b" folded"), [400]),
    "bare-lf": (b"GET /v1/models HTTP/1.1\nHost: a\n\n", [400]),
    "bare-lf-in-head": (b"GET /v1/models HTTP/1.1\r\nHost: a\nX-A: b\r\n\r\n", [400]),
    "chunk-size-words": (chunked(b"five\r\nhello\r\n0\r\n\r\n"), [400]),
    "chunk-size-negative": (chunked(b"-5\r\nhello\r\n0\r\n\r\n"), [400]),
    "chunk-size-overflow": (chunked(b"f" * 20 + b"\r\nhello\r\n0\r\n\r\n"), [400]),
    "chunk-too-long": (chunked(b"3\r\nhello\r\n0\r\n\r\n"), [400]),
    "chunk-bare-lf": (chunked(b"1b\n" + JSON + b"\n0\n\n"), [400]),
    # too much
    "huge-field": (last(b"/v1/models", b"X-A: " + b"a" * 80_000), [431]),
    "many-fields": (last(b"/v1/models", *[b"X-%d: a" % n for n in range(20_000)]), [431]),
    "huge-target": (last(b"/" + b"a" * 80_000), [431]),
    "endless-field": (b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * 200_000, [431]),
    "huge-length": (post(b"", length=b"1000000000"), [413]),
    "huge-length-expected": (post(b"", b"Expect: 100-continue", length=b"1000000000"), [413]),
    "huge-chunk": (chunked(b"4000001\r\n" + b"a" * (64 * 1024 * 1024 + 1)), [413]),
    # what is not done here
    "expect-other": (post(JSON, b"Expect: 200-ok"), [417]),
    "websocket": (get(b"/v1/realtime", *UPGRADE), [501]),
    "h2c": (get(b"/v1/models", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: x"), [501]),
    "encoding-gzip": (post(JSON, b"Content-Encoding: gzip"), [415]),
    "nowhere": (last(b"/nowhere"), [404]),
    "traversal": (last(b"/../etc/passwd"), [404]),
    "health-by-post": (post(b"", target=b"/health"), [405]),
    "metrics-by-delete": (last(b"/metrics", line=b"DELETE %b HTTP/1.1"), [405]),
    # bodies that are no request
    "json-empty": (post(b""), [400]),
    "json-cut": (post(JSON[:-1]), [400]),
    "json-array": (post(b"[1]"), [400]),
    "json-two": (post(JSON + JSON), [400]),
    "json-deep": (post(b'{"prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), [400]),
    "json-nan": (post(b'{"prompt":NaN}'), [400]),
    "json-bom": (post(b"\xef\xbb\xbf" + JSON), [400]),
    "json-utf-16": (post(JSON.decode().encode("utf-16")), [400]),
    "json-bad-utf-8": (post(b'{"mod\xff\xfeel":"m"}'), [400]),
    "json-bad-utf-8-in-a-value": (post(b'{"prompt":"a\xff"}'), [400]),
    "json-control-character": (post(b'{"prompt":"a\nb"}'), [400]),
    "json-kv-params": (post(b'{"prompt":"a","kv_transfer_params":{}}'), [400]),
}


class Site(NamedTuple):
    """The router process under test."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    def say(self, data: bytes, *, slowly: bool = False) -> bytes:
        """Everything that is answered to these bytes, until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) as sock:
            try:
                for part in [data[n : n + 1] for n in range(len(data))] if slowly else [data]:
                    sock.sendall(part)
            except OSError:
                pass  # refused before all of it was sent
            got = b""
            while part := sock.recv(1 << 16):
                got += part
            return got

    def open_files(self) -> int:
        """Descriptors that it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A router before one worker that answers everything, or streams where that is asked for."""

    async def answer(writer: Writer, number: int) -> None:
        if b'"stream":true' not in mock.bodies[number]:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
            return
        writer.write(HEAD)
        for _ in range(2000):
            await send(writer, token("word " * 2000))
        await send(writer, DONE)
        writer.write(b"0\r\n\r\n")

    log = tmp_path_factory.mktemp("torture") / "log"
    with Mock(answer) as mock, log.open("w") as out:
        argv = [sys.executable, "-m", "dynctl", "frontend", "--worker", mock.url, "--host", "127.0.0.1", "--port", "0"]
        process = subprocess.Popen(argv, stdout=out, stderr=out, text=True)
        try:
            end = time.monotonic() + PATIENCE_S
            while not (found := re.search(r"listening on http://\S+:(\d+)", log.read_text())):
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.02)
            yield Site(process, int(found[1]), log)
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def statuses(answer: bytes) -> list[int]:
    """Of the final answers."""
    return [int(n) for n in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer) if n != b"100"]


@pytest.mark.parametrize("name", CASES)
def test_each_is_answered_as_it_deserves(site: Site, name: str) -> None:
    data, expected = CASES[name]
    assert statuses(site.say(data)) == expected
    assert statuses(site.say(last(b"/live"))) == [200]


def test_a_slow_writer_is_heard_out(site: Site) -> None:
    assert statuses(site.say(post(JSON), slowly=True)) == [200]


def test_a_refusal_is_json_and_of_openais_shape(site: Site) -> None:
    assert b'{"error":{"message":"' in site.say(CASES["two-lengths"][0])


def test_head_has_no_body(site: Site) -> None:
    assert site.say(CASES["head"][0]).endswith(b"\r\n\r\n")


def test_a_reader_that_stops_holds_the_stream_and_not_the_memory(site: Site) -> None:
    body = b'{"model":"m","prompt":"hi","stream":true}'
    rss = Path(f"/proc/{site.process.pid}/statm")
    with socket.create_connection(("127.0.0.1", site.port), PATIENCE_S) as slow:
        slow.sendall(post(body))
        slow.recv(1)
        before = int(rss.read_text().split()[1])
        whole = site.say(post(body))  # 20 MB for another reader meanwhile
        assert len(whole) > 20_000_000
        assert whole.endswith(b"0\r\n\r\n")
        assert (int(rss.read_text().split()[1]) - before) * os.sysconf("SC_PAGE_SIZE") < 8_000_000
        total, end = 1, b""
        while part := slow.recv(1 << 20):
            total += len(part)
            end = (end + part)[-5:]
        assert total > 20_000_000
        assert end == b"0\r\n\r\n"


def test_nothing_broke_and_nothing_leaked(site: Site) -> None:
    async def crowd() -> None:
        async def one(data: bytes) -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(data)
            writer.transport.abort()

        await asyncio.gather(*(one(data[: len(data) // 2]) for data, _ in CASES.values() if len(data) < 100_000))

    site.say(last(b"/live"))
    before = site.open_files()
    asyncio.run(crowd())
    end = time.monotonic() + PATIENCE_S
    while site.open_files() > before:
        assert time.monotonic() < end, "connections stay open"
        time.sleep(0.02)
    assert statuses(site.say(last())) == [200]
    assert site.process.poll() is None
    assert "Traceback" not in site.log.read_text()
