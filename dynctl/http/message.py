"""Values and encodings that client and server share: headers, requests, status lines."""

from __future__ import annotations

from http import HTTPStatus

import httptools
import msgspec

Headers = list[tuple[bytes, bytes]]
"""Header fields in order; names in lower case when they were received."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields that speak of one connection only and are never relayed (RFC 9110, 7.6.1)."""

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
STATUS_LINES = {code: f"HTTP/1.1 {code} {phrase}\r\n".encode() for code, phrase in _PHRASES.items()}


def status_line(status: int) -> bytes:
    """The status line with its CRLF; an unknown status gets an empty phrase."""
    line = STATUS_LINES.get(status)
    return line if line is not None else b"HTTP/1.1 %d \r\n" % status


def find(headers: Headers, name: bytes) -> bytes | None:
    """The first value of `name` (lower case), or None."""
    for key, value in headers:
        if key == name:
            return value
    return None


def end_to_end(headers: Headers) -> Headers:
    """The fields that may be relayed: hop-by-hop ones and those that `Connection` names are left out."""
    named: set[bytes] = set()
    for key, value in headers:
        if key == b"connection":
            named.update(token.strip().lower() for token in value.split(b","))
    named.discard(b"content-length")
    return [item for item in headers if item[0] not in HOP_BY_HOP and item[0] not in named]


def encode_head(first_line: bytes, headers: Headers) -> bytes:
    """First line (with CRLF), fields and the empty line, as bytes."""
    parts = [first_line]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    parts.append(b"\r\n")
    return b"".join(parts)


class Request(msgspec.Struct, kw_only=True):
    """A request whose body is complete. `target` is in origin form; `received` is the clock when the last byte came."""

    method: str
    target: bytes
    path: str
    headers: Headers
    body: bytes
    received: float
    http10: bool
    keep_alive: bool

    def header(self, name: bytes) -> bytes | None:
        """The first value of the field `name` (lower case), or None."""
        return find(self.headers, name)


def origin_form(target: bytes) -> bytes | None:
    """`/path?query` of a request target in origin, absolute or asterisk form; None when it is neither."""
    if target.startswith(b"/"):
        return target.partition(b"#")[0]
    if target == b"*":
        return target
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return None
    if url.schema is None or url.schema.lower() not in (b"http", b"https"):
        return None
    return (url.path or b"/") + (b"?" + url.query if url.query else b"")
