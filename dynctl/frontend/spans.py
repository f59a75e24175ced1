"""Clock readings of one request, and the TTFT split that follows from them."""

from __future__ import annotations

import msgspec


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds; queue + prefill + handover = ttft (a part that did not happen is None and counts as nothing)."""

    queue_ms: float | None = None
    prefill_ms: float | None = None
    handover_ms: float | None = None
    ttft_ms: float | None = None


class Spans:
    """Readings of one monotonic clock, in seconds.

    received: the request is complete · prefill_sent: leg one was sent · sent: the leg that answers was sent ·
    first_content: its first non-empty content came. Each attempt overwrites the readings of the one before, so
    what a failed attempt cost is part of the queue time. ended: the stream's last event; `events` came after its first
    content.
    """

    __slots__ = ("ended", "events", "first_content", "prefill_sent", "received", "sent")

    def __init__(self, received: float) -> None:
        self.received = received
        self.prefill_sent: float | None = None
        self.sent: float | None = None
        self.first_content: float | None = None
        self.ended: float | None = None
        self.events = 0

    def itl_ms(self) -> float | None:
        """Mean time between events after the first content; the last one, `[DONE]`, comes with the one before."""
        if self.first_content is None or self.ended is None or self.events < 2:
            return None
        return (self.ended - self.first_content) * 1000 / (self.events - 1)

    def split(self) -> Split:
        """The parts known so far.

        Handed over: queue until leg one, prefill until leg two, handover until content. Served by one worker alone
        there is no hand-over: its leg until content is the prefill part, since that is the work it does.
        """
        first = self.prefill_sent if self.prefill_sent is not None else self.sent
        if first is None:
            return Split()
        queue_ms = (first - self.received) * 1000
        content, sent = self.first_content, self.sent
        prefill_ms = handover_ms = ttft_ms = None
        if self.prefill_sent is not None:
            if sent is not None:
                prefill_ms = (sent - self.prefill_sent) * 1000
                if content is not None:
                    handover_ms = (content - sent) * 1000
                    ttft_ms = queue_ms + prefill_ms + handover_ms
        elif sent is not None and content is not None:
            prefill_ms = (content - sent) * 1000
            ttft_ms = queue_ms + prefill_ms
        return Split(queue_ms=queue_ms, prefill_ms=prefill_ms, handover_ms=handover_ms, ttft_ms=ttft_ms)
