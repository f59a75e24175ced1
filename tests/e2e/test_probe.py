"""The NIXL probe with the real NIXL and UCX: what moves, what UCX says of it, and how it fails."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import msgspec
import pytest

from dynctl.fabric.probe.child import ProbeAgent, ProbeError
from dynctl.fabric.probe.prove import Proof, prove
from dynctl.fabric.report import Check
from dynctl.fabric.ucx_log import UcxReader
from dynctl.fabric.verdict import explain, verdict
from dynctl.hardware.discover import discover
from dynctl.plan.resolve import resolve
from dynctl.preflight.gather import gather
from dynctl.topology.load import load
from tests.e2e.deployment import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SIZE = 1 << 20
Agents = Callable[..., ProbeAgent]
needs_cma = pytest.mark.skipif(not discover().cma.allowed, reason="this host forbids CMA")


@pytest.fixture
def agent(engine_python: str) -> Agents:
    """Makes agents that keep to loopback."""

    def make(name: str, **env: str) -> ProbeAgent:
        return ProbeAgent(name, engine_python, {"UCX_NET_DEVICES": "lo", **env})

    return make


def read_log(lines: list[str]) -> UcxReader:
    reader = UcxReader("decode-0")
    for line in lines:
        reader.feed(line)
    return reader


@needs_cma
async def test_a_read_and_a_write_are_counted_by_ucx(agent: Agents) -> None:
    async with agent("prefill-0") as source, agent("decode-0") as target:
        offer = await source.offer(SIZE)
        moved = await target.move(offer, "read", SIZE, repeats=3)
        assert (moved.bytes, len(moved.durations_us)) == (SIZE, 3)
        await target.move(offer, "write", SIZE, repeats=2)
        await source.arrived("decode-0", SIZE)
        reader = read_log(await target.close())
    for direction, least in (("pull", 3), ("push", 2)):
        reached, evidence = verdict(reader.tables, direction=direction)  # type: ignore[arg-type]
        assert reached == "shm"
        assert evidence[0].kind == "used"
        assert "cma/memory" in evidence[0].line
        assert sum(row.count or 0 for t in reader.tables if t.multi for row in t.rows) >= least
    assert target.opened.version == reader.version


async def test_bytes_that_did_not_arrive_are_noticed(agent: Agents) -> None:
    async with agent("prefill-0") as source:
        await source.offer(SIZE)
        with pytest.raises(ProbeError) as error:
            await source.arrived("decode-0", SIZE)
    assert error.value.kind == "data"


async def test_tcp_when_ucx_is_told_so(agent: Agents) -> None:
    async with agent("p", UCX_TLS="tcp") as source, agent("d", UCX_TLS="tcp") as target:
        await target.move(await source.offer(SIZE), "read", SIZE)
        reader = read_log(await target.close())
    assert verdict(reader.tables, direction="pull")[0] == "tcp"


@pytest.mark.skipif(discover().has_rdma(), reason="this machine has RDMA")
async def test_a_transport_that_the_host_lacks(agent: Agents) -> None:
    with pytest.raises(ProbeError) as error:
        async with agent("d", UCX_TLS="rc"):
            pass
    assert error.value.kind == "backend"
    why, fix = explain("unknown", read_log(list(error.value.lines)), "rdma")
    assert "'rc' is not available" in " ".join(why)
    assert fix


async def test_a_killed_child_is_an_error_not_a_hang(agent: Agents) -> None:
    async with agent("p") as source, agent("d") as target:
        offer = await source.offer(SIZE)
        assert source.pid
        os.kill(source.pid, signal.SIGKILL)
        with pytest.raises(ProbeError) as gone:
            await source.offer(SIZE)
        assert (gone.value.kind, "SIGKILL" in str(gone.value)) == ("crash", True)
        with pytest.raises(ProbeError):
            await target.move(offer, "read", SIZE, deadline_s=5)


async def test_a_stopped_peer_is_a_deadline(agent: Agents) -> None:
    async with agent("p", UCX_TLS="tcp") as source, agent("d", UCX_TLS="tcp") as target:
        offer = await source.offer(SIZE)
        assert source.pid
        os.kill(source.pid, signal.SIGSTOP)
        try:
            with pytest.raises(ProbeError) as late:
                await target.move(offer, "read", SIZE, deadline_s=1)
        finally:
            os.kill(source.pid, signal.SIGCONT)
    assert late.value.kind == "deadline"


async def test_an_interpreter_without_nixl() -> None:
    with pytest.raises(ProbeError) as error:
        async with ProbeAgent("d", sys.executable, {}):
            pass
    assert error.value.kind == "no-nixl"


def proof(engine_python: str, *sets: str, both: bool = False) -> Proof:
    """The quick proof of the CPU profile with these overrides."""
    topology = load(ROOT / "profiles" / "cpu-1p1d.yaml", [f"python={engine_python}", *sets])
    facts = gather(topology)
    return prove(resolve(topology, facts), facts.hardware, quick=True, both=both)


def row(found: Proof, name: str) -> Check:
    """The only row of that id."""
    (one,) = [check for check in found[1] if check.id == name]
    return one


@needs_cma
def test_a_plan_is_proven_in_both_directions(engine_python: str) -> None:
    found = proof(engine_python, both=True)
    reports, checks, libraries = found
    assert [(r.direction, r.verdict, r.memory) for r in reports] == [("read", "shm", "host"), ("write", "shm", "host")]
    for report in reports:
        assert [item.kind for item in report.evidence] == ["used", "lane"]
        assert "cma/memory" in report.evidence[0].line
        assert report.gigabytes_per_s
        assert report.latency_us
    assert {check.status for check in checks} == {"pass"}
    assert libraries[0].used
    assert {"tcp", "cma"} <= set(libraries[0].transports)


@pytest.mark.skipif(discover().has_rdma(), reason="this machine has RDMA")
def test_the_silent_fallback_is_named(engine_python: str) -> None:
    found = proof(engine_python, "transport.env.UCX_TLS=rc,tcp")
    assert found[0][0].verdict == "tcp"
    assert row(found, "tls").status == "warn"
    assert "told to use rc" in (row(found, "tls").cause or "")
    assert "fell back to tcp" in (row(found, "tls").cause or "")


@pytest.mark.skipif(discover().has_rdma(), reason="this machine has RDMA")
def test_the_missing_device_is_named(engine_python: str) -> None:
    found = proof(engine_python, "transport.env.UCX_TLS=rc")
    assert found[0][0].verdict == "unknown"
    assert "'rc' is not available" in (found[0][0].error or "")
    assert "UCX finds no RDMA device" in (row(found, "tls").cause or "")
    assert row(found, "pair").status == "fail"


def test_a_device_that_is_not_there(engine_python: str) -> None:
    found = proof(engine_python, "transport.env.UCX_NET_DEVICES=mlx5_99:1")
    assert row(found, "netdev").status == "fail"
    assert "mlx5_99:1" in (row(found, "netdev").cause or "")
    assert found[0][0].error


def test_a_plan_whose_interpreter_has_no_nixl(engine_python: str) -> None:
    topology = load(ROOT / "profiles" / "cpu-1p1d.yaml", [f"python={engine_python}"])
    facts = gather(topology)
    plan = resolve(topology, facts)
    bare = tuple(msgspec.structs.replace(p, argv=(sys.executable, *p.argv[1:])) for p in plan.processes)
    found = prove(msgspec.structs.replace(plan, processes=bare), facts.hardware, quick=True)
    assert row(found, "ucx").status == "fail"
    assert "can be imported" in (row(found, "ucx").cause or "")
    assert row(found, "tls").cause == "because ucx"
    assert row(found, "pair").status == "fail"
