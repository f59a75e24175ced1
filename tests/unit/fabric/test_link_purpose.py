"""Links of two purposes never take each other for their own kind."""

from __future__ import annotations

import pytest

from dynctl.errors import TransportError, UsageError
from dynctl.fabric.peer.handshake import Handshake, Purpose
from dynctl.nodes.words import NodePurpose
from dynctl.plan.values import PlannedNode

NODE = PlannedNode(name="a", address="10.0.0.1", control_port=20000)
SECRET = "a secret of sixteen and more"


def side(side: str, purpose: Purpose, version: str = "1") -> Handshake:
    return Handshake(side, SECRET, version, side.encode().ljust(32, b"."), purpose)  # type: ignore[arg-type]


def test_two_nodes_meet() -> None:
    listen, connect = side("listen", NodePurpose(None)), side("connect", NodePurpose(NODE))
    listen.meet(connect.own)
    connect.meet(listen.own)
    assert listen.holds(connect.proof())
    assert connect.holds(listen.proof())


def test_a_node_is_no_check_rdma_and_the_other_way_round() -> None:
    node, check = side("connect", NodePurpose(NODE)), side("listen", Purpose())
    with pytest.raises(TransportError, match="for node a is no supervisor of dynctl"):
        node.meet(check.own)
    with pytest.raises(TransportError, match="not `dynctl check-rdma`"):
        check.meet(node.own)


def test_another_version_is_named_with_its_node() -> None:
    with pytest.raises(UsageError, match="node a runs dynctl 2, this node 1") as raised:
        side("connect", NodePurpose(NODE)).meet(side("listen", NodePurpose(None), "2").own)
    assert raised.value.where == "10.0.0.1:20000"


def test_a_wrong_secret_is_told_with_the_node() -> None:
    error = NodePurpose(NODE).wrong_token("connect")
    assert (error.exit_code, "node a has another secret" in error.cause) == (2, True)
