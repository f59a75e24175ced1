"""How long start-up may take: `ready`."""

from __future__ import annotations

from pydantic import Field

from dynctl.topology.base import Seconds, Section


class Ready(Section):
    """Deadlines of start-up."""

    timeout_s: Seconds = Field(
        default=1800.0,
        alias="timeout",
        description="Deadline for the whole run to be ready.",
        examples=["30m"],
        json_schema_extra={"default": "30m"},
    )
    stall_s: Seconds = Field(
        default=300.0,
        alias="stall",
        description="Longest time that a starting worker may go without log bytes, CPU, I/O or GPU memory change.",
        examples=["5m"],
        json_schema_extra={"default": "5m"},
    )
