"""Bytes of one client connection to complete requests, within limits. No sockets, no clock of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import httptools

from dynctl.http.heads import Heads
from dynctl.http.limits import Limits, Refusal
from dynctl.http.message import Headers, Request, find, origin_form


class RequestReader:
    """Feed it bytes; complete requests gather in `requests`, oldest first.

    `feed` raises Refusal when what came can't be answered by a handler; after that the reader is of no further use.
    `in_message`: part of a request has come; `in_head`: its head is not complete; `wants_continue`: the client waits
    for `100 Continue` before it sends its body. `heads`: those that the parser need not read again.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_clock",
        "_field_bytes",
        "_headers",
        "_heads",
        "_limits",
        "_parser",
        "_raw_head_bytes",
        "_target",
        "in_head",
        "in_message",
        "requests",
        "wants_continue",
    )

    def __init__(self, limits: Limits, clock: Callable[[], float], heads: Heads | None = None) -> None:
        self._limits = limits
        self._heads = heads
        self._clock = clock
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._headers: Headers = []
        self._target = b""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._field_bytes = 0
        self._raw_head_bytes = 0
        self.requests: deque[Request] = deque()
        self.in_head = False
        self.in_message = False
        self.wants_continue = False

    def close(self) -> None:
        """Let go of the parser (it and the reader refer to each other)."""
        self._parser = None
        self.requests.clear()

    def feed(self, data: bytes) -> None:
        """Take bytes as they came from the socket."""
        parser = self._parser
        if parser is None:
            return
        heads = None if self.in_message else self._heads
        if heads is not None:
            request = heads.recall(data, self._clock)
            if request is not None:
                self.requests.append(request)
                return
        was_in_head, before = self.in_head, len(self.requests)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise Refusal(501, "this server does not switch protocols (no WebSocket, no HTTP/2)") from None
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            raise (cause if isinstance(cause, Refusal) else Refusal(400, "malformed HTTP request")) from None
        except httptools.HttpParserError as error:
            raise Refusal(400, f"malformed HTTP request: {error}") from None
        if self.in_head:
            # Fields are counted when they are complete; a single endless one shows only here.
            self._raw_head_bytes = self._raw_head_bytes + len(data) if was_in_head else 0
            self._check_head(self._raw_head_bytes)
        elif heads is not None and not self.in_message and len(self.requests) == before + 1:
            heads.learn(data, self.requests[-1])

    # parser callbacks

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self.in_message = self.in_head = True
        self._field_bytes = self._raw_head_bytes = self._body_bytes = 0
        self._target = b""
        self._headers = []
        self._body = []

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self._field_bytes += len(url)
        self._check_head(self._field_bytes)
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or a trailer, which nothing here has a use for."""
        self._field_bytes += len(name) + len(value) + 4
        self._check_head(self._field_bytes)
        if self.in_head:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Checks that need the whole head (framing itself is checked by the parser)."""
        self.in_head = False
        parser = self._parser
        if parser is None:
            return
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise Refusal(505, f"HTTP/{version} is not spoken here")
        hosts = [name for name, _ in self._headers].count(b"host")
        if hosts > 1 or (version == "1.1" and hosts == 0):
            raise Refusal(400, "exactly one Host header is needed")
        length = find(self._headers, b"content-length")
        if length is not None:
            self._check_body(int(length))
        expect = find(self._headers, b"expect")
        if expect is not None and version == "1.1":
            if expect.lower() != b"100-continue":
                raise Refusal(417, "only 'Expect: 100-continue' is understood")
            self.wants_continue = True

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self.wants_continue = False
        self._body_bytes += len(data)
        self._check_body(self._body_bytes)
        self._body.append(data)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self.in_message = False
        self.wants_continue = False
        parser = self._parser
        if parser is None or parser.should_upgrade():
            return
        target = origin_form(self._target)
        if target is None:
            raise Refusal(400, "the request target is not a path")
        body, self._body = self._body, []
        if not parser.should_keep_alive():
            self._heads = None  # whatever comes now is not read
        self.requests.append(
            Request(
                method=parser.get_method().decode("ascii"),
                target=target,
                path=target.partition(b"?")[0].decode("latin-1"),
                headers=self._headers,
                body=body[0] if len(body) == 1 else b"".join(body),
                received=self._clock(),
                http10=parser.get_http_version() == "1.0",
                keep_alive=parser.should_keep_alive(),
            )
        )

    def _check_head(self, size: int) -> None:
        if size > self._limits.head_bytes:
            raise Refusal(431, f"the request head is larger than {self._limits.head_bytes} bytes")

    def _check_body(self, size: int) -> None:
        if size > self._limits.body_bytes:
            raise Refusal(413, f"the request body is larger than {self._limits.body_bytes} bytes")
