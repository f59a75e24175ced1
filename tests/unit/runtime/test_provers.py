"""A member waits for the head's proof: for `ready.timeout` while the head is there, for ever while it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import msgspec
import pytest

from dynctl.nodes.messages import HeadWord
from dynctl.plan.values import Plan, PlannedTransport, ReadyRules
from dynctl.runtime.neighbours import Neighbours
from dynctl.runtime.provers import MemberProver
from dynctl.runtime.serving import Serving

PLAN = Plan(
    name="run",
    served_name="m",
    model="m",
    engine="vllm",
    run_dir="/r",
    frontend_url="http://10.0.0.1:8000",
    processes=(),
    transport=PlannedTransport(required="auto"),
    ready=ReadyRules(timeout_s=0.01, stall_s=1.0),
)
TOLD = HeadWord(ready=True)


class Head:
    """The words of the frontend's node, one after the other: each at the next look, the last one for good."""

    def __init__(self, *words: HeadWord | None) -> None:
        self._words = list(words)

    def word(self) -> HeadWord | None:
        return self._words[0]

    def incarnation(self, process: str) -> str:
        return f"{process}:1"

    async def until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            # longer than `ready.timeout`: a wait that counts ends here
            await asyncio.sleep(2 * PLAN.ready.timeout_s)
            if len(self._words) > 1:
                self._words.pop(0)


def again(*words: HeadWord | None) -> None:
    prover = MemberProver(PLAN, Serving(()), cast(Neighbours, Head(*words)))
    asyncio.run(prover.again("decode-0"))


def test_what_the_head_has_proven_is_proven() -> None:
    again(msgspec.structs.replace(TOLD, proven={"decode-0": "decode-0:1"}))


def test_no_time_counts_while_the_head_is_away() -> None:
    again(None, None, None, msgspec.structs.replace(TOLD, proven={"decode-0": "decode-0:1"}))


def test_a_head_that_does_not_prove_it_in_time() -> None:
    with pytest.raises(TimeoutError):
        again(None, TOLD, msgspec.structs.replace(TOLD, proven={"decode-0": "another:1"}))
