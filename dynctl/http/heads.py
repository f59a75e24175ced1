"""Heads of requests that came before: a client sends the same one each time, but for the length of the body."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from dynctl.http.limits import Limits
from dynctl.http.message import Request, find

_LENGTH = b"\r\ncontent-length: "
_MAX_HEAD_BYTES = 4096
_MAX_HEADS = 1024
_MAX_DIGITS = 9
_NOT_PLAIN = (b"transfer-encoding", b"expect", b"upgrade")
"""Fields on which it hangs what follows a head."""


class Heads:
    """What the parser made of a head is made again of the same bytes, without the parser.

    Only where one read brought one whole request, of a kind that leaves the parser where it was: between two requests.
    """

    def __init__(self, limits: Limits) -> None:
        self._known: dict[bytes, tuple[Request, int]] = {}
        """By the head without the digits of the length: a request, and which of its fields is the length."""
        self._max_head_bytes = min(_MAX_HEAD_BYTES, limits.head_bytes // 2)
        self._max_body_bytes = limits.body_bytes

    def recall(self, data: bytes, clock: Callable[[], float]) -> Request | None:
        """The request that these bytes are, complete at the clock's time; None: the parser is to tell."""
        whole = self._whole(data)
        if whole is None:
            return None
        head, digits, body = whole
        known = self._known.get(head)
        if known is None:
            return None
        request, length_at = known
        headers = request.headers.copy()
        if digits:
            headers[length_at] = (b"content-length", digits)
        return Request(
            method=request.method,
            target=request.target,
            path=request.path,
            headers=headers,
            body=body,
            received=clock(),
            http10=False,
            keep_alive=True,
        )

    def learn(self, data: bytes, request: Request) -> None:
        """The parser has made that request of these bytes, and of no others."""
        headers, whole = request.headers, self._whole(data)
        if whole is None or request.http10 or not request.keep_alive or any(find(headers, name) for name in _NOT_PLAIN):
            return
        head, digits, body = whole
        if body != request.body or digits != (find(headers, b"content-length") or b""):
            return
        if len(self._known) >= _MAX_HEADS:
            self._known.clear()
        length_at = headers.index((b"content-length", digits)) if digits else -1
        self._known[head] = (msgspec.structs.replace(request, body=b"", headers=headers.copy()), length_at)

    def _whole(self, data: bytes) -> tuple[bytes, bytes, bytes] | None:
        """The head without the digits of the length, these, and the body; None unless that is all that there is."""
        end = data.find(b"\r\n\r\n", 0, self._max_head_bytes)
        if end < 0:
            return None
        head, body = data[:end], data[end + 4 :]
        at = head.lower().find(_LENGTH)
        if at < 0:
            return None if body else (head, b"", body)
        start = at + len(_LENGTH)
        stop = head.find(b"\r", start)
        if stop < 0:
            stop = end
        digits = head[start:stop]
        if not digits.isdigit() or len(digits) > _MAX_DIGITS or not int(digits) == len(body) <= self._max_body_bytes:
            return None
        return head[:start] + head[stop:], digits, body
