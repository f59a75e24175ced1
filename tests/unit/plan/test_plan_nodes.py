"""One file, several nodes: every node comes to the same ids, addresses and ports, and places its own workers."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynctl.engines.spec import ProcessSpec
from dynctl.errors import HostError, TransportError, UsageError
from dynctl.hardware.values import Hardware
from dynctl.plan.facts import EngineFacts, Facts, ModelFacts
from dynctl.plan.resolve import resolve
from dynctl.plan.transport import between
from dynctl.plan.values import Plan
from dynctl.topology.load import parse
from dynctl.topology.schema import Topology
from dynctl.ui.plan import plan_text

ADDRESSES = {name: f"10.0.0.{number}" for number, name in enumerate("abcdef", 1)}


def topology(roles: str, *nodes: str, more: str = "") -> Topology:
    listed = "".join(f"  {name}: {{address: {ADDRESSES[name]}}}\n" for name in nodes)
    return parse(f"schema: 1\nname: t\nmodel: m/m\nnodes:\n{listed}{more}roles:\n{roles}", source="t.yaml")


def facts(node: str, hardware: Hardware | None = None, **changes: object) -> Facts:
    made = Facts(
        hardware=hardware or Hardware(cores=(0, 1, 2, 3)),
        engine=EngineFacts(python="/py", vllm="1", nixl="1"),
        model=ModelFacts(model="m/m"),
        run_dir="/run/t",
        node=node,
    )
    return msgspec.structs.replace(made, **changes)


def shared(plan: Plan) -> list[object]:
    """What the others must know."""
    parts = [(p.id, p.node, p.role, p.leader, p.ports, p.probes) for p in plan.processes]
    return [plan.nodes, plan.digest, plan.agreed, parts, [(p.from_, p.to, p.across) for p in plan.transport.pairs]]


PAIR = "  prefill: {on: [a]}\n  decode: {on: [b]}\n"


def test_workers_sit_on_their_nodes_and_the_frontend_on_the_first() -> None:
    plan = resolve(topology(PAIR, "a", "b"), facts("b", netdev="eth1"))
    assert [(p.id, p.node) for p in plan.processes] == [("prefill-0", "a"), ("decode-0", "b"), ("frontend", "a")]
    assert [p.id for p in plan.own()] == ["decode-0"]
    assert [p.id for p in plan.elsewhere()] == ["prefill-0", "frontend"]
    assert [(n.name, n.address) for n in plan.nodes] == [("a", "10.0.0.1"), ("b", "10.0.0.2")]
    decode = plan.process("decode-0")
    assert decode.probes.url == f"http://10.0.0.2:{decode.ports['http']}"
    assert flag(decode, "--host") == "10.0.0.2"
    assert decode.env["VLLM_NIXL_SIDE_CHANNEL_HOST"] == "10.0.0.2"
    assert decode.env["UCX_NET_DEVICES"] == "eth1,lo"
    assert plan.node == "b"
    own = {plan.nodes[1].control_port, *decode.ports.values()}
    assert len(own) == 3


def flag(process: ProcessSpec, name: str) -> str:
    return process.argv[process.argv.index(name) + 1]


def test_another_file_or_version_is_another_digest() -> None:
    here = resolve(topology(PAIR, "a", "b"), facts("a"))
    other = resolve(topology(PAIR, "a", "b", more="served_name: x\n"), facts("b"))
    assert here.digest != other.digest
    assert {part for part in here.agreed if here.agreed[part] != other.agreed[part]} == {"file"}
    newer = resolve(topology(PAIR, "a", "b"), facts("b", engine=EngineFacts(python="/x", vllm="2", nixl="1")))
    assert {part for part in here.agreed if here.agreed[part] != newer.agreed[part]} == {"vllm"}


@settings(deadline=None)
@given(
    count=st.integers(2, 6), prefill=st.integers(1, 7), decode=st.integers(1, 7), front=st.sampled_from("abcdef")
)  # fmt: skip
def test_any_node_plans_what_the_others_plan(count: int, prefill: int, decode: int, front: str) -> None:
    names = "abcdef"[:count]
    on = [names[: max(n for n in range(1, count + 1) if n <= w or n % w == 0)] for w in (prefill, decode)]
    roles = "".join(
        f"  {role}: {{workers: {workers}, tp: {len(there) if len(there) > workers else 1}, on: [{', '.join(there)}]}}\n"
        for role, workers, there in zip(("prefill", "decode"), (prefill, decode), on, strict=True)
        if len(there) <= workers or len(there) % workers == 0
    )
    more = f"frontend: {{on: {front if front in names else 'a'}}}\n"
    made = topology(roles, *names, more=more)
    plans = [resolve(made, facts(name)) for name in names]
    assert all(shared(plan) == shared(plans[0]) for plan in plans)
    assert sorted(p.id for plan in plans for p in plan.own()) == sorted(p.id for p in plans[0].processes)
    for name in names:
        ports = [port for p in plans[0].processes if p.node == name for port in p.ports.values()]
        assert len(set(ports)) == len(ports)


def test_a_worker_that_spans_nodes() -> None:
    roles = "  prefill: {on: [a]}\n  decode: {workers: 1, tp: 4, on: [b, c]}\n"
    plan = resolve(topology(roles, "a", "b", "c"), facts("c"))
    leader, follower = plan.process("decode-0"), plan.process("decode-0.1")
    assert (leader.node, follower.node, follower.leader) == ("b", "c", "decode-0")
    master = str(leader.ports["master"])
    for rank, process in enumerate((leader, follower)):
        assert [flag(process, f"--{name}") for name in ("nnodes", "node-rank", "master-addr", "master-port")] == [
            "2", str(rank), "10.0.0.2", master,
        ]  # fmt: skip
        assert flag(process, "--tensor-parallel-size") == "4"
    assert follower.argv[1].endswith("vllm_headless.py")
    assert "--headless" in follower.argv
    assert "--headless" not in leader.argv
    assert follower.probes.url is None
    assert [worker.id for worker in plan.workers()] == ["prefill-0", "decode-0"]
    assert follower.ports == {}
    assert [(p.from_, p.to) for p in plan.transport.pairs] == [("prefill-0", "decode-0")]
    config = flag(leader, "--kv-transfer-config")
    assert '"engine_id":"decode-0.{epoch}"' in config, "the peer refuses ranks that differ in it"
    assert flag(follower, "--kv-transfer-config") == config
    assert "engine_id" not in flag(plan.process("prefill-0"), "--kv-transfer-config")


def test_ranks_on_one_node_meet_on_the_loopback_and_those_of_several_on_the_nodes_interface() -> None:
    roles = "  prefill: {tp: 2, on: [a]}\n  decode: {workers: 1, tp: 4, on: [b, c]}\n"
    for node, process, netdev in (("a", "prefill-0", "lo"), ("b", "decode-0", "eth7"), ("c", "decode-0.1", "eth7")):
        plan = resolve(topology(roles, "a", "b", "c"), facts(node, netdev="eth7"))
        env = plan.process(process).env
        assert (env["GLOO_SOCKET_IFNAME"], env["VLLM_HOST_IP"]) == (netdev, ADDRESSES[node])


@pytest.mark.parametrize("on", ["[a, b]", "[b, a]"])
def test_kv_for_a_part_on_another_node_leaves_the_node(on: str) -> None:
    """Bound to loopback the prefill worker could not be reached by the part that is elsewhere."""
    plan = resolve(
        topology(f"  prefill: {{on: [a]}}\n  decode: {{workers: 1, tp: 2, on: {on}}}\n", "a", "b"), facts("a")
    )
    (pair,) = plan.transport.pairs
    assert (pair.across, pair.path) == (True, "tcp")
    for process in ("prefill-0", "decode-0", "decode-0.1"):
        assert plan.process(process).env.get("UCX_NET_DEVICES") != "lo"


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        ("  prefill: {on: [a]}\n  decode: {}\n", "roles.decode.on` is missing"),
        ("  prefill: {on: [a]}\n  decode: {on: [z]}\n", "names `z`"),
        ("  prefill: {on: [a]}\n  decode: {on: [a, a]}\n", "each once"),
        ("  prefill: {on: [a]}\n  decode: {on: [a, b], tp: 3}\n", "can't be divided"),
        ("  prefill: {on: [a]}\n  decode: {on: [a, b, c], workers: 2, tp: 2}\n", "names 3 nodes for 2 workers"),
    ],
)
def test_workers_that_can_not_be_dealt_out(roles: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        topology(roles, "a", "b", "c")
    assert words in f"{caught.value}"


def test_a_taken_port_is_an_error_and_not_a_move() -> None:
    made = topology(PAIR, "a", "b")
    port = resolve(made, facts("b")).process("decode-0").ports["http"]
    with pytest.raises(HostError, match=rf"port {port} of node b is in use"):
        resolve(made, facts("b", taken_ports={port: "pid 7 (x)"}))
    assert resolve(made, facts("a", taken_ports={port + 99: "pid 7 (x)"}))


def test_a_range_too_small_is_said_where_it_is_written() -> None:
    listed = "nodes:\n  a: {address: 10.0.0.1, ports: 20000-20001}\n  b: {address: 10.0.0.2}\n"
    made = parse(f"schema: 1\nname: t\nmodel: m/m\n{listed}roles:\n{PAIR}", source="t.yaml")
    with pytest.raises(UsageError, match="20000-20001 is too small") as caught:
        resolve(made, facts("b"))
    assert caught.value.where == "t.yaml:5 nodes.a.ports"


def test_auto_between_nodes() -> None:
    assert between("auto", ("a", True), ("b", True)) == "rdma"
    assert between("auto", ("a", False), ("b", False)) == "tcp"
    assert between("tcp", ("a", True), ("b", False)) == "tcp"
    with pytest.raises(TransportError, match="node a has active RDMA ports, node b has none"):
        between("auto", ("a", True), ("b", False))


def test_the_plan_as_text_goes_node_by_node() -> None:
    text = plan_text(resolve(topology(PAIR, "a", "b"), facts("b")), 80)
    heads = [line for line in text.splitlines() if line and not line.startswith(" ")]
    assert heads[1].startswith("node a  10.0.0.1, control port ")
    assert heads[2].startswith("prefill-0  GPUs and cores as that node has them, http port ")
    assert heads[3].startswith("frontend  any core")
    assert heads[4].startswith("node b  10.0.0.2, control port ")
    assert heads[4].endswith("(this node)")
    assert heads[5].startswith("decode-0  cores 0-1, http port ")


def test_many_pairs_are_counted_and_not_listed() -> None:
    roles = "  prefill: {workers: 9, on: [a]}\n  decode: {workers: 9, on: [b]}\n"
    text = plan_text(resolve(topology(roles, "a", "b"), facts("b")), 200)
    assert "prefill-0 -> decode-0  tcp: a -> b: no RDMA at both ends" in text
    assert "(and 80 more over tcp)" in text
    assert "prefill-1 ->" not in text


@pytest.mark.parametrize(
    ("require", "rdma", "lacks"),
    [("rdma", (True, False), "node b"), ("shm", (False, False), "node a and node b"), ("nvlink", (True, True), "RDMA")],
)
def test_a_floor_that_two_nodes_can_not_reach_names_both(require: str, rdma: tuple[bool, bool], lacks: str) -> None:
    with pytest.raises(TransportError, match=f"nodes a and b can't reach `require: {require}`") as caught:
        between(require, ("a", rdma[0]), ("b", rdma[1]))
    assert lacks in caught.value.why[0]


def test_a_floor_is_judged_by_what_is_known() -> None:
    more = "transport: {require: rdma}\n"
    with pytest.raises(TransportError, match="nodes a and b"):
        resolve(topology(PAIR, "a", "b", more=more), facts("a"))
    # a third node does not know what the two have: they judge when they meet
    three = topology(PAIR, "c", "a", "b", more=more + "frontend: {on: c}\n")
    assert resolve(three, facts("c")).transport.pairs[0].assumed
