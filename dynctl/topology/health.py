"""The `health` section: how workers that are ready are watched."""

from __future__ import annotations

from pydantic import Field

from dynctl.topology.base import Seconds, Section


class Health(Section):
    """How a ready worker is watched."""

    canary_s: Seconds = Field(
        default=5.0,
        alias="canary",
        description="How often each worker must prove that it still makes tokens; without an answer in three quarters "
        "of it, it is taken out of the frontend. Raise it where a single prompt takes longer to compute.",
        examples=["5s"],
        json_schema_extra={"default": "5s"},
    )
    stall_s: Seconds = Field(
        default=60.0,
        alias="stall",
        description="How long a worker may stay unhealthy before it is killed and restarted.",
        examples=["60s"],
        json_schema_extra={"default": "60s"},
    )
