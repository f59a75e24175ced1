"""The NIXL probe with the real NIXL and UCX: what moves, what UCX says of it, and how it fails."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import pytest

from dynctl.fabric.probe.child import ProbeAgent, ProbeError
from dynctl.fabric.ucx_log import UcxReader
from dynctl.fabric.verdict import explain, verdict
from dynctl.hardware.discover import discover

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
