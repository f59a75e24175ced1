"""Cross-origin requests (Fetch standard): which web pages may use the frontend from a browser."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dynctl.errors import UsageError
from dynctl.http.message import Headers, Request
from dynctl.http.responder import Responder
from dynctl.http.server import Handler

ANY = "*"
_ORIGIN = re.compile(r"https?://[^\s/?#@]+", re.ASCII)
_FOR_S = 600
"""How long a browser may go by an answer to its preflight."""


class Cors:
    """Stands before `handler`. Preflights need no key, as browsers send none with them.

    `origins`: as browsers write them (`https://app.example`, without a path), or `*` for all. UsageError for others.
    """

    def __init__(self, handler: Handler, origins: Sequence[str]) -> None:
        for origin in origins:
            if origin != ANY and not _ORIGIN.fullmatch(origin):
                raise UsageError(f"not an origin: {origin!r}", fix="write it as https://app.example, or * for all")
        self._handler = handler
        self._any = ANY in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    async def handle(self, request: Request, responder: Responder) -> None:
        """One request of the HTTP server."""
        fields: Headers = [] if self._any else [(b"vary", b"origin")]
        origin = request.header(b"origin")
        if origin is None or not (self._any or origin in self._origins):
            responder.also = fields
            await self._handler(request, responder)
            return
        fields.append((b"access-control-allow-origin", b"*" if self._any else origin))
        if request.method == "OPTIONS" and request.header(b"access-control-request-method") is not None:
            fields.append((b"access-control-allow-methods", b"GET, HEAD, POST, OPTIONS"))
            fields.append((b"access-control-max-age", b"%d" % _FOR_S))
            wanted = request.header(b"access-control-request-headers")
            if wanted is not None:
                fields.append((b"access-control-allow-headers", wanted))
            responder.start(204, fields)
            responder.end()
            return
        fields.append((b"access-control-expose-headers", b"x-request-id, retry-after"))
        responder.also = fields
        await self._handler(request, responder)
