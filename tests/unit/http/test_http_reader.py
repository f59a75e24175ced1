"""Bytes to requests: framing, limits, and the shapes that are refused."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynctl.http.limits import Limits, Refusal
from dynctl.http.message import Request
from dynctl.http.reader import RequestReader

LIMITS = Limits(head_bytes=1024, body_bytes=100)


def reader(limits: Limits = LIMITS) -> RequestReader:
    return RequestReader(limits, lambda: 7.0)


def parse(*pieces: bytes, limits: Limits = LIMITS) -> list[Request]:
    subject = reader(limits)
    for piece in pieces:
        subject.feed(piece)
    return list(subject.requests)


def refused(*pieces: bytes) -> Refusal:
    subject = reader()
    *before, last = pieces
    try:
        for piece in before:
            subject.feed(piece)
    except Refusal as refusal:
        return refusal
    with pytest.raises(Refusal) as caught:
        subject.feed(last)
    assert not subject.requests
    return caught.value


def test_a_request_with_a_length() -> None:
    (request,) = parse(b"POST /v1/x?y=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX-One: 1\r\n\r\nabc")
    assert (request.method, request.target, request.path) == ("POST", b"/v1/x?y=1", "/v1/x")
    assert request.headers == [(b"host", b"a"), (b"content-length", b"3"), (b"x-one", b"1")]
    assert (request.body, request.received, request.keep_alive, request.http10) == (b"abc", 7.0, True, False)
    assert request.header(b"x-one") == b"1"
    assert request.header(b"x-two") is None


def test_a_chunked_request_with_extensions_and_trailers() -> None:
    (request,) = parse(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n",
        b"2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n",
    )
    assert request.body == b"abcde"
    assert request.header(b"x-trailer") is None


def test_pipelined_requests_come_in_order() -> None:
    requests = parse(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(5)))
    assert [request.path for request in requests] == ["/0", "/1", "/2", "/3", "/4"]


@given(st.lists(st.integers(1, 140), max_size=30))
def test_any_cut_of_the_bytes_gives_the_same_requests(cuts: list[int]) -> None:
    data = (
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
        b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nworld\r\n0\r\n\r\n"
    )
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    assert [(r.path, r.body) for r in parse(*pieces)] == [("/a", b"hello"), ("/b", b"world")]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"http://host:1/v1/models?x", "/v1/models"),
        (b"HTTP://host", "/"),
        (b"*", "*"),
        (b"/a#frag", "/a"),
        (b"/%76%31", "/%76%31"),
    ],
)
def test_target_forms(target: bytes, path: str) -> None:
    (request,) = parse(b"OPTIONS " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert request.path == path


def test_versions_and_keep_alive() -> None:
    (old,) = parse(b"GET / HTTP/1.0\r\n\r\n")
    assert (old.http10, old.keep_alive) == (True, False)
    (kept,) = parse(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert kept.keep_alive
    (closing,) = parse(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert not closing.keep_alive


SMUGGLING = {
    "length and chunked": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
    "chunked and length": b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
    "two lengths": b"Content-Length: 3\r\nContent-Length: 4\r\n",
    "two equal lengths": b"Content-Length: 3\r\nContent-Length: 3\r\n",
    "list of lengths": b"Content-Length: 3, 3\r\n",
    "signed length": b"Content-Length: +3\r\n",
    "negative length": b"Content-Length: -3\r\n",
    "hexadecimal length": b"Content-Length: 0x3\r\n",
    "chunked not last": b"Transfer-Encoding: chunked, gzip\r\n",
    "disguised chunked": b"Transfer-Encoding: xchunked\r\n",
    "obs-fold": b"X-A: b\r\n c\r\n",
    "space before colon": b"X-A : b\r\n",
    "NUL in a value": b"X-A: b\x00c\r\n",
    "bare LF": b"X-A: b\nX-B: c\r\n",
    "bare CR": b"X-A: b\rX-B: c\r\n",
    "no colon": b"X-A\r\n",
    "two hosts": b"Host: b\r\n",
}


@pytest.mark.parametrize("fields", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_smuggling_shapes_are_refused(fields: bytes) -> None:
    assert refused(b"POST / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\nabc").status == 400


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET evil HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET ftp://a/b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n", 417),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 413),
    ],
)
def test_other_refusals(data: bytes, status: int) -> None:
    refusal = refused(data)
    assert refusal.status in ((400, 413) if status == 413 else (status,))
    assert refusal.message


def test_limits_hold_in_one_read_and_in_many() -> None:
    field = b"X-A: " + b"b" * 2000 + b"\r\n\r\n"
    assert refused(b"GET / HTTP/1.1\r\nHost: a\r\n" + field).status == 431
    assert refused(b"GET / HTTP/1.1\r\nHost: a\r\nX: ", *[b"b" * 10] * 200).status == 431
    assert refused(b"GET /" + b"a" * 2000).status == 431
    assert refused(b"GET / HTTP/1.1\r\nHost: a\r\n", *[b"X: y\r\n"] * 300).status == 431
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert refused(chunked, *[b"a\r\n0123456789\r\n"] * 11).status == 413


def test_a_head_just_within_the_limit_passes_however_it_trickles() -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"b" * 900 + b"\r\n\r\n"
    assert len(parse(*[data[i : i + 1] for i in range(len(data))])) == 1


def test_trailers_count_as_head() -> None:
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    assert refused(chunked, *[b"X: " + b"y" * 100 + b"\r\n"] * 20).status == 431


def test_expect_is_noticed_until_the_body_comes() -> None:
    subject = reader()
    subject.feed(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n")
    assert subject.wants_continue
    subject.feed(b"a")
    assert not subject.wants_continue


@given(st.binary(max_size=300))
def test_noise_is_refused_or_waited_for_but_never_crashes(noise: bytes) -> None:
    subject = reader()
    with contextlib.suppress(Refusal):
        subject.feed(noise)
        subject.feed(b"\r\n\r\n")
