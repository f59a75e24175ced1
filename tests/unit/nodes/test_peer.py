"""A peer's ages are by the own monotonic clock, and what it says of times is put right by how its clock differs."""

from __future__ import annotations

from typing import cast

import pytest

from dynctl.fabric.peer.link import SILENCE_S, Link
from dynctl.nodes.failed import Failed
from dynctl.nodes.messages import Report
from dynctl.nodes.peer import Peer
from dynctl.plan.values import PlannedNode
from dynctl.telemetry.status import ProcessStatus

NODE = PlannedNode(name="b", address="10.0.0.2", control_port=20000)


class Wire:
    """A link as far as a peer looks at it."""

    def __init__(self) -> None:
        self.heard_at = 0.0


class World:
    """A peer that was met at 0 s of this node's monotonic clock."""

    def __init__(self) -> None:
        self.now, self.wire = 0.0, Wire()
        self.peer = Peer(NODE, clock=lambda: self.now)
        self.peer.take_link(cast(Link, self.wire), "run-1")

    def lose(self) -> None:
        self.peer.lose_link(cast(Link, self.wire))


@pytest.mark.parametrize("offset_s", [-600.0, 0.0, 3600.0])
def test_clocks_that_differ_by_minutes_do_not_matter(offset_s: float) -> None:
    world, own_wall = World(), 1_000_000.0
    process = ProcessStatus(id="decode-0", role="decode", since=own_wall + offset_s - 30, phase_since=None)
    world.peer.take_report(Report(now=own_wall + offset_s, state="ready", processes=(process,)), own_wall)
    assert world.peer.report is not None
    assert world.peer.report.processes[0].since == own_wall - 30
    world.now, world.wire.heard_at = 7.0, 6.5
    assert (world.peer.status().state, world.peer.status().age_s) == ("ready", 0.5)


def test_a_silent_peer_is_lost_and_what_it_said_last_is_kept() -> None:
    world = World()
    world.peer.take_report(Report(now=0.0, state="ready"), 0.0)
    world.lose()
    assert world.peer.alive()  # a connection that broke may be back in a moment
    world.now = SILENCE_S + 7
    row = world.peer.status()
    assert (row.state, row.heard, row.age_s, row.reason) == ("lost", "ready", 12.0, "not heard for 12 s")
    world.peer.trouble = "nothing listens at 10.0.0.2:20000"
    assert world.peer.status().reason == "not heard for 12 s; nothing listens at 10.0.0.2:20000"


def test_a_peer_that_was_never_met_is_missing_with_its_reason() -> None:
    peer = Peer(NODE)
    assert (peer.status().state, peer.status().age_s, peer.status().reason) == (
        "missing",
        None,
        "it has not called yet",
    )
    assert peer.why_not() == "node b is missing: it has not called yet"


def test_another_supervisor_of_the_same_node_begins_anew() -> None:
    world = World()
    failed = Failed(exit_code=1, cause="decode-0 died")
    world.peer.take_report(Report(now=0.0, state="failed", leaving=True, failed=failed), 0.0)
    assert world.peer.why_not() == "node b failed: decode-0 died"
    assert not world.peer.alive()
    world.peer.take_link(cast(Link, world.wire), "run-2")
    assert world.peer.alive()
    assert world.peer.why_not() is None
