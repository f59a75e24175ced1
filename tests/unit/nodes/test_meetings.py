"""Which nodes meet for `check-rdma`: every node comes to the same order, and to a port for each meeting."""

from __future__ import annotations

import pytest

from dynctl.errors import UsageError
from dynctl.hardware.values import Hardware
from dynctl.nodes.meetings import Appointment, appointments
from dynctl.plan.facts import EngineFacts, Facts, ModelFacts
from dynctl.plan.ports import default_range
from dynctl.plan.resolve import resolve
from dynctl.topology.load import parse


def met(roles: str, nodes: str, at: str = "a", ports: str = "20000-20999") -> list[Appointment]:
    listed = "".join(
        f"  {name}: {{address: 10.0.0.{number}{f', ports: {ports}' if ports else ''}}}\n"
        for number, name in enumerate(nodes, 1)
    )
    topology = parse(f"schema: 1\nname: t\nmodel: m/m\nnodes:\n{listed}roles:\n{roles}", source="t.yaml")
    facts = Facts(
        hardware=Hardware(cores=(0, 1, 2, 3)),
        engine=EngineFacts(python="/py", vllm="1", nixl="1"),
        model=ModelFacts(model="m/m"),
        run_dir="/run/t",
        node=at,
    )
    return list(appointments(topology, resolve(topology, facts)))


def test_the_earlier_listens_at_the_end_of_its_range() -> None:
    roles = "  prefill: {on: [b]}\n  decode: {on: [a]}\n"
    (only,) = met(roles, "ab")
    assert only == Appointment(listener="a", dialer="b", host="10.0.0.1", port=20999)
    assert (only.other("a"), only.other("b")) == ("b", "a")
    assert met(roles, "ab", ports="")[0].port == default_range("t").last


def test_every_node_keeps_the_same_order_and_each_meeting_has_a_port() -> None:
    roles = "  prefill: {workers: 2, on: [c, a]}\n  decode: {workers: 2, on: [b, d]}\n"
    found = met(roles, "abcd")
    assert [(at.listener, at.dialer) for at in found] == [("a", "b"), ("a", "d"), ("b", "c"), ("c", "d")]
    assert all(met(roles, "abcd", at=node) == found for node in "bcd")
    assert len({(at.host, at.port) for at in found}) == len(found)


def test_one_node_meets_nobody() -> None:
    assert met("  prefill: {}\n  decode: {}\n", "a") == []


def test_every_part_of_a_worker_on_several_nodes_is_met() -> None:
    found = met("  prefill: {on: [a]}\n  decode: {tp: 2, on: [b, c]}\n", "abc")
    assert [(at.listener, at.dialer) for at in found] == [("a", "b"), ("a", "c")]


def test_a_range_too_short() -> None:
    with pytest.raises(UsageError, match="node a has too few ports"):
        met("  prefill: {on: [a]}\n  decode: {workers: 4, on: [b, c, d, e]}\n", "abcde", ports="20000-20003")
