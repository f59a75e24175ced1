"""`dynctl check-rdma --listen` and `--peer`: this node's end of a run of two."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec

from dynctl.engines.spec import ProcessSpec
from dynctl.errors import UsageError
from dynctl.fabric.checks.agree import agree
from dynctl.fabric.checks.judge import judge
from dynctl.fabric.checks.observe import observe, with_routes
from dynctl.fabric.checks.values import Need, Observed, Since, WorkerNeed
from dynctl.fabric.peer.address import LOOPBACK, format_address, parse_address
from dynctl.fabric.peer.handshake import Side, check_token
from dynctl.fabric.peer.meeting import Meeting, connect, listen
from dynctl.fabric.peer.messages import Node
from dynctl.fabric.peer.session import AGENT, Session
from dynctl.fabric.probe.child import ProbeAgent
from dynctl.fabric.report import Check, Memory, Report
from dynctl.hardware.values import Hardware
from dynctl.nodes.words import differences
from dynctl.ui.check_progress import CheckProgress

TOKEN_VARIABLE = "DYNCTL_TOKEN"  # noqa: S105 - its name
MAX_TOKEN_BYTES = 4096


class Ends(msgspec.Struct, frozen=True, kw_only=True):
    """Where to listen, or whom to connect to."""

    side: Side
    host: str
    port: int


class Here(msgspec.Struct, frozen=True, kw_only=True):
    """What this node brings: its interpreter, a planned worker to stand for all, hardware, and what is asked for.

    Where both ends have the same file: this node's name in it, and what they must agree on.
    """

    python: str
    worker: ProcessSpec
    hardware: Hardware
    transport_env: dict[str, str]
    backend: str
    required: str
    size_bytes: int | None
    both: bool
    watch_s: float | None = None
    node: str | None = None
    agreed: dict[str, str] = {}


def ends(listen: str | None, peer: str | None) -> Ends | None:
    """From `--listen` and `--peer`; None: one node. UsageError when both are given or either is no address."""
    if listen is not None and peer is not None:
        raise UsageError("--listen and --peer are for different nodes", fix="listen on one, connect from the other")
    if peer is not None:
        host, port = parse_address(peer, "--peer")
        return Ends(side="connect", host=host, port=port)
    if listen is not None:
        host, port = parse_address(listen or LOOPBACK, "--listen")
        return Ends(side="listen", host=host, port=port)
    return None


def token(side: Side, file: Path | None) -> tuple[str, bool]:
    """The token and whether it was made here: --token-file, then DYNCTL_TOKEN; a listener makes one if it has none."""
    if file is not None:
        try:
            with file.open("rb") as opened:
                text = opened.read(MAX_TOKEN_BYTES).decode()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise UsageError(f"can't read the token in {file}", where="--token-file", why=why) from error
        return check_token(text), False
    if TOKEN_VARIABLE in os.environ:
        return check_token(os.environ[TOKEN_VARIABLE]), False
    if side == "connect":
        raise UsageError(
            "--peer needs the listener's token",
            fix=f"the listener prints it: put it into a file for --token-file, or into {TOKEN_VARIABLE}",
        )
    return secrets.token_urlsafe(24), True


def run(at: Ends, key: str, made: bool, here: Here, progress: CheckProgress) -> Report:
    """The whole run; the report, which the other end prints too. DynctlError when the peer fails or goes."""

    def meeting() -> AbstractAsyncContextManager[Meeting]:
        if at.side == "connect":
            progress.phase(f"connecting to {format_address(at.host, at.port)}")
            return connect(at.host, at.port, key)
        return listen(at.host, at.port, key, lambda where: announce(where, key if made else None, progress))

    async def whole() -> Report:
        async with meeting() as met:
            return await session(met, here, progress)

    return asyncio.run(whole())


def announce(where: str, key: str | None, progress: CheckProgress) -> None:
    """Says where this node listens, and how the other reaches it."""
    if where.startswith((f"{LOOPBACK}:", "[::1]")):
        progress.line("this is loopback: another node reaches it only if an address is named, --listen ADDRESS")
    if key:
        progress.line(f"token: {key}")
    progress.line(f"on the other node: {TOKEN_VARIABLE}=TOKEN dynctl check-rdma --peer {where}")
    progress.phase(f"listening on {where} for one peer")


async def session(met: Meeting, here: Here, progress: CheckProgress) -> Report:
    """All that two nodes do once they have met; the report, but for its duration."""
    env = environment(here, met.netdev)
    memory: Memory = "cuda" if here.worker.gpus else "host"
    nics = [nic for nic in here.hardware.nics if nic.active_ports and nic.use == "kv"]
    addresses = {gpu.index: gpu.pci for gpu in here.hardware.gpus}
    gpus = tuple(address for gpu in here.worker.gpus if (address := addresses.get(gpu)))
    worker = WorkerNeed(id=here.worker.id, nics=here.worker.nics, gpus=gpus, env=env)
    need = Need(workers=(worker,), has_gpu=here.hardware.has_gpu())
    observed = await met.link.during(asyncio.to_thread(observe, Path("/"), need))
    node = Node(
        hostname=here.node or here.hardware.hostname or socket.gethostname(),
        required=here.required,
        memory=memory,
        own_address=met.own_address,
        peer_address=met.peer_address,
        rdma=bool(nics),
        size_bytes=here.size_bytes,
        both=here.both,
        line_gigabits_per_s=max((nic.rate_gigabits_per_s or 0.0 for nic in nics), default=None),
        observed=msgspec.Raw(msgspec.json.encode(observed)),
        agreed=here.agreed,
    )
    agent = ProbeAgent(
        AGENT[met.side], here.python, env, cpus=here.worker.cpus, memory=memory, backend=here.backend.upper()
    )
    both = Session(met.link, met.side, node, agent, progress.phase)
    try:
        await both.meet()
        refuse_differences(here, both.peer)
        need = msgspec.structs.replace(need, path=both.floor())
        remote = msgspec.json.decode(both.peer.observed, type=Observed)
        own, shared = await met.link.during(asyncio.to_thread(_rows, observed, remote, need, here.watch_s))
        return await both.prove(own, shared if met.side == "listen" else ())
    except BaseException:
        await agent.kill()
        raise


def refuse_differences(here: Here, peer: Node) -> None:
    """UsageError where the two nodes have not the same file or versions."""
    differ = differences(here.agreed, peer.agreed, f"node {peer.hostname}") if here.agreed and peer.agreed else ()
    if differ:
        raise UsageError(
            f"node {peer.hostname} has another plan than this node, {here.node}",
            why=differ,
            fix="give every node the same file, dynctl, engine and NIXL",
        )


def _rows(
    observed: Observed, remote: Observed, need: Need, watch_s: float | None
) -> tuple[tuple[Check, ...], tuple[Check, ...]]:
    """Rows about this node and its routes, and rows about both nodes, which one of them is enough to tell."""
    since = None
    if watch_s:
        time.sleep(watch_s)
        observed, since = observe(Path("/"), need), Since(earlier=observed, seconds=watch_s)
    both = agree(with_routes(observed, remote, need), remote, need)
    routes = tuple(row for row in both if row.id == "route")
    return (*judge(observed, need, since), *routes), tuple(row for row in both if row.id != "route")


def environment(here: Here, netdev: str | None) -> dict[str, str]:
    """The worker's environment for a peer on another node: RDMA ports, and the interface that has this end's address.

    What the plan gives it for one node (loopback alone, emulation off) does not hold; `transport.env` does.
    """
    own = {k: v for k, v in here.worker.env.items() if k not in ("UCX_NET_DEVICES", "UCX_PROTO_EMULATION_ENABLE")}
    nics = [nic for nic in here.hardware.nics if nic.use == "kv"]
    if here.worker.nics:
        nics = [nic for nic in nics if nic.name in here.worker.nics]
    devices = [f"{nic.name}:{port}" for nic in nics for port in nic.active_ports]
    devices += [netdev] if netdev else []
    chosen = {"UCX_NET_DEVICES": ",".join(devices)} if devices else {}
    return {**own, **chosen, **here.transport_env}
