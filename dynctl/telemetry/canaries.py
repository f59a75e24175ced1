"""What dynctl's own canaries add to the counters of an engine, told apart from what users' requests do. Pure."""

from __future__ import annotations

from collections.abc import Mapping

OF_CANARY = ("queue_s", "queued", "prefill_s", "prefills")
"""Counters that a request of one token, without a hand-over, adds to."""


class Canaries:
    """Those of one engine. Mappings hold its counters (OF_CANARY) at a moment.

    An engine counts a request a little late, and its counters may be read between a canary's end there and its answer
    here: how many of what it counted are canaries is known for a time that begins and ends with none under way.
    """

    def __init__(self) -> None:
        self._since: Mapping[str, float] | None = None
        self._answered = 0  # since then
        self._alone: dict[str, float] | None = None  # what one added with which no other request ended
        self.under_way = 0

    def begins(self) -> None:
        """One is sent."""
        self.under_way += 1

    def ends(self, *, answered: bool) -> None:
        """It has its token, or else nothing is known of what it adds."""
        self.under_way = max(0, self.under_way - 1)
        self._answered += answered

    def start(self, now: Mapping[str, float]) -> None:
        """What has been until now is accounted for otherwise."""
        self._since, self._answered = now, 0

    def added(self, now: Mapping[str, float]) -> dict[str, float]:
        """What canaries added since this was last known; nothing while it isn't.

        Each counts as much as the last that was alone, and never more than the mean of what ended with it.
        """
        since, count = self._since, self._answered
        ended = round(now["prefills"] - since["prefills"]) if since else 0
        if self.under_way or (since and ended < count):
            return {}
        self.start(now)
        if not (since and count):
            return {}
        mean = {name: (now[name] - since[name]) / ended for name in OF_CANARY}
        if ended == count:
            self._alone = mean
        alone = self._alone or mean
        return {name: count * min(alone[name], mean[name]) for name in OF_CANARY}
