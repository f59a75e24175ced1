"""What the frontend waits for, tries again and admits: `frontend.timeouts`, `.retries` and `.admission`."""

from __future__ import annotations

from pydantic import Field, model_validator

from dynctl.topology.base import Seconds, Section, wrong

SHORTEST_S = 0.1


class LegTimeouts(Section):
    """How long each leg of a request may take."""

    prefill_s: Seconds = Field(
        default=300.0,
        alias="prefill",
        description="Until the prefill leg's reply is whole; then another prefill is asked, or decode serves alone.",
        examples=["5m"],
        json_schema_extra={"default": "5m"},
    )
    first_s: Seconds = Field(
        default=300.0,
        alias="first",
        description="Until the first bytes of a streamed answer.",
        examples=["5m"],
        json_schema_extra={"default": "5m"},
    )
    whole_s: Seconds = Field(
        default=1800.0,
        alias="whole",
        description="Until an answer that is not streamed, which engines send when they have all of it.",
        examples=["30m"],
        json_schema_extra={"default": "30m"},
    )
    stall_s: Seconds = Field(
        default=120.0,
        alias="stall",
        description="Until the next bytes of an answer that has begun; a client that reads slowly does not count.",
        examples=["2m"],
        json_schema_extra={"default": "2m"},
    )

    @model_validator(mode="after")
    def _not_too_short(self) -> LegTimeouts:
        for key in ("prefill", "first", "whole", "stall"):
            if getattr(self, f"{key}_s") < SHORTEST_S:
                raise wrong("is shorter than 100ms", why="deadlines are looked at in sweeps", at=(key,))
        return self


class Retries(Section):
    """How many legs may be tried again: an outage must not double the load."""

    ratio: float = Field(default=0.2, ge=0, le=10, description="Per request, in the long run.", examples=[0.2])
    burst: float = Field(default=64.0, ge=0, le=1e6, description="At once, as when a worker dies.", examples=[64])


class Admission(Section):
    """How many requests the frontend lets through at once; the others wait, each API key's in turn."""

    running: int = Field(ge=1, le=1_000_000, description="Requests with the engines at once.", examples=[64])
    queue: int = Field(
        default=256, ge=0, le=1_000_000, description="Requests that may wait; more get 429.", examples=[256]
    )
    wait_s: Seconds = Field(
        default=30.0,
        alias="wait",
        description="Longest wait; then 503.",
        examples=["30s"],
        json_schema_extra={"default": "30s"},
    )
