"""A process on another node: what its own node says of it, and what the frontend's node knows better."""

from __future__ import annotations

import types

import pytest

from dynctl.engines.spec import ProcessSpec
from dynctl.nodes.messages import Report
from dynctl.nodes.seen import LogSeen
from dynctl.runtime.elsewhere import Elsewhere
from dynctl.telemetry.status import ProcessState, ProcessStatus


async def nothing(node: str, process: str) -> LogSeen:
    return LogSeen()


def seen_by_the_frontends_node(heard: ProcessState, proven: str | None) -> ProcessState:
    """The state of a process that its node reports as `heard`, its gates open."""
    spec = ProcessSpec(id="decode-0", role="decode", node="b", argv=("e",))
    row = ProcessStatus(id="decode-0", role="decode", node="b", state=heard)
    report = Report(now=0.0, state="ready", processes=(row,), serving={"decode-0": "r:1"})
    peer = types.SimpleNamespace(name="b", met=True, report=report, alive=lambda: True, why_not=lambda: None)
    process = Elsewhere(spec, peer, nothing, judged=True)  # type: ignore[arg-type]
    process.proven = proven
    return process.state


@pytest.mark.parametrize("heard", ["starting", "loading", "ready"])
def test_it_is_ready_when_its_pairs_are_proven_here(heard: ProcessState) -> None:
    assert seen_by_the_frontends_node(heard, "r:1") == "ready"


def test_it_is_not_ready_before() -> None:
    assert seen_by_the_frontends_node("ready", None) == "loading"
    assert seen_by_the_frontends_node("ready", "r:0") == "loading"


@pytest.mark.parametrize("heard", ["unhealthy", "draining"])
def test_what_its_node_has_taken_out_stays_out(heard: ProcessState) -> None:
    assert seen_by_the_frontends_node(heard, "r:1") == heard
