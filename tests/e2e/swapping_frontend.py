"""The frontend with a broken hand-over: every request but the first is given the KV cache of the one before it."""

from __future__ import annotations

import sys

from dynctl.frontend.command import serve
from dynctl.frontend.legs import Handover


class Swapping(Handover):
    """Hands each request the previous one's `kv_transfer_params`."""

    def __init__(self) -> None:
        self._before: bytes | None = None

    def decode_params(self, request_id: str, prefill_reply: bytes) -> bytes | None:
        """The parameters of the request before; the first gets its own."""
        mine = super().decode_params(request_id, prefill_reply)
        given, self._before = self._before or mine, mine
        return given


if __name__ == "__main__":
    port, prefill, decode = sys.argv[1:]
    sys.exit(serve("127.0.0.1", int(port), [prefill], [decode], [], None, None, handover=Swapping()))
