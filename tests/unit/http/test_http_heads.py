"""Heads that are known: the same requests come of the same bytes, whether the parser reads them or not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynctl.http.heads import Heads
from dynctl.http.limits import Limits, Refusal
from dynctl.http.message import Request
from dynctl.http.reader import RequestReader

LIMITS = Limits(head_bytes=2048, body_bytes=1000)


def clock() -> float:
    return 7.0


def post(body: bytes, *fields: bytes, length: bytes | None = None, path: bytes = b"/v1/x") -> bytes:
    lines = (b"Host: a", *fields, b"Content-Length: " + (length or b"%d" % len(body)), b"X-Last: 1")
    return b"POST " + path + b" HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + body


def read(heads: Heads | None, *pieces: bytes) -> tuple[list[Request], int | None]:
    """The requests, and the status of the refusal after which nothing more was fed."""
    reader = RequestReader(LIMITS, clock, heads)
    try:
        for piece in pieces:
            reader.feed(piece)
    except Refusal as refusal:
        return list(reader.requests), refusal.status
    return list(reader.requests), None


@pytest.fixture
def recalled(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was read without the parser."""
    found: list[bytes] = []
    recall = Heads.recall

    def noted(heads: Heads, data: bytes, clock: Callable[[], float]) -> Request | None:
        request = recall(heads, data, clock)
        if request is not None:
            found.append(data)
        return request

    monkeypatch.setattr(Heads, "recall", noted)
    return found


def test_a_head_is_known_whatever_the_length_of_the_body(recalled: list[bytes]) -> None:
    heads = Heads(LIMITS)
    sent = [post(b"a" * size) for size in (3, 3, 40, 0, 1000)]
    for data in sent:
        assert read(heads, data) == read(None, data)
    assert recalled == sent[1:]
    get = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
    assert read(heads, get, get) == read(None, get, get)
    assert recalled[-1] == get


def test_the_parser_reads_on_after_requests_that_it_was_not_shown(recalled: list[bytes]) -> None:
    heads, data = Heads(LIMITS), post(b"abc")
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    pieces = (data, data, data[:30], data[30:], data, chunked, data, data + data, data)
    assert read(heads, *pieces) == read(None, *pieces)
    assert len(recalled) == 4


@pytest.mark.parametrize(
    "data",
    [
        post(b"abc", b"Expect: 100-continue"),
        post(b"abc", b"Connection: close"),
        post(b"abc", b"Upgrade: h2c"),
        post(b"ab\r\n\r\ncd", length=b"4"),
        post(b"abc" + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", length=b"3"),
        post(b"abc", b"X: " + b"y" * 1100),
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
    ],
)
def test_what_is_not_one_plain_request_is_not_learnt(data: bytes, recalled: list[bytes]) -> None:
    heads = Heads(LIMITS)
    for _ in range(3):
        assert read(heads, data) == read(None, data)
    assert recalled == []


@pytest.mark.parametrize("length", [b"+3", b"-3", b"3, 3", b"0x3", b" 3", b"3 ", b"03", b"\xb2", b"3" * 30, b""])
def test_lengths_are_what_the_parser_takes_them_for(length: bytes) -> None:
    heads, data = Heads(LIMITS), post(b"abc", length=length)
    for _ in range(2):
        read(heads, post(b"abc"))
        assert read(heads, data) == read(None, data)


def test_a_second_length_is_refused_though_the_first_is_known() -> None:
    heads, data = Heads(LIMITS), post(b"abc", b"Content-Length: 3")
    read(heads, post(b"abc"))
    assert read(heads, data) == read(None, data)
    assert read(heads, data)[1] == 400


def test_a_body_over_the_limit_is_refused_though_its_head_is_known() -> None:
    heads = Heads(LIMITS)
    read(heads, post(b"abc"))
    assert read(heads, post(b"a" * 1001)) == ([], 413)


def test_nothing_is_recalled_after_the_last_request_of_a_connection(recalled: list[bytes]) -> None:
    heads, data = Heads(LIMITS), post(b"abc")
    pieces = (data, post(b"abc", b"Connection: close"), data)
    assert read(heads, *pieces) == read(None, *pieces)
    assert recalled == []


def test_a_request_that_is_changed_changes_no_other() -> None:
    heads, data = Heads(LIMITS), post(b"abc")
    for _ in range(3):
        (request,), _ = read(heads, data)
        assert len(request.headers) == 3
        request.headers.clear()


def test_many_heads_do_not_stay(recalled: list[bytes]) -> None:
    heads, data = Heads(LIMITS), post(b"abc")
    read(heads, data)
    for number in range(1100):
        read(heads, post(b"", b"X-Request-Id: %d" % number))
    read(heads, data)
    assert recalled == []
    read(heads, data)
    assert recalled == [data]


PIECES = [
    *(post(b"abc"), post(b"abcd"), post(b"", path=b"/v1/y"), post(b"abc", b"Connection: close")),
    *(post(b"abc")[:40], post(b"abc")[40:], post(b"x" * 900)[:500], post(b"x" * 900)[500:]),
    *(post(b"abc", b"Expect: 100-continue"), post(b"abc", length=b"5"), b"\r\n", b"de", b"\r\n" + post(b"abc")),
    *(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n", b"GET / HTTP/1.1\n\n"),
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
]


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=8), min_size=1, max_size=4))
def test_every_connection_reads_what_it_would_without_known_heads(connections: list[list[bytes]]) -> None:
    heads = Heads(LIMITS)
    for pieces in connections:
        assert read(heads, *pieces) == read(None, *pieces)
