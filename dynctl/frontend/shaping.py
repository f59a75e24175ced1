"""What a frontend may do with requests besides passing them on; all of it is off unless asked for."""

from __future__ import annotations

from typing import Literal

import msgspec

from dynctl.errors import UsageError
from dynctl.frontend.admission import AdmissionLimits
from dynctl.frontend.alone import Alone


class Shaping(msgspec.Struct, frozen=True, kw_only=True):
    """`admission`: see there. `alone`: prompts of which less is to be computed than so many tokens go to decode alone;
    "learn" finds the threshold by the requests' own times."""

    admission: AdmissionLimits | None = None
    alone: int | Literal["learn"] | None = None

    def decide(self) -> Alone | None:
        """What decides it."""
        if self.alone is None:
            return None
        return Alone(None if self.alone == "learn" else self.alone)


def read_shaping(running: int | None, queue: int, wait_s: float, alone: str | None) -> Shaping:
    """From the command line. Raises UsageError."""
    admission = AdmissionLimits(running=running, queue=queue, wait_s=wait_s) if running is not None else None
    if alone in (None, "learn"):
        return Shaping(admission=admission, alone="learn" if alone else None)
    if alone is None or not alone.isdecimal():
        raise UsageError(f"--decode-alone is {alone!r}", fix="a number of tokens, or `learn`")
    return Shaping(admission=admission, alone=int(alone))
